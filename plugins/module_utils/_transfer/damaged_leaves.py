# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which leaves of a disk are not what they should be, as runs of neighbours."""

from __future__ import annotations

from threading import Lock
from typing import Dict

MOST_RUNS = 1000  # of one disk; what is damaged in more places than that needs no longer list


class DamagedLeaves:
    """Told of each leaf once, in any order and by any thread. `count` is of all of them, however many runs are kept."""

    def __init__(self) -> None:
        self._end_of: Dict[int, int] = {}
        self._start_of: Dict[int, int] = {}
        self._lock = Lock()
        self.count = 0

    def add(self, index: int) -> None:
        with self._lock:
            self.count += 1
            start = self._start_of.pop(index, index)
            end = self._end_of.pop(index + 1, index + 1)
            if start == index and end == index + 1 and len(self._end_of) >= MOST_RUNS:
                return
            self._end_of[start], self._start_of[end] = end, start

    def runs(self) -> list[tuple[int, int]]:
        """(first, behind the last), in order."""
        with self._lock:
            return sorted(self._end_of.items())
