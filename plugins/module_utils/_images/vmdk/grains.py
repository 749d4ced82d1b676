# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed grains of a VMDK, and such an image as a stream: read from its first byte to its last, and never back.

A server that exports a VM sends its disks so, and does not say how long they will be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, Optional

from ..._blocks import LEAF
from ..._errors import VmferryError
from ..fast_zlib import fast_zlib
from .format import (
    AT_END,
    COMPRESSED,
    DEFLATE,
    DIRECTORY,
    END_OF_STREAM,
    FOOTER,
    GRAIN_MARKER,
    GRAIN_SECTORS,
    HEADER,
    LARGEST_DISK,
    MARKER,
    MARKERS,
    SECTOR,
    TABLE,
    TABLE_ENTRIES,
    TABLE_SIZE,
    Header,
    sectors,
    tables,
    words_of,
)

LARGEST_PACKED = SECTOR * (GRAIN_SECTORS + 8)  # with its marker; more than any deflate makes of a grain
LARGEST_FRONT = 64 << 20  # bytes in front of the first grain, held in memory: QEMU's tables of a disk of 1 TiB
_MARKED = {TABLE: TABLE_SIZE // SECTOR, FOOTER: 1}  # sectors behind a marker, of what has always the same length
_TAKEN = 1 << 20  # bytes at once of what is passed over


def unpacked_grain(data: memoryview, number: int) -> Optional[bytes]:
    """A whole one, or the disk's last as long as it is; `data` begins with its marker. None where that is none."""
    if len(data) < GRAIN_MARKER.size:
        return None
    sector, length = GRAIN_MARKER.unpack_from(data)
    if sector != number * GRAIN_SECTORS or not 0 < length <= len(data) - GRAIN_MARKER.size:
        return None
    return inflated(data[GRAIN_MARKER.size : GRAIN_MARKER.size + length])


def inflated(packed: memoryview) -> Optional[bytes]:
    """None where that is no deflated grain."""
    library = fast_zlib()
    stream = library.decompressobj()
    try:
        grain: bytes = stream.decompress(packed, LEAF)
        rest = b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)  # its checksum, and no byte more
    except library.error:
        return None
    return grain if stream.eof and not rest and not stream.unused_data else None


@dataclass(frozen=True)
class PackedGrain:
    """`packed` is to be `inflated`, by whoever has the time."""

    offset: int  # on the disk
    packed: memoryview


class VmdkStream:
    """`read(count)` gives as many bytes as there are, up to `count`. `size`: the disk's.

    Raises `invalid_config` for what is no stream-optimized image, and for one that ends early.
    """

    def __init__(self, read: Callable[[int], bytes], where: str = "The stream") -> None:
        self._read, self._where = read, where
        header = Header.unpack(self._exactly(HEADER.size))
        wanted = (COMPRESSED | MARKERS, DEFLATE, GRAIN_SECTORS, TABLE_ENTRIES)
        if header is None or wanted != (
            header.flags & (COMPRESSED | MARKERS),
            header.compression,
            header.grain,
            header.table_entries,
        ):
            raise self._lie("is no stream-optimized VMDK")
        if header.capacity * SECTOR > LARGEST_DISK or header.overhead * SECTOR > LARGEST_FRONT:
            raise self._lie(f"is of a disk of {header.capacity * SECTOR} bytes, which is more than is read as a stream")
        self._header, self.size = header, header.capacity * SECTOR
        self.grains = 0  # so far

    def __iter__(self) -> Iterator[PackedGrain]:
        """In the order of the disk, each once."""
        expected = self._read_tables_in_front()
        last = -1
        while True:
            sector = self._next_sector(expected)
            if sector is None:
                return
            value, length, kind = MARKER.unpack_from(sector)
            if length:
                offset = value * SECTOR
                if value % GRAIN_SECTORS or offset <= last or offset >= self.size or length > LARGEST_PACKED:
                    raise self._lie(f"has a grain where none belongs, of {length} bytes for sector {value}")
                last = offset
                self.grains += 1
                yield PackedGrain(offset, self._grain(sector, length))
            elif kind == END_OF_STREAM:
                self._end(expected)
                return
            else:
                self._pass_over(value, kind)

    def _read_tables_in_front(self) -> Optional[int]:
        """How many grains there are, where tables lie in front of them: such a stream, which QEMU writes, has no end of
        its own. None where the stream says when it ends."""
        rest = (self._header.overhead - 1) * SECTOR
        if self._header.directory == AT_END:
            self._skip(rest)
            return None
        front = memoryview(self._exactly(rest))
        base = HEADER.size
        count = tables(self.size)
        at = self._header.directory * SECTOR - base
        if at < 0 or at + 4 * count > rest:
            raise self._lie("has its tables behind its data, and no footer")
        places = [place * SECTOR - base for place in words_of(front[at : at + 4 * count]) if place]
        if any(place < 0 or place + TABLE_SIZE > rest for place in places) or len(set(places)) != len(places):
            raise self._lie("points outside of what it holds")
        return sum(TABLE_ENTRIES - words_of(front[place : place + TABLE_SIZE]).count(0) for place in places)

    def _end(self, expected: Optional[int]) -> None:
        if expected not in (None, self.grains):
            raise self._lie("ends early")
        for _unused in range(LEAF // SECTOR):  # QEMU fills up the last grain; and a server wants to be read to its end
            if not self._up_to(SECTOR):
                return
        raise self._lie("goes on behind its end")

    def _next_sector(self, expected: Optional[int]) -> Optional[bytes]:
        sector = self._up_to(SECTOR)
        if len(sector) == SECTOR:
            return sector
        if expected is None or sector:
            raise self._lie("ends early")
        self._end(expected)
        return None

    def _grain(self, sector: bytes, length: int) -> memoryview:
        whole = SECTOR * sectors(GRAIN_MARKER.size + length)
        data = sector if whole == SECTOR else sector + self._exactly(whole - SECTOR)
        return memoryview(data)[GRAIN_MARKER.size : GRAIN_MARKER.size + length]

    def _pass_over(self, count: int, kind: int) -> None:
        fitting = _MARKED.get(kind, sectors(4 * tables(self.size)) if kind == DIRECTORY else -1)
        if count != fitting:
            raise self._lie(f"has a marker of an unknown kind, {kind}, or of another length")
        self._skip(count * SECTOR)

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._exactly(min(count, _TAKEN)))

    def _exactly(self, count: int) -> bytes:
        data = self._up_to(count)
        if len(data) < count:
            raise self._lie("ends early")
        return data

    def _up_to(self, count: int) -> bytes:
        data = self._read(count)
        while 0 < len(data) < count:
            more = self._read(count - len(data))
            if not more:
                break
            data += more
        return data

    def _lie(self, what: str) -> VmferryError:
        return VmferryError("invalid_config", f"{self._where} {what}.", "It was damaged, or it is of another kind.")
