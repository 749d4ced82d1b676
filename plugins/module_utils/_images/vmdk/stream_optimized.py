# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-pass VMDK, stream-optimized: the format of OVAs. Compressed grains in guest order, each grain table behind its
grains, the directory behind all, and a footer that says where that is. A marker tells what follows.
"""

from __future__ import annotations

import zlib
from array import array
from typing import Optional, Sequence

from ..._blocks import LEAF, Codec, ImageOutput
from ..._errors import VmferryError
from ..fast_zlib import fast_zlib
from ..shrinking import shrinks
from ..whole_leaves import WholeLeaves
from .format import (
    AT_END,
    COMPRESSED,
    DEFLATE,
    DIRECTORY,
    FOOTER,
    GRAIN_MARKER,
    GRAIN_SECTORS,
    LARGEST_FILE,
    MARKER,
    MARKERS,
    NEWLINES,
    SECTOR,
    TABLE,
    TABLE_ENTRIES,
    TABLE_SIZE,
    Header,
    descriptor,
    little_endian,
    sectors,
    tables,
)

USUAL_LEVEL = 1  # a level more is half as fast, and saves a few percent
OVERHEAD = GRAIN_SECTORS  # in front of the first grain
_LARGEST_PACKED = LEAF + (LEAF >> 12) + (LEAF >> 14) + 13  # zlib's compressBound
_LARGEST_GRAIN = SECTOR * sectors(GRAIN_MARKER.size + _LARGEST_PACKED)


class Deflate:
    """Plays Codec: RFC 1950, as all that reads VMDKs expects. A grain is compressed even where that saves nothing.

    Whoever asks for a level means zlib's.
    """

    def __init__(self, level: Optional[int] = None) -> None:
        if level is not None and level not in range(1, 10):
            raise VmferryError("invalid_config", f"compression_level is {level}; zlib has levels from 1 to 9.")
        self._level = USUAL_LEVEL if level is None else level
        self._library = zlib if level is not None else fast_zlib()

    def pack(self, leaf: memoryview) -> bytes:
        if self._library is zlib:
            return zlib.compress(leaf, self._level if shrinks(leaf) else 0)
        packed: bytes = self._library.compress(leaf, self._level)  # sooner than its samples were looked at
        return packed if len(packed) <= _LARGEST_PACKED else zlib.compress(leaf, 0)


def stream_optimized_bound(size: int, data: int) -> int:
    """Bytes that no such image exceeds, with so much data in whole grains."""
    grains = -(-min(data, size) // LEAF)
    directory = sectors(4 * tables(size))
    around = OVERHEAD + 1 + directory + 3
    return grains * _LARGEST_GRAIN + min(grains, tables(size)) * (SECTOR + TABLE_SIZE) + around * SECTOR


class StreamOptimizedVmdk:
    """Plays ImageWriter."""

    head_size = 0
    encrypts = False

    def __init__(self, size: int, output: ImageOutput, codec: Codec, *, data_bound: int, identity: bytes) -> None:
        self.codec, self.size_bound = codec, stream_optimized_bound(size, data_bound)
        if self.size_bound > LARGEST_FILE:
            raise VmferryError(
                "unsupported",
                f"An image of the format vmdk is at most {LARGEST_FILE} bytes long; this one may need "
                f"{self.size_bound}.",
                "Use qcow2, or raw.",
            )
        self._capacity, self._directory = sectors(size), array("I", bytes(4 * tables(size)))
        self._table: Optional[array[int]] = None
        self._index = -1
        self._head = self._header(AT_END).pack() + descriptor(size, "streamOptimized", identity)
        self._file = WholeLeaves(output)

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        self._begin()
        grain = offset // LEAF
        for blob in packed:
            if blob is None:
                raise VmferryError("internal", "A grain of a stream-optimized image is always compressed.")
            index, entry = divmod(grain, TABLE_ENTRIES)
            table = self._opened(index)
            table[entry] = self._file.size // SECTOR
            self._put(GRAIN_MARKER.pack(grain * GRAIN_SECTORS, len(blob)) + blob)
            grain += 1

    def zero(self, offset: int, length: int) -> None:
        """What no table maps reads as zeros."""

    def finish(self) -> None:
        self._begin()
        self._close_table()
        directory = little_endian(self._directory)
        self._put(MARKER.pack(sectors(len(directory)), 0, DIRECTORY))
        place = self._file.size // SECTOR
        self._put(directory)
        self._put(MARKER.pack(1, 0, FOOTER))
        self._put(self._header(place).pack())
        self._put(MARKER.pack(0, 0, 0))  # the end of the stream
        self._file.finish()

    def head(self) -> bytes:
        return b""

    def _header(self, directory: int) -> Header:
        flags = NEWLINES | COMPRESSED | MARKERS
        return Header(3, flags, self._capacity, directory, 0, OVERHEAD, DEFLATE)

    def _begin(self) -> None:
        """Nothing may be emitted before the first data comes, or the end."""
        if not self._file.size:
            self._file.put(self._head.ljust(OVERHEAD * SECTOR, b"\0"))

    def _opened(self, index: int) -> array[int]:
        if self._table is None or index != self._index:
            self._close_table()
            self._table, self._index = array("I", bytes(TABLE_SIZE)), index
        return self._table

    def _close_table(self) -> None:
        if self._table is not None:
            self._put(MARKER.pack(TABLE_SIZE // SECTOR, 0, TABLE))
            self._directory[self._index] = self._file.size // SECTOR
            self._file.put(little_endian(self._table))
            self._table = None

    def _put(self, data: bytes) -> None:
        """Filled up to a whole sector."""
        self._file.put(data)
        self._file.put(bytes(-len(data) % SECTOR))
