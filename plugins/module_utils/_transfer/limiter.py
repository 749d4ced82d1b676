# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rate that all threads of a job share, with a timetable."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from threading import Lock
from typing import Callable, Sequence

from .._errors import VmferryError
from .units import parse_rate

_ENTRY = re.compile(r"(?:(Mon|Tue|Wed|Thu|Fri|Sat|Sun)-)?(\d\d):(\d\d),(\S+)")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MINUTES_A_DAY = 1440
LONGEST_SLEEP = 1.0  # seconds; a timetable may change the rate, and a cancel must be heard


@dataclass(frozen=True)
class Timetable:
    """`(minute of the week, bytes per second)` in order; the last entry holds over the week's end. 0 is unlimited."""

    entries: Sequence[tuple[int, float]]

    def rate(self, now: time.struct_time) -> float:
        minute = (now.tm_wday * 24 + now.tm_hour) * 60 + now.tm_min
        started = [rate for start, rate in self.entries if start <= minute]
        return started[-1] if started else self.entries[-1][1]


def parse_timetable(text: str) -> Timetable:
    """One rate, or rclone's grammar: `08:00,20MiB/s 19:00,0`, with days as in `Sat-00:00,off`. In the host's local time."""
    words = text.split()
    if len(words) <= 1 and "," not in text:
        return Timetable([(0, parse_rate(text.strip() or "0"))])
    entries = []
    for word in words:
        found = _ENTRY.fullmatch(word)
        if not found or int(found.group(2)) > 23 or int(found.group(3)) > 59:
            raise VmferryError(
                "invalid_config", f"{word!r} is not an entry of a timetable.", "Write it like 08:00,20MiB/s or Sat-00:00,0."
            )
        day, hour, minute, rate = found.groups()
        days = range(7) if day is None else [_DAYS.index(day)]
        entries += [(one * MINUTES_A_DAY + int(hour) * 60 + int(minute), parse_rate(rate)) for one in days]
    return Timetable(sorted(entries))


class Limiter:
    """A debt-based bucket: whoever takes, waits until what was taken before it has been paid for.

    A request larger than the burst waits longer; it never hangs. `burst` is what may go at once after a pause, in bytes;
    by default a tenth of a second's worth, so that the rate holds over any second.
    """

    def __init__(
        self,
        timetable: Timetable,
        sleep: Callable[[float], None],
        burst: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        local_time: Callable[[], time.struct_time] = time.localtime,
    ) -> None:
        self._timetable, self._burst, self._sleep = timetable, burst, sleep
        self._clock, self._local_time = clock, local_time
        self._lock = Lock()
        self._taken = 0  # bytes, since the start
        self._allowed = 0.0  # bytes, likewise
        self._looked = clock()

    def take(self, nbytes: int) -> None:
        with self._lock:
            rate = self._refill()
            mine = self._taken
            self._taken += nbytes
        while self._allowed < mine:
            self._sleep(min((mine - self._allowed) / rate, LONGEST_SLEEP) if rate > 0 else LONGEST_SLEEP)
            with self._lock:
                rate = self._refill()

    def _refill(self) -> float:
        now = self._clock()
        rate = self._timetable.rate(self._local_time())
        elapsed, self._looked = now - self._looked, now
        if rate <= 0:
            self._allowed = float(self._taken)
        else:
            burst = rate / 10 if self._burst is None else self._burst
            self._allowed = min(self._allowed + elapsed * rate, self._taken + burst)
        return rate
