# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is stored in an image of ours, by its index.

What the index says is believed only where the stream can be entered, so that whoever reads all of it from its beginning
finds the same bytes. Whether they are those that were written is not known here: see the reader.
"""

from __future__ import annotations

import zlib
from array import array
from dataclasses import dataclass
from typing import Iterator, List, Optional, Sequence

from ..._blocks import LEAF, Piece
from ..._errors import VmferryError
from ..disk_archive import SparseMap, unpacked_header
from ..mapped import ReadAt
from .deflate import MEMBER_START, inflated, is_between_blocks
from .index import GROUP, LOCATOR_SIZE, Locator

LONGEST_PACKED_READ = 1 << 20  # bytes in one request; compressed, so that they are worth some more
_LARGEST_INDEX = 1 << 28  # bytes of the file, of a disk of 32 TiB
_HEADER_PIECE = 1 << 16


def read_header(read_at: ReadAt, first: int) -> Optional[SparseMap]:
    """None where no header of an archive ends at byte `first` of the file, with a block that ends there."""
    start = bytearray(len(MEMBER_START))
    read_at(0, memoryview(start))
    if start != MEMBER_START:
        return None
    header = _HeaderStream(read_at, first)
    try:
        layout = unpacked_header(header.take)
        return layout if layout is not None and header.ends() else None
    except (zlib.error, EOFError):
        return None


class _HeaderStream:
    def __init__(self, read_at: ReadAt, end: int) -> None:
        self._read_at, self._at, self._end = read_at, len(MEMBER_START), end
        self._stream, self._packed = zlib.decompressobj(-zlib.MAX_WBITS), b""

    def take(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            packed = self._packed or self._next()
            if not packed or self._stream.eof:
                raise EOFError
            found += self._stream.decompress(packed, count - len(found))
            self._packed = self._stream.unconsumed_tail
        return found

    def ends(self) -> bool:
        rest = self._packed + self._next()
        return self._at == self._end and is_between_blocks(self._stream, rest)

    def _next(self) -> bytes:
        data = bytearray(min(_HEADER_PIECE, self._end - self._at))
        if data:
            self._read_at(self._at, memoryview(data))
        self._at += len(data)
        return bytes(data)


def has_room(file_size: int, locator: Locator) -> bool:
    """Whether what the locator tells of can be in such a file. Nothing is read before it can."""
    is_in_order = len(MEMBER_START) < locator.first <= locator.place and locator.index_size <= _LARGEST_INDEX
    return is_in_order and locator.place + locator.index_size + LOCATOR_SIZE == file_size


def fits(layout: SparseMap, locator: Locator) -> bool:
    return not layout.stored % LEAF and locator.groups == -(-layout.stored // GROUP)


def read_starts(read_at: ReadAt, locator: Locator) -> Optional[array[int]]:
    """Where each group lies, and where the last one ends. None where the file has no such index."""
    index = bytearray(locator.index_size)
    if index:
        read_at(locator.place, memoryview(index))
    starts = locator.starts(index)
    return starts if starts is not None and starts[-1] <= locator.place else None


@dataclass(frozen=True)
class _Wanted:
    """The bytes of `target` out of a group, from `skip` on."""

    group: int
    skip: int
    target: memoryview


class IndexedArchive:
    """`starts` of the groups of `stored` bytes."""

    def __init__(self, read_at: ReadAt, starts: array[int], stored: int, where: str) -> None:
        self._read_at, self._starts, self._stored, self._where = read_at, starts, stored, where

    def read_into(self, pieces: Sequence[Piece]) -> None:
        wanted = [one for place, buffer in pieces for one in _wanted(place, buffer)]
        for neighbours in self._neighbours(wanted):
            self._read(neighbours)

    def _neighbours(self, wanted: Sequence[_Wanted]) -> Iterator[List[_Wanted]]:
        """Of which each is of the same group as the one before it, or of the next."""
        found: List[_Wanted] = []
        for one in wanted:
            if found and (
                not found[-1].group <= one.group <= found[-1].group + 1
                or self._starts[one.group + 1] - self._starts[found[0].group] > LONGEST_PACKED_READ
            ):
                yield found
                found = []
            found.append(one)
        if found:
            yield found

    def _read(self, wanted: Sequence[_Wanted]) -> None:
        first = self._starts[wanted[0].group]
        length = self._starts[wanted[-1].group + 1] - first
        if length > LONGEST_PACKED_READ:  # no group of ours alone is
            raise self._lie(first)
        packed = memoryview(bytearray(length))
        if packed:
            self._read_at(first, packed)
        number, group = -1, b""
        for one in wanted:
            if one.group != number:
                number, start, end = one.group, self._starts[one.group], self._starts[one.group + 1]
                found = inflated(packed[start - first : end - first], min(GROUP, self._stored - number * GROUP))
                if found is None:
                    raise self._lie(start)
                group = found
            one.target[:] = memoryview(group)[one.skip : one.skip + len(one.target)]

    def _lie(self, place: int) -> VmferryError:
        text = f"{self._where} has no deflated leaves at byte {place} of it."
        return VmferryError("invalid_config", text, "It was damaged, or it is of another kind.")


def _wanted(place: int, buffer: memoryview) -> Iterator[_Wanted]:
    while buffer:
        group, skip = divmod(place, GROUP)
        here = buffer[: GROUP - skip]
        yield _Wanted(group, skip, here)
        place, buffer = place + len(here), buffer[len(here) :]
