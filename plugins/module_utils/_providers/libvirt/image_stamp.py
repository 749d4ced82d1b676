# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VM that runs leaves on its images, so that it can be seen afterwards that none did.

Of a file its times tell. A block device has an inode for each node that somebody makes, and libvirt makes one for each
QEMU, in a /dev of its own; so neither times nor locks of the host's node know of that QEMU. The kernel counts what is
written to the device itself, by whatever node.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Mapping, Tuple, Union

from ..._transfer.owner import current_owner

Stamp = Tuple[Union[int, str], ...]
DEVICES = Path("/sys/dev/block")
SECTORS_WRITTEN, SECTORS_DISCARDED = 6, 13  # columns of `stat`; requests would count our own flush
_BLIND: Stamp = ("blind", secrets.token_hex(8))  # equals itself in this process, and nothing in another


def image_stamp(path: str, *, is_top: bool) -> Stamp:
    """`is_top`: the image that a VM writes to. libvirt changes the owner of a backing file for any VM that has it."""
    with Path(path).open("rb") as file:  # a network file system looks anew at what is opened
        seen = os.fstat(file.fileno())
        if stat.S_ISBLK(seen.st_mode):
            os.fsync(file.fileno())  # what is written counts once it leaves the page cache
            return _of_device(DEVICES / f"{os.major(seen.st_rdev)}:{os.minor(seen.st_rdev)}")
    return (seen.st_size, seen.st_mtime_ns, *([seen.st_ctime_ns] if is_top else []))


def blind_warnings(stamps: Mapping[str, Stamp]) -> list[str]:
    """A sentence for each path of which no stamp tells anything."""
    return [
        f"Whether {path} is written to while it is exported cannot be told: its counters in /sys cannot be read, "
        "or are off (queue/iostats)."
        for path, stamp in stamps.items()
        if stamp == _BLIND
    ]


def _of_device(device: Path) -> Stamp:
    """Counters begin anew with the host, and with the device; then its folder is another."""
    boot = current_owner().get("boot_id")
    try:
        counted = (device / "stat").read_text(encoding="ascii").split()
        folder = device.stat().st_ino
    except OSError:
        return _BLIND
    if not boot or not _is_counted(device):
        return _BLIND
    sectors = [int(counted[column]) for column in (SECTORS_WRITTEN, SECTORS_DISCARDED) if column < len(counted)]
    return (str(boot), folder, *sectors)


def _is_counted(device: Path) -> bool:
    """A partition is counted where its disk is."""
    disk = device.resolve().parent if (device / "partition").exists() else device
    try:
        return (disk / "queue" / "iostats").read_text(encoding="ascii").strip() != "0"
    except OSError:
        return True
