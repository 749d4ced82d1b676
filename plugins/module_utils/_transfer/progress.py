# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a job is: cheap to count from many threads, read once a second by whoever supervises."""

from __future__ import annotations

import time
from threading import Lock
from typing import Any, Callable, Sequence

SMOOTHING = 0.3  # weight of the newest second in the rate
MOVING = frozenset({"exporting", "transferring", "importing", "verifying"})


class Progress:
    """Counts what was done, never what was tried: workers report a window when it is through, so a retry adds nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, Lock()
        self._started = clock()
        self.phase = "pending"
        self.retries = 0
        self.moved_at = self._started  # when a byte last moved
        self._sizes: Sequence[int] = ()
        self._disk = -1
        self._disk_total = self._read_of_disk = self._read_all = self._sent_all = 0
        self._looked, self._read_then, self._rate = self._started, 0, 0.0

    def enter(self, phase: str) -> None:
        with self._lock:
            self.phase, self.moved_at = phase, self._clock()

    def announce(self, sizes: Sequence[int]) -> None:
        """The disks' sizes in bytes: until a disk's map is known, its size is its weight."""
        with self._lock:
            self._sizes, self._disk = tuple(sizes), -1
            self._disk_total = self._read_of_disk = 0

    def next_disk(self) -> None:
        with self._lock:
            self._disk += 1
            self._disk_total = self._read_of_disk = 0

    def disk_total(self, count: int) -> None:
        """Bytes of this disk that hold data."""
        with self._lock:
            self._disk_total, self.moved_at = count, self._clock()

    def read(self, count: int) -> None:
        with self._lock:
            self._read_of_disk += count
            self._read_all += count
            self.moved_at = self._clock()

    def sent(self, count: int) -> None:
        with self._lock:
            self._sent_all += count
            self.moved_at = self._clock()

    def retried(self) -> None:
        with self._lock:
            self.retries += 1

    def snapshot(self) -> dict[str, Any]:
        """Sizes in bytes, times in seconds, rates in bytes per second; `eta` is None while nothing can be said."""
        with self._lock:
            now = self._clock()
            elapsed = now - self._started
            rate = self._current_rate(now)
            percent = self._percent()
            eta = None
            if 0 < percent < 100 and self.phase in MOVING:
                eta = round(elapsed * (100 - percent) / percent, 1)
            return {
                "phase": self.phase,
                "disk": max(0, self._disk) + 1 if self._sizes else 0,
                "disks": len(self._sizes),
                "bytes_total": sum(self._sizes),
                "bytes_read": self._read_all,
                "bytes_sent": self._sent_all,
                "percent": round(percent, 1),
                "rate": int(rate),
                "average_rate": int(self._read_all / elapsed) if elapsed > 0 else 0,
                "eta": eta,
                "duration": round(elapsed, 1),
                "retries": self.retries,
            }

    def _current_rate(self, now: float) -> float:
        elapsed = now - self._looked
        if elapsed >= 1.0:
            newest = (self._read_all - self._read_then) / elapsed
            self._rate = newest if not self._rate else SMOOTHING * newest + (1 - SMOOTHING) * self._rate
            self._looked, self._read_then = now, self._read_all
        return self._rate or (self._read_all / (now - self._started) if now > self._started else 0.0)

    def _percent(self) -> float:
        total = sum(self._sizes)
        if self.phase == "ready":
            return 100.0
        if not total or self._disk < 0:
            return 0.0
        done = sum(self._sizes[: self._disk])
        share = min(1.0, self._read_of_disk / self._disk_total) if self._disk_total else 0.0
        return min(100.0, 100.0 * (done + share * self._sizes[min(self._disk, len(self._sizes) - 1)]) / total)
