# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The locks by which QEMU tells others what it does with an image, and what they may not do meanwhile.

It marks with shared locks of single bytes (block/file-posix.c) what it does (from 100 on) and what it does not allow
others (from 200 on), and looks at everybody else's before it opens. `qemu-nbd --read-only` forbids writers of a qcow2
file but, measured, not of a raw one. This file imports nothing of ours: it is also run where a hypervisor is.
"""

from __future__ import annotations

import fcntl
import os
import struct

DOES, FORBIDS = 100, 200  # RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE
READ, WRITE, RESIZE = 0, 1, 3  # bits of BLK_PERM_*
FLOCK = struct.Struct("hhqqi4x")  # of 64-bit Linux


def lock(path: str) -> int:
    """A descriptor that keeps writers away until it is closed. Raises BlockingIOError where one is there already."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for byte in (DOES + READ, FORBIDS + WRITE, FORBIDS + RESIZE):
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, _request(fcntl.F_RDLCK, byte))
        answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK, DOES + WRITE))
        if FLOCK.unpack(answer[: FLOCK.size])[0] != fcntl.F_UNLCK:
            raise BlockingIOError(f"{path} is written to")
    except BaseException:
        os.close(file)
        raise
    return file


def _request(kind: int, byte: int) -> bytes:
    return FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)
