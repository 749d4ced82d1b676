# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Block devices for tests: loop devices over files. Needs root.

    with loop_device(path) as device:     # Path("/dev/loop3"), as large as the file, which it reads and writes
        ...
    with loop_device(path, sector=4096):  # a disk that takes whole 4 KiB sectors only

A loop device passes discards and zeros on to its file as holes.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Iterator


@contextlib.contextmanager
def loop_device(path: Path, *, sector: int = 512, read_only: bool = False) -> Iterator[Path]:
    """A loop device over an existing file whose size is a multiple of `sector`; detached at the end."""
    if path.stat().st_size % sector:
        raise ValueError(f"{path} is not a whole number of {sector}-byte sectors: the device would be shorter")
    command = ["/sbin/losetup", "--find", "--show", "--sector-size", str(sector)]
    if read_only:
        command.append("--read-only")
    attached = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    if attached.returncode:
        raise RuntimeError(f"no loop device: {attached.stderr.strip()}")
    device = Path(attached.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["/sbin/losetup", "--detach", str(device)], check=True)
