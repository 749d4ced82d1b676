# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what a VM shows is its own and no longer its firmware's.

A firmware that finds nothing to boot also changes its screen: it adds lines, such as "No bootable device", below those
that are there. A system that boots clears them, scrolls them away or sets another mode. So its picture is one in which
most of what stood out in the firmware's first picture is gone, and something else stands out; a cursor alone is
nothing, on either side. That has to be so twice in a row: between two modes a screen is caught half drawn.
"""

from __future__ import annotations

from typing import Callable

from .picture import Picture, read_picture

TWICE = 2


class Screen:
    """What was shown so far. Made before the VM runs, when the hypervisor itself writes something there."""

    def __init__(self, take: Callable[[], bytes]) -> None:
        """`take`: a picture of it, as a file."""
        self._take, self._file = take, b""
        self._now = self._before = self._look()
        self._firmware: Picture | None = None
        self._own = 0

    def _look(self) -> Picture:
        file = self._take()
        if file != self._file:  # most looks find what the one before found
            self._file, self._now = file, read_picture(file)
        return self._now

    def is_its_own(self) -> bool:
        now = self._look()
        if now.is_bare or now == self._before:
            self._own = 0
        elif self._firmware is None:
            self._firmware = now
        else:
            self._own = 0 if now.still_has(self._firmware) else self._own + 1
        return self._own >= TWICE
