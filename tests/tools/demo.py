# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`./dev demo`: a real libvirt, a tiny real VM, exported while it runs, proved, imported, and booted again.

Everything lies in one temporary folder and is removed in the end. What moves the VM is Ansible, as a user would run it;
this script starts the servers and looks at the consoles.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from rigs import guests
from rigs.domain import Disk, Machine, boot_and_expect, define_and_start
from rigs.libvirt import LibvirtRig

RATE = "8MiB/s"  # slow enough to see it move


def main() -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vmferry-demo-") as folder, LibvirtRig() as rig:
        demonstrate(rig, Path(folder))
    say(f"Done in {time.monotonic() - started:.0f} s; the demo's VMs, servers and files are gone.")


def demonstrate(rig: LibvirtRig, folder: Path) -> None:
    store, images = folder / "exports", folder / "images"
    images.mkdir()
    say("Booting a tiny Linux VM from its disk …")
    disk = guests.place(guests.linux_disk(), rig.directory / "demo.qcow2", "qcow2")
    guest = define_and_start(rig, Machine("demo", disks=(Disk(disk),)))
    guest.console.wait_for(guests.READY)
    guest.console.run("echo written-before-the-export | dd of=/dev/vda bs=512 seek=4 conv=notrunc,fsync 2>/dev/null")
    say("It is up. Exporting it while it runs, straight into " + str(store))
    settings = {
        "url": f"file://{store}",
        "state_dir": str(folder / "state"),
        "libvirt": {"uri": rig.uri, "scratch_dir": str(rig.directory)},
    }
    export = {**settings, "vm": "demo", "bandwidth_limit": RATE, "verify": "content", "progress_interval": "1s"}
    play("vm_export", export, rig)
    guest.console.run("true")
    say("The guest went on running meanwhile. Making a second VM of the export …")
    play("vm_import", {**settings, "name": "demo-restored", "placement": {"storage": str(images)}}, rig)
    guest.destroy()
    boot_and_expect(rig, rig.connect().lookupByName("demo-restored"), guests.READY)
    say("The second VM came up: its console says " + guests.READY)


def play(module: str, arguments: dict[str, Any], rig: LibvirtRig) -> None:
    """One task, as `ansible` runs it, with the lines it prints about its job."""
    environment = {**os.environ, **rig.environment, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "0"}
    command = ["ansible", "localhost", "-m", f"vmferry.migrate.{module}", "-a", json.dumps(arguments)]
    print("  $ " + " ".join(command[:4]) + f" -a '{json.dumps(arguments)}'", flush=True)
    said, progress = [], 0
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as task:
        assert task.stdout is not None
        for line in task.stdout:
            if line.startswith("[localhost: "):
                progress += 1
                print("  " + line.rstrip(), flush=True)
            else:
                said.append(line)
    output = "".join(said)
    if task.returncode:
        sys.exit(f"{module} failed:\n{output}")
    if not progress:
        sys.exit(f"{module} did not show how far it was:\n{output}")
    result = json.loads(output[output.index("{") :])
    for disk in result["export"]["disks"]:
        print(f"  {disk['id']}: {disk['bytes_read']} of {disk['size']} bytes held data; digest {disk['digest_root']}")
    print(f"  {result['export']['url']}, verified: {result['export']['verified']}", flush=True)


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
