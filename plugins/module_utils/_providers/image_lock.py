# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's own image locks, held by us: no QEMU can open these files for writing while we read them. Of a block device
they hold for those alone that have the same node of it (see `image_stamp`).

QEMU marks with shared locks of single bytes (block/file-posix.c) what it does (from 100 on) and what it does not allow
others (from 200 on), and looks at everybody else's before it opens. `qemu-nbd --read-only` forbids writers of a qcow2
file but, measured, not of a raw one; so these locks are ours.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Sequence

from .._errors import VmferryError

DOES, FORBIDS = 100, 200  # RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE
READ, WRITE, RESIZE = 0, 1, 3  # bits of BLK_PERM_*
FLOCK = struct.Struct("hhqqi4x")  # of 64-bit Linux


class ImageLock:
    """Held until `close`. Raises `busy` where somebody writes to one of the files already."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._files: list[int] = []
        try:
            for path in paths:
                self._lock(path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for file in self._files:
            os.close(file)
        self._files = []

    def _lock(self, path: str) -> None:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            kind = "not_found" if isinstance(error, FileNotFoundError) else "permission_denied"
            raise VmferryError(kind, f"{path} cannot be opened: {error.strerror}.") from error  # type: ignore[arg-type]
        self._files.append(file)
        for byte in (DOES + READ, FORBIDS + WRITE, FORBIDS + RESIZE):
            try:
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, _request(fcntl.F_RDLCK, byte))
            except BlockingIOError as error:
                raise _in_use(path) from error
        answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK, DOES + WRITE))
        if FLOCK.unpack(answer[: FLOCK.size])[0] != fcntl.F_UNLCK:
            raise _in_use(path)


def _request(kind: int, byte: int) -> bytes:
    return FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)


def _in_use(path: str) -> VmferryError:
    return VmferryError("busy", f"{path} is in use: another process writes to it.", "Is another VM using this disk?")
