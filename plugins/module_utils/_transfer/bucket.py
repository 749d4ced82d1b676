# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A token bucket as one number: the time until which the rate is spoken for. Who wants to move bytes books the next
stretch of time, and moves them when it is over."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wish:
    """Seconds of the rate: `least` is booked in any case, `wanted` as far as it was saved up, `saved` is the burst."""

    least: float
    wanted: float
    saved: float


@dataclass(frozen=True)
class Booking:
    """So many seconds' worth of bytes may move from `until` on, by the clock of whoever asked."""

    until: float
    seconds: float


def next_booking(booked_until: float, now: float, wish: Wish) -> Booking:
    """Whoever books first is served first, so that those who keep asking get shares as large as what they book."""
    start = max(booked_until, now - wish.saved)
    seconds = max(wish.least, min(wish.wanted, now - start))
    return Booking(start + seconds, seconds)


class Bucket:
    """Of this process alone."""

    def __init__(self) -> None:
        self._booked_until = float("-inf")

    def book(self, now: float, wish: Wish) -> Booking | None:
        """None: it could not be asked, try again in some milliseconds."""
        booking = next_booking(self._booked_until, now, wish)
        self._booked_until = booking.until
        return booking
