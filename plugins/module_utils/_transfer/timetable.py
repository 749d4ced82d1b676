# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rates by the time of day, in rclone's grammar: `08:00,512K 12:00,10M Sat-00:00,off`, or one rate for always.

https://rclone.org/docs/#bwlimit-bandwidth-spec
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from .._errors import VmferryError
from .units import parse_rate

_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_SLOT = re.compile(r"(?:([A-Za-z]+)-)?([01][0-9]|2[0-3]):([0-5][0-9]),(\S+)")
_ACCEPTED = "Write one rate, like 20MiB/s, or a timetable like '08:00,512K 18:00,30M Sat-00:00,off' in local time."


@dataclass(frozen=True)
class Timetable:
    """`slots`: minute of the week from Sunday midnight, local time, and the rate from then on (None: unlimited)."""

    slots: tuple[tuple[int, float | None], ...]

    @property
    def unlimited(self) -> bool:
        return all(rate is None for _unused, rate in self.slots)

    def rate_at(self, now: datetime) -> float | None:
        """Bytes a second. Before the week's first slot, the week's last one still holds."""
        minute = (now.isoweekday() % 7 * 24 + now.hour) * 60 + now.minute
        passed = [rate for start, rate in self.slots if start <= minute]
        return passed[-1] if passed else self.slots[-1][1]


def parse_timetable(text: str) -> Timetable:
    """Raises `invalid_config`. Empty: unlimited."""
    words = text.split()
    if not words:
        return Timetable(((0, None),))
    if len(words) == 1 and "," not in text:
        if ":" in text:
            raise VmferryError("invalid_config", f"{text!r} limits two directions; one rate holds for both.", _ACCEPTED)
        return Timetable(((0, parse_rate(text)),))
    slots: list[tuple[int, float | None]] = []
    for word in words:
        slots += _slots(word)
    return Timetable(tuple(sorted(slots, key=lambda slot: slot[0])))  # stable: of two at one minute the later counts


def _slots(word: str) -> list[tuple[int, float | None]]:
    found = _SLOT.fullmatch(word)
    if not found:
        raise VmferryError("invalid_config", f"{word!r} is not an entry of a timetable of rates.", _ACCEPTED)
    day, hours, minutes, rate = found.groups()
    minute = int(hours) * 60 + int(minutes)
    return [(number * 24 * 60 + minute, parse_rate(rate)) for number in _day_numbers(day, word)]


def _day_numbers(day: str | None, word: str) -> list[int]:
    if day is None:
        return list(range(7))
    named = [number for number, name in enumerate(_DAYS) if day.lower() in (name, name[:3])]
    if not named:
        raise VmferryError("invalid_config", f"{day!r} in {word!r} is not a day of the week.", _ACCEPTED)
    return named
