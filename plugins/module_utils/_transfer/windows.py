# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk cut into windows of work: whole leaves, in guest order, at most a window's bytes of data each."""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from sys import byteorder
from typing import Iterable, Iterator

from .._blocks import LEAF, Extent, Kind, Piece
from .._errors import VmferryError

KINDS: tuple[Kind, ...] = ("data", "zero", "unchanged")
MAX_PACKED = 64 * 1024 * 1024  # bytes of a map that is written down: eight million runs
_KIND_BITS = 2
_KIND_MASK = (1 << _KIND_BITS) - 1


class ExtentMap:
    """A source's extents, rounded out to leaves, in 8 bytes a run: a fragmented disk has millions.

    A leaf in which different kinds meet is `data`, since it is stored whole. Raises `internal` where the source's
    extents leave a gap, overlap or do not end with the disk: what they skip would be lost without a word.
    """

    def __init__(self, extents: Iterable[Extent], size: int) -> None:
        self.size = size
        self._runs = array("Q")  # start, and the kind's number in the low bits
        self._bytes = dict.fromkeys(KINDS, 0)
        last = ""
        for run in _leaf_runs(_checked(extents, size), size):
            self._bytes[run.kind] += run.length
            if run.kind != last:
                self._runs.append(run.offset << _KIND_BITS | KINDS.index(run.kind))
                last = run.kind

    def packed(self) -> bytes | None:
        """As `unpacked` takes it; None where that would be more than it takes."""
        if len(self._runs) * self._runs.itemsize > MAX_PACKED:
            return None
        runs = array("Q", self._runs)
        if byteorder == "big":
            runs.byteswap()
        return zlib.compress(runs.tobytes(), 1)

    @classmethod
    def unpacked(cls, data: bytes, size: int) -> ExtentMap:
        """Raises `internal` where it is no map of a disk of this size."""
        inflate = zlib.decompressobj()
        runs = array("Q")
        try:
            runs.frombytes(inflate.decompress(data, MAX_PACKED))
        except (zlib.error, ValueError) as error:
            raise VmferryError("internal", "These bytes are no map of extents.") from error
        if byteorder == "big":
            runs.byteswap()
        return cls(_runs_of(runs, size), size)

    def bytes_of(self, kind: Kind) -> int:
        return self._bytes[kind]

    @property
    def data_bound(self) -> int:
        """Bytes of all leaves that hold data, the disk's last one counted whole."""
        return (self._bytes["data"] + LEAF - 1) // LEAF * LEAF

    def kind_at(self, offset: int) -> Kind:
        """Of the leaf that this byte of the disk belongs to."""
        return KINDS[self._runs[bisect_right(self._runs, offset << _KIND_BITS | _KIND_MASK) - 1] & _KIND_MASK]

    def __iter__(self) -> Iterator[Extent]:
        return _runs_of(self._runs, self.size)


def _runs_of(runs: array[int], size: int) -> Iterator[Extent]:
    for index, packed in enumerate(runs):
        start = packed >> _KIND_BITS
        end = runs[index + 1] >> _KIND_BITS if index + 1 < len(runs) else size
        yield Extent(start, end - start, KINDS[min(packed & _KIND_MASK, len(KINDS) - 1)])


@dataclass(frozen=True)
class Window:
    """Runs in guest order. Zero runs cost nothing and may be of any length."""

    runs: tuple[Extent, ...]

    @property
    def data_bytes(self) -> int:
        return sum(run.length for run in self.runs if run.kind == "data")

    def leaves(self) -> Iterator[int]:
        """The numbers of those that hold data."""
        for run in self.runs:
            if run.kind == "data":
                yield from range(run.offset // LEAF, -(-run.end // LEAF))

    def pieces(self, buffer: memoryview) -> list[Piece]:
        """Where each data run belongs in memory: one behind the other, all but the disk's last in whole leaves."""
        found, at = [], 0
        for run in self.runs:
            if run.kind == "data":
                found.append((run.offset, buffer[at : at + run.length]))
                at += run.length
        return found


MAX_RUNS = 4096  # in one window: a window of nothing but tiny zero and data islands stays small


def windows(runs: Iterable[Extent], window_size: int) -> Iterator[Window]:
    """`runs` start and end on leaves; `unchanged` ones are left out. `window_size` is a multiple of a leaf."""
    taken: list[Extent] = []
    room = window_size
    for run in runs:
        if run.kind == "unchanged":
            continue
        at = run.offset
        while run.kind == "data" and run.end - at >= room:
            yield Window((*taken, Extent(at, room, "data")))
            at, room, taken = at + room, window_size, []
        if at < run.end:
            taken.append(Extent(at, run.end - at, run.kind))
            room -= run.end - at if run.kind == "data" else 0
        if len(taken) >= MAX_RUNS:
            yield Window(tuple(taken))
            room, taken = window_size, []
    if taken:
        yield Window(tuple(taken))


def _checked(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    at = 0
    for extent in extents:
        length = extent.length
        if extent.offset != at or length < 0 or at + length > size or extent.kind not in KINDS:
            raise VmferryError(
                "internal", f"The source's extents are not in order: {extent} where byte {at} of {size} was next."
            )
        at += length
        if length:
            yield extent
    if at != size:
        raise VmferryError("internal", f"The source's extents end at byte {at} of {size}.")


def _leaf_runs(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    mixed: set[Kind] = set()  # the kinds seen so far in the leaf in which the last extent ended
    for extent in extents:
        at = extent.offset
        if not mixed and (at + extent.length) % LEAF == 0:  # the usual case, of which there may be millions
            yield extent
            continue
        if at % LEAF:
            mixed.add(extent.kind)
            leaf = at - at % LEAF
            leaf_end = min(leaf + LEAF, size)
            at = min(extent.end, leaf_end)
            if at < leaf_end:
                continue
            yield Extent(leaf, leaf_end - leaf, mixed.pop() if len(mixed) == 1 else "data")
        whole_end = size if extent.end == size else max(at, extent.end // LEAF * LEAF)
        if whole_end > at:
            yield Extent(at, whole_end - at, extent.kind)
        mixed = {extent.kind} if extent.end > whole_end else set()
