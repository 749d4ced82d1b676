# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rate shared by many threads: each says how much it is about to move, and waits until that much may."""

from __future__ import annotations

import time
from datetime import datetime
from threading import Lock
from typing import Callable

from .timetable import Timetable

_BURST_SECONDS = 0.25  # of the rate, saved up while nothing moves: more would show in a ten-second average
_SLICE = 0.5  # seconds slept at most before looking at the timetable again
_SHORTEST = 0.001  # seconds: less is no sleep at all
_LOOK = 1.0  # seconds between two looks at the calendar


class Limiter:
    """A token bucket that goes into debt: a request larger than the burst waits its time, and never hangs.

    What is allowed grows with the rate of the moment; a request is let through when everything asked for up to and
    including it is allowed. `waiting` is called now and then by who waits, so that nobody takes it for a standstill.
    """

    def __init__(
        self,
        timetable: Timetable,
        burst: int | None = None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        local_time: Callable[[], datetime] = datetime.now,
        waiting: Callable[[], object] | None = None,
    ) -> None:
        self._timetable, self._burst = timetable, burst
        self._sleep, self._clock, self._local_time, self._waiting = sleep, clock, local_time, waiting
        self._lock = Lock()
        self._asked = 0.0  # bytes, all requests so far
        self._rate = timetable.rate_at(local_time())
        self._looked = self._grown = clock()
        self._allowed = self._saved

    def take(self, nbytes: int) -> None:
        """Returns when so many bytes may move; raises what `sleep` raises."""
        with self._lock:
            self._grow()
            self._asked += nbytes
            goal = self._asked
        while True:
            with self._lock:
                self._grow()
                if self._rate is None or self._allowed >= goal:
                    return
                pause = max(_SHORTEST, min(_SLICE, (goal - self._allowed) / self._rate))
            if self._waiting is not None:
                self._waiting()
            self._sleep(pause)

    @property
    def _saved(self) -> float:
        if self._rate is None:
            return 0.0
        return self._rate * _BURST_SECONDS if self._burst is None else float(self._burst)

    def _grow(self) -> None:
        now = self._clock()
        if self._rate is None:
            self._allowed = self._asked
        else:
            self._allowed += (now - self._grown) * self._rate
        self._grown = now
        if now - self._looked >= _LOOK:
            self._looked = now
            self._rate = self._timetable.rate_at(self._local_time())
        self._allowed = min(self._allowed, self._asked + self._saved)
