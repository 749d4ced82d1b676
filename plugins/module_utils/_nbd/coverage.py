# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which bytes of a request have been answered."""

from __future__ import annotations

from bisect import bisect_right


class Coverage:
    """Of `[0, length)`. No byte may come twice or from outside; buffers are reused, so none may be left out either."""

    __slots__ = ("_ends", "_length", "_starts", "missing")

    def __init__(self, length: int) -> None:
        self._length = self.missing = length
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, length: int) -> bool:
        """Whether this run lies inside and is the first to answer each of its bytes."""
        end = start + length
        if start < 0 or length < 1 or end > self._length:
            return False
        starts, ends = self._starts, self._ends
        at = bisect_right(starts, start)
        if (at and ends[at - 1] > start) or (at < len(starts) and starts[at] < end):
            return False
        if at and ends[at - 1] == start:
            ends[at - 1] = end  # the usual case: runs come in order
        else:
            starts.insert(at, start)
            ends.insert(at, end)
        self.missing -= length
        return True
