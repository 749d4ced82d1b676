# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a job is. Workers count what is done, once; whoever watches asks for a snapshot.

Bytes are counted when a window or a part is through, whatever was repeated on the way, so a retry never counts twice.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from threading import Lock
from typing import Any, Callable, Dict, Iterator, Mapping, Sequence

RATE_MEMORY = 10.0  # seconds in which the rate forgets two thirds of what was
READS_BACK = frozenset({"verifying"})  # phases whose reads do not count: they were read once before
_MIN_INTERVAL = 0.5  # seconds between two measurements of the rate


class DiskProgress:
    """One disk in one phase: bytes read at the source, bytes through to the end, bytes a store or sink has taken."""

    def __init__(self, name: str = "", total: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.total = total  # bytes of data to be read; an upper bound until the extents are known
        self.bytes_read = self.bytes_settled = self.bytes_sent = 0
        self.bytes_through = 0  # settled, and not waiting in memory for the rest of a part
        self._held = 0
        self.moved_at = 0.0
        self.resting = False
        self._clock, self._lock = clock, Lock()

    def expect(self, total: int) -> None:
        """From now on exact."""
        with self._lock:
            self.total = total
            self.moved_at = self._clock()

    def read(self, count: int) -> None:
        with self._lock:
            self.bytes_read += count
            self.moved_at = self._clock()

    def settled(self, count: int) -> None:
        """Guest bytes that are where they belong, or were found to be zeros."""
        with self._lock:
            self.bytes_settled += count
            self._look()
            self.moved_at = self._clock()

    def held(self, count: int) -> None:
        """Bytes that wait in memory until the part they belong to is sent; less than 0 once it is."""
        with self._lock:
            self._held += count
            self._look()

    def _look(self) -> None:
        self.bytes_through = max(self.bytes_through, self.bytes_settled - self._held)

    def sent(self, count: int) -> None:
        with self._lock:
            self.bytes_sent += count
            self.moved_at = self._clock()

    def alive(self) -> None:
        """Something moved that is no data: zeros were written, or a limiter let time pass on purpose."""
        with self._lock:
            self.moved_at = self._clock()

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Inside no byte can move: what was sent is being flushed or made an object. That takes as long as it takes."""
        self.resting = True
        try:
            yield
        finally:
            self.alive()
            self.resting = False

    @property
    def done(self) -> float:
        """Bytes of `total`, reading and writing counting half each; never more than all."""
        return min(self.total, (min(self.bytes_read, self.total) + min(self.bytes_through, self.total)) / 2)


class Progress:
    """One job. `weights` says which phases move bytes, and how long a byte takes in each, relative to the others."""

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._weights = dict(weights or {"exporting": 1.0})
        self._clock, self._wall, self._lock = clock, wall, Lock()
        self._disks: list[DiskProgress] = []
        self._current = 0
        self._passed = 0.0  # weight of the phases that are over
        self._percent = 0.0
        self._rated = self._weighed = 0.0  # the rate times what is known of it, which grows from 0 to 1
        self._moved_before = 0  # bytes settled in phases that are over
        self._in_flight = 0  # bytes that a limiter let through, on their way to be counted as through
        self._sent_before = self._read_before = 0
        self._measured_at, self._measured = clock(), 0
        self._started = self._phase_started = clock()
        self._waited_at = clock()
        self.phase = "pending"
        self.retries = 0

    @property
    def moves_bytes(self) -> bool:
        return self.phase in self._weights

    def enter(self, phase: str, disks: Sequence[DiskProgress] = ()) -> None:
        """Start a phase, with the disks it will go through where it moves bytes."""
        with self._lock:
            if self.phase in self._weights:
                self._passed += self._weights[self.phase]
            self._moved_before += sum(disk.bytes_settled for disk in self._disks)
            self._read_before += self._read_now()
            self._sent_before += sum(disk.bytes_sent for disk in self._disks)
            self.phase, self._disks, self._current = phase, list(disks), 0
            if disks:  # the time in which none could move says nothing of how fast they do
                self._rated = self._weighed = 0.0
                self._measured_at, self._measured = self._clock(), self._moved_before
            self._phase_started = self._waited_at = self._clock()

    def disk(self, number: int) -> DiskProgress:
        """The disk that is gone through now, from 0."""
        with self._lock:
            self._current = number
            self._waited_at = self._clock()
            return self._disks[number]

    def new_disk(self, name: str, size: int) -> DiskProgress:
        return DiskProgress(name, size, self._clock)

    def passing(self, count: int) -> None:
        """Bytes that a limiter lets through, before they move; less than 0 once they did, or could not."""
        with self._lock:
            self._in_flight += count

    def retried(self) -> None:
        with self._lock:
            self.retries += 1

    def alive(self) -> None:
        self._waited_at = self._clock()

    @property
    def idle_for(self) -> float:
        """Seconds since a byte moved, none of them while none can."""
        disks = tuple(self._disks)
        if any(disk.resting for disk in disks):
            return 0.0
        moved = max((disk.moved_at for disk in disks), default=0.0)
        return self._clock() - max(self._waited_at, moved)

    @property
    def where(self) -> str:
        """For sentences: `exporting disk-0`."""
        disks = self._disks
        return f"{self.phase} {disks[self._current].name}".rstrip() if disks else self.phase

    def snapshot(self) -> Dict[str, Any]:
        """The record's fields. Bytes, seconds, bytes a second; `eta` is None while nobody can know."""
        with self._lock:
            now = self._clock()
            done, total = sum(disk.done for disk in self._disks), sum(disk.total for disk in self._disks)
            moving = sum(disk.bytes_through for disk in self._disks) + self._in_flight
            self._measure(now, self._moved_before + moving)
            rate = self._rated / self._weighed if self._weighed else 0.0
            self._percent = max(self._percent, self._percent_now(done, total))
            elapsed = now - self._started
            left = max(0, total - moving)
            return {
                "phase": self.phase,
                "disk": self._disks[self._current].name if self._disks else "",
                "disk_number": self._current + 1 if self._disks else 0,
                "disk_count": len(self._disks),
                "bytes_total": total,
                "bytes_read": self._read_before + self._read_now(),
                "bytes_sent": self._sent_before + sum(disk.bytes_sent for disk in self._disks),
                "phase_percent": round(100.0 * done / total, 1) if total else 0.0,
                "percent": round(self._percent, 1),
                "rate": round(rate),
                "average_rate": round((self._moved_before + moving) / elapsed) if elapsed > 0 else 0,
                "eta": round(left / rate, 1) if rate >= 1 and self._disks else None,
                "elapsed": round(elapsed, 1),
                "retries": self.retries,
                "heartbeat": self._wall(),
            }

    def _read_now(self) -> int:
        return 0 if self.phase in READS_BACK else sum(disk.bytes_read for disk in self._disks)

    def _percent_now(self, done: float, total: int) -> float:
        if self.phase == "ready":
            return 100.0
        whole = sum(self._weights.values()) or 1.0
        here = self._weights.get(self.phase, 0.0) * (done / total if total else 0.0)
        return min(99.9, 100.0 * (self._passed + here) / whole)

    def _measure(self, now: float, moved: int) -> None:
        since = now - self._measured_at
        if since < _MIN_INTERVAL:
            return
        moved = max(moved, self._measured)  # what is no longer in flight may not be counted as through yet
        fresh = 1 - math.exp(-since / RATE_MEMORY)
        self._rated += fresh * ((moved - self._measured) / since - self._rated)
        self._weighed += fresh * (1 - self._weighed)
        self._measured_at, self._measured = now, moved
