# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A strict reader of one sparse VMDK extent, compressed or not, over ranged reads: ours, VMware's and QEMU's.

Fails closed. The descriptor is not looked at, so no name in it is followed: whoever reads an image that others wrote
finds out first that it is one extent, and a layer on nothing.
"""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Sequence, Tuple

from ..._blocks import LEAF, Extent, Piece
from ..mapped import NOWHERE, ReadAt, check_bounds, joined, read_mapped
from .grains import LARGEST_PACKED, unpacked_grain
from .tables import GrainTables

LONGEST_PACKED_READ = 1024 * 1024  # bytes in one request; compressed, so that they are worth some more


class _Wanted(NamedTuple):
    """The bytes of `target` out of a compressed grain, from `skip` on. `end`: of what may belong to it in the file."""

    grain: int
    place: int
    end: int
    skip: int
    target: memoryview


class VmdkReader:
    """Plays BlockSource; thread-safe if `read_at` is."""

    def __init__(self, read_at: ReadAt, file_size: int, *, size: int | None = None, where: str = "The image") -> None:
        """`size`: the disk's, where somebody knows it; else the image says it. Raises `invalid_config`."""
        self._read_at, self._file_size, self._where = read_at, file_size, where
        self._tables = GrainTables(read_at, file_size, size, where)
        self.size = self._tables.size
        self._spare: List[bytearray] = []  # one for each thread that reads, at the most

    def close(self) -> None:
        """Nothing is held."""

    def extents(self) -> Iterator[Extent]:
        return joined(self._tables.runs(), self.size)

    def read_into(self, pieces: Sequence[Piece]) -> None:
        check_bounds(pieces, self.size, self._where)
        if not self._tables.compressed:
            read_mapped(self._read_at, self._place, pieces)
            return
        for group in _neighbours([one for offset, buffer in pieces for one in self._wanted(offset, buffer)]):
            self._read_packed(group)

    def _place(self, offset: int) -> Tuple[int, int]:
        place, skip = self._tables.place(offset // LEAF), offset % LEAF
        return place + skip if place else NOWHERE, LEAF - skip

    def _wanted(self, offset: int, buffer: memoryview) -> Iterator[_Wanted]:
        """What is not zeros; these are filled in."""
        while buffer:
            grain, skip = divmod(offset, LEAF)
            places, table = self._tables.places(grain, -(-(skip + len(buffer)) // LEAF))
            for place, behind in zip(places, places[1:]):
                here = min(LEAF - skip, len(buffer))
                if place:
                    yield _Wanted(grain, place, self._end(place, behind, table), skip, buffer[:here])
                else:
                    buffer[:here] = bytes(here)
                offset, buffer, grain, skip = offset + here, buffer[here:], grain + 1, 0

    def _end(self, place: int, behind: int, table: int) -> int:
        """At the latest where the next grain begins, or its table, if one of these lies behind it, or the file ends."""
        end = min(place + LARGEST_PACKED, self._file_size)
        return min([end, *(other for other in (behind, table) if other > place)])

    def _read_packed(self, group: List[_Wanted]) -> None:
        first = group[0].place
        length = group[-1].end - first
        memory = self._memory(length)
        with memoryview(memory) as data:
            self._read_at(first, data[:length])
            for one in group:
                grain = unpacked_grain(data[one.place - first : one.end - first], one.grain)
                if grain is None or len(grain) < one.skip + len(one.target):
                    raise self._tables.lie(f"has no compressed grain at byte {one.place} of it")
                one.target[:] = grain if len(grain) == len(one.target) else grain[one.skip : one.skip + len(one.target)]
        self._spare.append(memory)

    def _memory(self, length: int) -> bytearray:
        """What another read has left, if it is large enough: fresh memory would be filled with zeros for nothing."""
        try:
            memory = self._spare.pop()
        except IndexError:
            memory = bytearray()
        return memory if len(memory) >= length else bytearray(length)


def _neighbours(wanted: Sequence[_Wanted]) -> Iterator[List[_Wanted]]:
    """Of which each begins where the one before it may still go on."""
    group: List[_Wanted] = []
    for one in wanted:
        if group and not (
            group[-1].place < one.place <= group[-1].end <= one.end <= group[0].place + LONGEST_PACKED_READ
        ):
            yield group
            group = []
        group.append(one)
    if group:
        yield group
