# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rate shared by many threads, and by processes: each says how much it is about to move, and waits until it may."""

from __future__ import annotations

import time
from datetime import datetime
from threading import Lock
from typing import Callable

from .bucket import Booking, Bucket, Wish
from .priority import WEIGHTS
from .timetable import Timetable

_BURST_SECONDS = 0.25  # of the rate, saved up while nothing moves: more would show in a ten-second average
_QUANTUM = 0.025  # seconds of the rate booked at once for a weight of 1: 40 times a second
_KEPT = 0.25  # seconds: what was booked and not used by then is gone, as from a bucket that is full
_BUSY = 0.005  # seconds until the bucket is asked again that could not be
_SLICE = 0.5  # seconds slept at most before looking at the timetable again
_SHORTEST = 0.001  # seconds: less is no sleep at all
_LOOK = 1.0  # seconds between two looks at the calendar


class Limiter:
    """Requests of any size wait their time, and never hang: they are booked in the bucket piece by piece.

    Of those that share a bucket, each gets its weight's share, as its pieces are that large and are served in turn. A
    request is let through when everything asked for up to and including it is booked and due. `waiting` is called now
    and then by who waits, so that nobody takes it for a standstill.
    """

    def __init__(
        self,
        timetable: Timetable,
        burst: int | None = None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        local_time: Callable[[], datetime] = datetime.now,
        waiting: Callable[[], object] | None = None,
        bucket: Bucket | None = None,
        weight: int = WEIGHTS["normal"],
    ) -> None:
        self._timetable, self._burst = timetable, burst
        self._sleep, self._clock, self._local_time, self._waiting = sleep, clock, local_time, waiting
        self._bucket, self._least = bucket or Bucket(), weight * _QUANTUM
        self._lock = Lock()
        self._asked = self._granted = 0.0  # bytes, all requests so far
        self._booked: Booking | None = None  # not due yet
        self._rate = timetable.rate_at(local_time())
        self._looked = self._due = clock()

    def take(self, nbytes: int) -> None:
        """Returns when so many bytes may move; raises what `sleep` raises."""
        with self._lock:
            self._forget_unused()
            self._asked += nbytes
            goal = self._asked
        while True:
            with self._lock:
                pause = self._pause(goal)
            if pause is None:
                return
            if self._waiting is not None:
                self._waiting()
            self._sleep(max(_SHORTEST, min(_SLICE, pause)))

    def _pause(self, goal: float) -> float | None:
        """Seconds until it is worth to look again; None: the goal is reached. Not by less than a byte: it is a sum."""
        now = self._clock()
        rate = self._rate_of(now)
        if rate is None:
            self._granted, self._booked = self._asked, None
            return None
        while goal - self._granted >= 1:
            if self._booked is None:
                self._booked = self._bucket.book(now, self._wish(rate))
            if self._booked is None:
                return _BUSY
            if self._booked.until > now:
                return self._booked.until - now
            self._granted += self._booked.seconds * rate
            self._booked, self._due = None, now
        return None

    def _wish(self, rate: float) -> Wish:
        saved = _BURST_SECONDS if self._burst is None else self._burst / rate
        return Wish(self._least, (self._asked - self._granted) / rate, saved)

    def _forget_unused(self) -> None:
        oldest = self._clock() - _KEPT
        if self._due < oldest:
            self._granted = min(self._granted, self._asked)
        if self._booked is not None and self._booked.until < oldest:
            self._booked = None

    def _rate_of(self, now: float) -> float | None:
        if now - self._looked >= _LOOK:
            self._looked = now
            self._rate = self._timetable.rate_at(self._local_time())
        return self._rate
