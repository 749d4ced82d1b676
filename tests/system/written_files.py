# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files the processes of a test write, on every file system, asked of the kernel. Needs root."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .leftovers import MARK

# fanotify(7): the only such interface that tells who wrote
FAN_NONBLOCK, FAN_CLOEXEC = 0x2, 0x1
FAN_MARK_ADD, FAN_MARK_FILESYSTEM = 0x1, 0x100
FAN_MODIFY, FAN_CLOSE_WRITE, FAN_Q_OVERFLOW = 0x2, 0x8, 0x4000
AT_FDCWD = -100
EVENT = struct.Struct("=IBBHQii")  # length, version, reserved, length of this, mask, file descriptor, process
PLACES = ("/", "/tmp", "/var/tmp", "/dev/shm", "/run")
BUFFER = 1 << 16


class WrittenFiles:
    """`sizes`: of each file that a process with the test's mark wrote or left open for writing, at its largest."""

    def __init__(self) -> None:
        self.sizes: dict[Path, int] = {}
        self.lost = False
        self._ours: dict[int, bool] = {}
        self._over = threading.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.fanotify_mark.argtypes = [
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint64,
            ctypes.c_int,
            ctypes.c_char_p,
        ]
        self._descriptor = self._checked(self._libc.fanotify_init(FAN_NONBLOCK | FAN_CLOEXEC, os.O_RDONLY))
        how, what = FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_MODIFY | FAN_CLOSE_WRITE
        for place in {Path(one).stat().st_dev: one for one in PLACES}.values():
            self._checked(self._libc.fanotify_mark(self._descriptor, how, what, AT_FDCWD, os.fsencode(place)))
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _checked(self, answer: int) -> int:
        if answer < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return answer

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """All that was written before is known afterwards."""
        self._over.set()
        self._thread.join()
        os.close(self._descriptor)

    def _read(self) -> None:
        while True:
            last = self._over.is_set()
            if select.select([self._descriptor], [], [], 0.0 if last else 0.1)[0]:
                self._take(os.read(self._descriptor, BUFFER))
            elif last:
                return

    def _take(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            length, _version, _reserved, _own, mask, file, pid = EVENT.unpack_from(data, at)
            at += length
            if mask & FAN_Q_OVERFLOW:
                self.lost = True
                continue
            if self._is_ours(pid):
                path = Path(f"/proc/self/fd/{file}").readlink()
                self.sizes[path] = max(self.sizes.get(path, 0), os.fstat(file).st_size)
            os.close(file)

    def _is_ours(self, pid: int) -> bool:
        if pid not in self._ours:
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                return False  # it has ended; all that the tests look at live longer than an event
            self._ours[pid] = f"{MARK}={os.getpid()}".encode() in environment.split(b"\0")
        return self._ours[pid]


@contextmanager
def written_files() -> Iterator[WrittenFiles]:
    files = WrittenFiles()
    files.start()
    try:
        yield files
    finally:
        files.stop()
