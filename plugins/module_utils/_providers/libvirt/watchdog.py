# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends a backup whose exporter died, so that a dead client never pauses a guest.

Runs as a process of its own, from its source alone: nothing of the collection is imported here, since the collection is
gone with the exporter. Reads one JSON line, and then waits on the same pipe: `done` means a normal end, the end of the
pipe means that the exporter is dead, by whatever signal.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import sys
import time
from pathlib import Path
from typing import Any

LOOK_EVERY = 1.0  # seconds
LEAST_FREE = 64 * 1024 * 1024  # bytes of scratch: below, the next guest write may pause the guest
LEAST_FREE_SHARE = 0.02
PAUSED, IO_ERROR = 3, 5  # virDomainState, virDomainPausedReason
GIVE_UP_AFTER = 600.0  # seconds of trying to reach libvirt


def watch(wanted: dict[str, str], pipe: int) -> bool:
    """True when the exporter said that all is done."""
    said = b""
    while True:
        if select.select([pipe], [], [], LOOK_EVERY)[0]:
            got = os.read(pipe, 64)
            said += got
            if b"done" in said:
                return True
            if not got:
                return False
        if scratch_runs_low(wanted["folder"]):
            return False


def scratch_runs_low(folder: str) -> bool:
    try:
        status = os.statvfs(folder)
    except OSError:
        return False
    free, whole = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    return free < min(LEAST_FREE, whole * LEAST_FREE_SHARE)


def clean_up(wanted: dict[str, str]) -> None:
    import libvirt

    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    deadline = time.monotonic() + GIVE_UP_AFTER
    while time.monotonic() < deadline:
        try:
            end_backup(libvirt, libvirt.open(wanted["uri"]).lookupByUUIDString(wanted["domain"]), wanted["folder"])
            break
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                break
        time.sleep(LOOK_EVERY)
    shutil.rmtree(wanted["folder"], ignore_errors=True)


def end_backup(libvirt: Any, domain: Any, folder: str) -> None:
    if not domain.isActive():
        return
    try:
        backup = domain.backupGetXMLDesc()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_BACKUP:
            raise
        backup = ""
    if folder in backup:
        domain.abortJob()
    if domain.state() == [PAUSED, IO_ERROR]:
        domain.resume()
    if Path(folder, "frozen").exists():
        with contextlib.suppress(libvirt.libvirtError):  # the agent went away, or thawed by itself
            domain.fsThaw()


def main() -> None:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return
        line += byte
    wanted = json.loads(line)
    if not watch(wanted, 0):
        clean_up(wanted)


if __name__ == "__main__" and sys.argv[0] == "-c":
    main()
