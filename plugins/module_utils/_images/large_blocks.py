# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images whose blocks are larger than a leaf: a block is stored whole as soon as one leaf of it holds data."""

from __future__ import annotations

from array import array
from typing import Iterable, Sequence

from .._blocks import LEAF, Extent, ImageOutput


def blocks_touched(runs: Iterable[Extent], block: int) -> int:
    """How many blocks of so many bytes hold any of the data."""
    count, last = 0, -1
    for run in runs:
        if run.kind == "data" and run.length:
            first, end = max(run.offset // block, last + 1), (run.end - 1) // block
            count, last = count + end + 1 - first, end
    return count


class LargeBlocks:
    """Blocks one behind the other, in guest order, from `start` in the file on. What a block has no data for is a hole.

    `places[block]`: where its first byte lies in the file; 0 for one that is not stored.
    """

    def __init__(self, output: ImageOutput, size: int, block: int, start: int, prefix: Sequence[bytes] = ()) -> None:
        """`prefix`: a leaf that lies in front of each block, and its SHA-256."""
        self._output, self._block, self._prefix = output, block, prefix
        self.places = array("Q", bytes(8 * -(-size // block)))
        self.end = start  # of the file, so far
        self._open, self._filled = -1, block  # the open block, and how many bytes of it have been emitted

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes]) -> None:
        """Whole leaves, behind all that came before."""
        done = 0
        while done < len(run):
            index, at = divmod(offset + done, self._block)
            if index != self._open:
                self._begin(index)
            self._hole_until(at)
            count = min(len(run) - done, self._block - at)
            self._output.emit(run[done : done + count], digests[done // LEAF : (done + count) // LEAF])
            self._filled, self.end, done = at + count, self.end + count, done + count

    def empty(self, index: int) -> None:
        """A block behind all that came before, which is there, and of which nothing is stored."""
        if index != self._open:
            self._begin(index)

    def put(self, data: bytes) -> None:
        """Behind the block that came last, what belongs to none: of whole leaves."""
        self.finish()
        self._output.emit(memoryview(data))
        self.end += len(data)

    def finish(self) -> None:
        self._hole_until(self._block)

    def _begin(self, index: int) -> None:
        self.finish()
        if self._prefix:
            leaf, digest = self._prefix
            self._output.emit(memoryview(leaf), [digest])
            self.end += len(leaf)
        self.places[index], self._open, self._filled = self.end, index, 0

    def _hole_until(self, at: int) -> None:
        if at > self._filled:
            self._output.hole(at - self._filled)
            self.end += at - self._filled
            self._filled = at
