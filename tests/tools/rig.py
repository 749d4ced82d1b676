# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers for plays: started and stopped by one task each.

    rig.py start FOLDER [--s3] [--agent] [--lifetime SECONDS]
                                 a private libvirt with the machine `web01` running on it, and an S3 server with the
                                 bucket `exports`; prints how to reach them, as JSON. With --agent, the machine has a
                                 guest agent, which runs commands in it
    rig.py boots FOLDER NAME     powers a machine on, after powering it off; fails when its console does not say READY
    rig.py stop FOLDER           ends the servers and removes the folder; does nothing when there are none

A process in the background owns the servers. It ends by itself after its lifetime, so that a play which was killed
before it could stop them leaves nothing for ever.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rigs import guests
from rigs.domain import Disk, Machine, boot_and_expect, define_and_start
from rigs.libvirt import LibvirtRig
from rigs.seaweedfs import seaweedfs

LIFETIME = 900  # seconds
START_SECONDS = 120
STOP_SECONDS = 60
VM, BUCKET = "web01", "exports"
DESCRIPTION, LOG, PID = "rig.json", "rig.log", "rig.pid"


def start(folder: Path, s3: bool = False, lifetime: int = LIFETIME, agent: bool = False) -> dict[str, Any]:
    """How to reach the servers."""
    folder.mkdir(mode=0o700, parents=True)
    wanted = [*(["--s3"] if s3 else []), *(["--agent"] if agent else [])]
    with (folder / LOG).open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, __file__, "serve", str(folder), "--lifetime", str(lifetime), *wanted],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # it outlives the task that starts it
        )
    (folder / PID).write_text(str(server.pid))
    deadline = time.monotonic() + START_SECONDS
    while not (folder / DESCRIPTION).exists():
        if server.poll() is not None or time.monotonic() > deadline:
            said = (folder / LOG).read_text()
            stop(folder)
            sys.exit(f"the rig did not start:\n{said}")
        time.sleep(0.05)
    return read(folder)


def read(folder: Path) -> dict[str, Any]:
    """As `start` returned it; empty where nothing runs."""
    try:
        runs = _is_ours(int((folder / PID).read_text()), folder)
        return json.loads((folder / DESCRIPTION).read_text()) if runs else {}
    except FileNotFoundError:
        return {}


def serve(folder: Path, s3: bool, agent: bool, lifetime: int) -> None:
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGALRM, _leave)
    signal.alarm(lifetime)
    with ExitStack() as servers:
        described: dict[str, Any] = {}
        if s3:
            server = servers.enter_context(seaweedfs())
            server.client().create_bucket(Bucket=BUCKET)
            described["s3"] = {"url": f"s3://{BUCKET}/vms", "storage": server.settings}
        rig = servers.enter_context(LibvirtRig())
        disk = guests.place(guests.linux_disk(), rig.directory / f"{VM}.qcow2")
        guest = define_and_start(rig, Machine(VM, disks=(Disk(disk),), agent=agent))
        guest.console.wait_for(guests.READY)
        if agent:
            guest.wait_for_agent()
        (rig.directory / "exports").mkdir()
        (rig.directory / "images").mkdir()
        fresh = folder / f"{DESCRIPTION}.part"
        fresh.write_text(json.dumps({**described, **_description(rig)}))
        fresh.rename(folder / DESCRIPTION)
        while True:
            signal.pause()


def _description(rig: LibvirtRig) -> dict[str, Any]:
    return {
        "uri": rig.uri,
        "vm": VM,
        "vm_id": rig.connect().lookupByName(VM).UUIDString(),
        "directory": str(rig.directory),
        "exports": str(rig.directory / "exports"),
        "images": str(rig.directory / "images"),
        "state_dir": str(rig.directory / "state"),
    }


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit()


def boots(folder: Path, name: str) -> None:
    described = json.loads((folder / DESCRIPTION).read_text())
    rig = LibvirtRig()  # never started: it only borrows the running one's address
    rig.uri, rig.directory = described["uri"], Path(described["directory"])
    domain = rig.connect().lookupByName(name)
    if domain.isActive():
        domain.destroy()
    boot_and_expect(rig, domain, guests.READY)
    print(guests.READY)


def stop(folder: Path) -> None:
    if not (folder / PID).exists():
        return
    pid = int((folder / PID).read_text())
    if _is_ours(pid, folder):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while _is_ours(pid, folder):
            if time.monotonic() > deadline:
                sys.exit(f"the rig, process {pid}, does not end")
            time.sleep(0.05)
    shutil.rmtree(folder)


def _is_ours(pid: int, folder: Path) -> bool:
    """A number may have gone to another process meanwhile; a process that is dead has no arguments."""
    try:
        return os.fsencode(folder) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="rig.py")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("start", start), ("serve", serve), ("boots", boots), ("stop", stop)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("folder", type=Path)
        if run in (start, serve):
            command.add_argument("--s3", action="store_true")
            command.add_argument("--agent", action="store_true")
            command.add_argument("--lifetime", type=int, default=LIFETIME)
        elif run is boots:
            command.add_argument("name")
    options = vars(parser.parse_args())
    del options["command"]
    if answer := options.pop("run")(**options):
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
