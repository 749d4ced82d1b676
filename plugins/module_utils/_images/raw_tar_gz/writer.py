# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-pass writer of the image that Compute Engine takes: `disk.raw` in a tar archive in a gzip file.

What is in the archive is planned by the runs of the source: leaves in them that turn out to be zeros are deflated, too.
"""

from __future__ import annotations

import zlib
from array import array
from typing import Iterator, Sequence

from ..._blocks import LEAF, Codec, ImageOutput
from ..._errors import VmferryError
from ..disk_archive import SparseMap, header_bound, longest_gap, packed_header, padding, planned_map
from ..image_format import NewImage
from ..whole_leaves import WholeLeaves
from .deflate import (
    BLOCKS_AT,
    LARGEST_PACKED,
    MEMBER_START,
    USUAL_LEVEL,
    DeflatedLeaf,
    SumOfLeaves,
    deflated,
    member_end,
    sum_of,
)
from .index import GROUP_LEAVES, index_bound, packed_index

_LARGEST_ZEROS = 128  # bytes of a deflated leaf of zeros
_AROUND = 1024  # bytes: the start and the end of the member, and what the zeros at the end of the archive come to


def raw_tar_gz_bound(size: int, data: int) -> int:
    """Bytes that no such image exceeds, with so much data in whole leaves."""
    leaves = -(-min(data, size) // LEAF)
    gaps = min(leaves * (longest_gap(size) // LEAF), -(-size // LEAF) - leaves)
    header = header_bound(size, leaves * LEAF)
    packed = leaves * LARGEST_PACKED + gaps * _LARGEST_ZEROS + header + header // 1000
    return packed + index_bound((leaves + gaps) // GROUP_LEAVES + 1) + _AROUND


class RawTarGz:
    """Plays ImageWriter."""

    head_size = 0
    encrypts = False

    def __init__(self, image: NewImage, output: ImageOutput) -> None:
        codec = image.codec or DeflatedLeaf()
        if not isinstance(codec, DeflatedLeaf):
            raise VmferryError("internal", "An image of the format raw_tar_gz was given the codec of another format.")
        self.codec: Codec = codec
        self.size_bound = raw_tar_gz_bound(image.size, image.data_bound)
        self._layout = planned_map(image.size, image.runs)
        self._file = WholeLeaves(output)
        self._zeros = DeflatedLeaf(9).pack(memoryview(bytes(LEAF)))
        self._places = _leaves(self._layout)
        self._next = -1  # the leaf that the archive goes on with
        self._lengths, self._in_group = array("I"), GROUP_LEAVES

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        self._begin()
        for number, leaf in enumerate(packed, offset // LEAF):
            if leaf is None:
                raise VmferryError("internal", "A leaf of an image of the format raw_tar_gz is always compressed.")
            while 0 <= self._next < number:
                self._put(self._zeros)
            if self._next != number:
                raise VmferryError("internal", f"Data came for byte {number * LEAF}, where none was announced.")
            self._put(leaf)

    def zero(self, offset: int, length: int) -> None:
        """The next data, or the end, say how many leaves of zeros are in the archive."""

    def finish(self) -> None:
        self._begin()
        while self._next >= 0:
            self._put(self._zeros)
        archived = self._header_size + self._layout.stored
        end = bytes(padding(archived))
        crc = zlib.crc32(end, self._sum.value)
        self._file.put(deflated(end, USUAL_LEVEL) + member_end(crc, archived + len(end)))
        for member in packed_index(self._lengths, self._first, self._file.size):
            self._file.put(member)
        self._file.finish()

    def head(self) -> bytes:
        return b""

    def _begin(self) -> None:
        """Nothing may be emitted before the first data comes, or the end."""
        if self._file.size:
            return
        crc = size = 0
        stream = zlib.compressobj(USUAL_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._file.put(MEMBER_START)
        for block in packed_header(self._layout):
            crc, size = zlib.crc32(block, crc), size + len(block)
            self._file.put(stream.compress(block))
        self._file.put(stream.flush(zlib.Z_FULL_FLUSH))
        self._header_size, self._sum, self._first = size, SumOfLeaves(crc), self._file.size
        self._next = next(self._places, -1)

    def _put(self, leaf: bytes) -> None:
        if self._in_group == GROUP_LEAVES:
            self._lengths.append(0)
            self._in_group = 0
        self._in_group += 1
        self._lengths[-1] += len(leaf) - BLOCKS_AT
        self._sum.add(sum_of(leaf))
        self._file.put(memoryview(leaf)[BLOCKS_AT:])
        self._next = next(self._places, -1)


def _leaves(layout: SparseMap) -> Iterator[int]:
    for offset, length in layout:
        yield from range(offset // LEAF, (offset + length) // LEAF)
