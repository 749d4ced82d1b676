# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bucket in a file, for all processes of a host that share a state directory and a limit.

The file holds the time until which the rate is spoken for, by the monotonic clock, and a checksum. A process that is
killed takes nothing along but the stretch that it has booked, which passes. The kernel drops its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import zlib
from hashlib import sha256
from pathlib import Path
from threading import Lock

from .bucket import Booking, Bucket, Wish, next_booking
from .owner import clock_domain
from .record import make_private, unwritable

PATIENCE = 5.0  # seconds with somebody else's lock: it is held for microseconds, unless its holder was frozen
_FARTHEST = 60.0  # seconds: hundreds of processes would be needed to book more
_KEPT = 30 * 86400.0  # seconds without a use: the files of earlier boots, and of limits that nobody has any more
_STATE = struct.Struct("<dI")


class SharedBucket(Bucket):
    """`limit` says what is shared: processes with the same words share it. Thread-safe.

    Where the file cannot be written any more, or its lock is stuck, this process keeps the limit for itself, and the
    transfer goes on. Raises `permission_denied` or `no_space` only at the beginning.
    """

    def __init__(self, state_dir: Path, limit: str) -> None:
        super().__init__()
        # Clocks of other boots, hosts (a state directory may be on NFS) and time namespaces show other times.
        name = sha256(f"{limit}\n{clock_domain()}".encode()).hexdigest()[:32]
        self._state_dir, self._path = state_dir, state_dir / "bandwidth" / name
        self._lock = Lock()
        self._stuck_since: float | None = None
        self._closed = False
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise unwritable(state_dir, error) from error

    def book(self, now: float, wish: Wish) -> Booking | None:
        with self._lock:
            if self._closed:
                return super().book(now, wish)
            try:
                return self._book_shared(now, wish)
            except BlockingIOError:
                self._stuck_since = now if self._stuck_since is None else self._stuck_since
                return None if now - self._stuck_since < PATIENCE else super().book(now, wish)
            except OSError:
                return super().book(now, wish)

    def close(self) -> None:
        """A thread that still asks is not held up, and its number of a file, which may be another's now, not used."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._descriptor)

    def _book_shared(self, now: float, wish: Wish) -> Booking:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            if not os.fstat(self._descriptor).st_nlink:  # somebody tidied up: others have made a new one, or will
                self._reopen()
            self._stuck_since = None
            booking = next_booking(self._read(now), now, wish)
            until = struct.pack("<d", booking.until)
            os.pwrite(self._descriptor, until + struct.pack("<I", zlib.crc32(until)), 0)
            self._booked_until = booking.until
            return booking
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _read(self, now: float) -> float:
        """A new file has its whole burst. What cannot be true neither lets anybody through at once nor holds him up."""
        state = os.pread(self._descriptor, _STATE.size, 0)
        if not state:
            return self._booked_until
        if len(state) == _STATE.size:
            until, checksum = _STATE.unpack(state)
            if checksum == zlib.crc32(state[:8]) and until <= now + _FARTHEST:
                return float(until)
        return now

    def _reopen(self) -> None:
        new = self._open()
        os.close(self._descriptor)
        self._descriptor = new
        fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _open(self) -> int:
        for folder in (self._state_dir, self._path.parent):
            make_private(folder)
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        self._tidy()
        return descriptor

    def _tidy(self) -> None:
        oldest = time.time() - _KEPT
        for path in self._path.parent.iterdir():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()
