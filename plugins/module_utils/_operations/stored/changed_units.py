# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between two states of a disk, for whoever has the older one and takes large units of it."""

from __future__ import annotations

from array import array
from typing import Iterator, Sequence, Tuple

from ..._blocks import BlockSource, Extent, Piece


class ChangedUnits:
    """Plays BlockSource: `whole`, of which all is `unchanged` but for units that `changes` has anything in. The last
    unit of a disk that is not made of whole ones is never called unchanged."""

    def __init__(self, whole: BlockSource, changes: BlockSource, unit: int) -> None:
        """`changes`: with extents that are `unchanged` where the older state is to be looked at."""
        self._whole, self._changes, self._unit = whole, changes, unit
        self.size = whole.size

    def extents(self) -> Iterator[Extent]:
        starts, ends = self._changed()
        at = number = 0
        for extent in self._whole.extents():
            while at < extent.end:
                while number < len(ends) and ends[number] <= at:
                    number += 1
                start = starts[number] if number < len(starts) else self.size
                if at < start:
                    end = min(start, extent.end)
                    yield Extent(at, end - at, "unchanged")
                else:
                    end = min(ends[number], extent.end)
                    yield Extent(at, end - at, extent.kind)
                at = end

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._whole.read_into(pieces)

    def close(self) -> None:
        self._whole.close()
        self._changes.close()

    def _changed(self) -> Tuple[array[int], array[int]]:
        """Of each run of units where it starts and ends, in 16 bytes: a fragmented disk has millions."""
        starts, ends = array("Q"), array("Q")
        tail = self.size % self._unit
        last = [Extent(self.size - tail, tail, "data")] if tail else []
        for extents in (self._changes.extents(), last):
            for extent in extents:
                if extent.kind == "unchanged":
                    continue
                start = extent.offset // self._unit * self._unit
                end = min(-(-extent.end // self._unit) * self._unit, self.size)
                if ends and start <= ends[-1]:
                    ends[-1] = max(ends[-1], end)
                else:
                    starts.append(start)
                    ends.append(end)
        return starts, ends
