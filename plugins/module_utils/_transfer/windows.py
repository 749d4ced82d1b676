# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one reader takes at a time: a disk's extents, rounded out to leaves and cut into windows."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Iterable, Iterator

from .._blocks import LEAF, BlockSource, Extent, Kind, Piece

KINDS: tuple[Kind, ...] = ("data", "zero", "unchanged")


@dataclass(frozen=True)
class Window:
    """Runs in guest order with at most a window's bytes of data; runs of zeros cost nothing."""

    runs: tuple[Extent, ...]

    def pieces(self, buffer: memoryview) -> list[Piece]:
        """Each data run behind the other in `buffer`; every run but the disk's last is a whole number of leaves."""
        found, at = [], 0
        for run in self.runs:
            if run.kind == "data":
                found.append((run.offset, buffer[at : at + run.length]))
                at += run.length
        return found


class ExtentMap:
    """A disk's map in whole leaves, 9 bytes a run: a busy disk has millions of them."""

    def __init__(self, source: BlockSource) -> None:
        self.size = source.size
        self._offsets, self._kinds = array("Q"), bytearray()
        self.data_bytes = 0  # in whole leaves
        for run in _joined(_leaf_runs(source.extents(), self.size)):
            self._offsets.append(run.offset)
            self._kinds.append(KINDS.index(run.kind))
            if run.kind == "data":
                self.data_bytes += -(-run.length // LEAF) * LEAF
        self._offsets.append(self.size)

    def runs(self) -> Iterator[Extent]:
        for index, kind in enumerate(self._kinds):
            offset = self._offsets[index]
            yield Extent(offset, self._offsets[index + 1] - offset, KINDS[kind])

    def windows(self, window_size: int) -> Iterator[Window]:
        runs: list[Extent] = []
        room = window_size
        for run in self.runs():
            if run.kind == "unchanged":
                continue
            at = run.offset
            while run.kind == "data" and run.end - at >= room:
                yield Window((*runs, Extent(at, room, "data")))
                at, room, runs = at + room, window_size, []
            if at < run.end:
                runs.append(Extent(at, run.end - at, run.kind))
                room -= run.end - at if run.kind == "data" else 0
        if runs:
            yield Window(tuple(runs))


def _leaf_runs(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    """A leaf in which different kinds meet is data, since it is stored whole."""
    kinds: set[Kind] = set()  # seen so far in the leaf that the last extent ended in
    for extent in extents:
        at = extent.offset
        if at % LEAF:
            kinds.add(extent.kind)
            leaf = at - at % LEAF
            leaf_end = min(leaf + LEAF, size)
            at = min(extent.end, leaf_end)
            if at == leaf_end:
                yield Extent(leaf, leaf_end - leaf, kinds.pop() if len(kinds) == 1 else "data")
        whole_end = size if extent.end == size else extent.end // LEAF * LEAF
        if whole_end > at:
            yield Extent(at, whole_end - at, extent.kind)
            at = whole_end
        if at < extent.end:
            kinds = {extent.kind}


def _joined(runs: Iterator[Extent]) -> Iterator[Extent]:
    last: Extent | None = None
    for run in runs:
        if last and last.kind == run.kind:
            last = Extent(last.offset, run.end - last.offset, run.kind)
            continue
        if last:
            yield last
        last = run
    if last:
        yield last
