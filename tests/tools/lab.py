# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`./dev lab`: a real libvirt with a tiny running VM, to try the collection on by hand."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import rig

FOLDER = Path(__file__).resolve().parents[2] / ".build/lab"
HOURS = 8

RUNS = """\
libvirt runs at {uri}
with the VM {vm}, for {hours} hours or until `./dev lab stop`, which removes all of it. Write into play.yml:

- hosts: localhost
  gather_facts: false
  environment: {{VMFERRY_STATE_DIR: {state_dir}}}
  module_defaults:
    group/vmferry.migrate.libvirt:
      provider: libvirt
      libvirt: {{uri: "{uri}", scratch_dir: {directory}}}
    group/vmferry.migrate.storage:
      url: {exports}
  tasks:
    - vmferry.migrate.vm_export: {{vm: {vm}}}
    - vmferry.migrate.vm_import: {{name: {vm}-restored, placement: {{storage: {images}}}}}
    - vmferry.migrate.vm_info:

    ./dev shell ansible-playbook play.yml
    ./dev shell virsh -c '{uri}' list --all

An export of an idle VM stays as it is. To see an increment, have the VM write before the play runs again:

    ./dev shell virsh -c '{uri}' qemu-agent-command {vm} '{write}'

A killed export sends up to 64 MiB again when it goes on, which is all that this VM has. To see it go on, add a disk:

    head -c 300M /dev/urandom > {directory}/more.raw
    ./dev shell virsh -c '{uri}' attach-disk {vm} {directory}/more.raw vdb --subdriver raw --persistent"""


RANDOM = ["if=/dev/urandom", "of=/mnt/new", "bs=1M", "count=2", "conv=fsync"]
WRITE = {"execute": "guest-exec", "arguments": {"path": "/bin/dd", "arg": RANDOM}}


def start(folder: Path) -> None:
    """Where it runs already, only tells so."""
    described = rig.read(folder)
    if not described:
        rig.stop(folder)  # what is left of one whose time was over
        described = rig.start(folder, lifetime=HOURS * 3600, agent=True)
    print(message(described))


def stop(folder: Path) -> None:
    runs = folder.exists()
    rig.stop(folder)
    print("The lab is removed, with what was exported and imported there." if runs else "No lab runs.")


def message(described: dict[str, Any]) -> str:
    return RUNS.format(**described, hours=HOURS, write=json.dumps(WRITE))


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev lab")
    parser.add_argument("command", choices=["start", "stop"])
    command = parser.parse_args().command
    {"start": start, "stop": stop}[command](FOLDER)


if __name__ == "__main__":
    main()
