# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of several disks, one behind the other, as one disk."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Dict, Iterator, List, Optional, Sequence

from .._blocks import BlockSource, Extent, Piece
from .mapped import check_bounds


@dataclass(frozen=True)
class Run:
    """`length` bytes of a disk from `offset` on; without one, zeros."""

    length: int
    disk: Optional[BlockSource] = None
    offset: int = 0


class _Walk:
    """Through the map of a disk, once. `at`: what lies before it has been passed."""

    def __init__(self, disk: BlockSource) -> None:
        self.disk, self.at = disk, 0
        self._extents = disk.extents()
        self._held = next(self._extents, None)

    def between(self, start: int, end: int) -> Iterator[Extent]:
        """`start`: not before `at`."""
        self.at = end
        while self._held is not None and self._held.offset < end:
            first, last = max(self._held.offset, start), min(self._held.end, end)
            if first < last:
                yield Extent(first, last - first, self._held.kind)
            if self._held.end > end:  # the next run may begin within it
                return
            self._held = next(self._extents, None)


class JoinedDisks:
    """Plays BlockSource; thread-safe if the disks are."""

    def __init__(self, runs: Sequence[Run], where: str = "The image") -> None:
        self._runs, self._where = [run for run in runs if run.length], where
        self._starts = list(accumulate((run.length for run in self._runs), initial=0))
        self.size = self._starts[-1]

    def extents(self) -> Iterator[Extent]:
        """Linear in the maps of the disks, where the runs of each follow each other and go forward in it."""
        walk: Optional[_Walk] = None
        for start, run in zip(self._starts, self._runs):
            if run.disk is None:
                yield Extent(start, run.length, "zero")
                continue
            if walk is None or walk.disk is not run.disk or run.offset < walk.at:
                walk = _Walk(run.disk)
            for extent in walk.between(run.offset, run.offset + run.length):
                yield Extent(start + extent.offset - run.offset, extent.length, extent.kind)

    def read_into(self, pieces: Sequence[Piece]) -> None:
        check_bounds(pieces, self.size, self._where)
        wanted: Dict[int, List[Piece]] = {}  # of each run
        for offset, buffer in pieces:
            number = bisect_right(self._starts, offset) - 1
            while buffer:
                here = buffer[: self._starts[number + 1] - offset]
                wanted.setdefault(number, []).append((offset - self._starts[number], here))
                offset, buffer, number = offset + len(here), buffer[len(here) :], number + 1
        for number, found in wanted.items():
            run = self._runs[number]
            if run.disk is not None:
                run.disk.read_into([(run.offset + at, buffer) for at, buffer in found])
                continue
            for _at, buffer in found:
                buffer[:] = bytes(len(buffer))

    def close(self) -> None:
        for run in self._runs:
            if run.disk is not None:
                run.disk.close()
