# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leaves deflated each on its own, so that many are at once, and still one member of a gzip file.

https://www.rfc-editor.org/rfc/rfc1951 and https://www.rfc-editor.org/rfc/rfc1952.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, List, Optional, Sequence, Union

from ..._blocks import LEAF
from ..._errors import VmferryError
from ..shrinking import shrinks

USUAL_LEVEL = 1  # a level more is half as fast, and saves a few percent
MEMBER_START = b"\x1f\x8b\x08\0" + bytes(5) + b"\xff"  # without a name or a time, of no system
LAST_BLOCK = b"\3\0"  # an empty one, that begins on a byte
_EMPTY_BLOCK = b"\0\0\0\xff\xff"
_LONGEST_END = 600  # bytes that a block can go on for and unpack to nothing: a header of Huffman codes, and one of them
LARGEST_PACKED = LEAF + (LEAF >> 12) + (LEAF >> 14) + 32  # zlib's deflateBound of a leaf, with its flush
_SUM = struct.Struct("<I")
BLOCKS_AT = _SUM.size  # in what `DeflatedLeaf` makes
Deflated = Any  # what zlib.decompressobj makes


class DeflatedLeaf:
    """Plays Codec: the CRC-32 of a leaf, and its deflate blocks, of which none is the stream's last."""

    def __init__(self, level: Optional[int] = None) -> None:
        if level is not None and level not in range(1, 10):
            raise VmferryError("invalid_config", f"compression_level is {level}; zlib has levels from 1 to 9.")
        self._level = USUAL_LEVEL if level is None else level

    def pack(self, leaf: memoryview) -> bytes:
        return _SUM.pack(zlib.crc32(leaf)) + deflated(leaf, self._level if shrinks(leaf) else 0)


def deflated(data: Union[bytes, memoryview], level: int) -> bytes:
    """Blocks that need nothing of what is before them, and end on a byte."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush(zlib.Z_FULL_FLUSH)


def sum_of(packed: bytes) -> int:
    (found,) = _SUM.unpack_from(packed)
    return int(found)


def inflated(packed: memoryview, size: int) -> Optional[bytes]:
    """So many bytes. None for what is not whole blocks that need nothing of what is before them and end on a byte: only
    then does whoever reads the stream from its beginning find the same.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = stream.decompress(packed, size)
        return found if len(found) == size and is_between_blocks(stream, stream.unconsumed_tail) else None
    except zlib.error:
        return None


def is_between_blocks(stream: Deflated, rest: bytes) -> bool:
    """Whether the stream, which has unpacked what there was of it but `rest`, is behind a block there that ends on a
    byte, and is not the last. Raises zlib.error, or says no, for all else.

    A block that is still open takes some bits of what follows for its own. If it is the last one, it ends within those
    few bytes that make no data, and not at the end of many empty blocks. If it is not, LAST_BLOCK has no bits left for
    another that is.
    """
    empty = _EMPTY_BLOCK * (_LONGEST_END // len(_EMPTY_BLOCK))
    return all(_ends_with(stream.copy(), rest + more + LAST_BLOCK) for more in (b"", empty))


def _ends_with(stream: Deflated, rest: bytes) -> bool:
    """And nothing comes of it."""
    return not stream.decompress(rest, 1) and stream.eof and not stream.unused_data


def member_end(crc: int, size: int) -> bytes:
    """Behind the last leaf. `size`: of all that was deflated."""
    return LAST_BLOCK + struct.pack("<II", crc, size & 0xFFFFFFFF)


class SumOfLeaves:
    """The CRC-32 of leaves one behind the other, of that of each. A leaf shifts what was before it, which is linear: it
    takes four look-ups, in tables that are made of what zlib does to each bit.
    """

    def __init__(self, before: int) -> None:
        self.value = before
        of_zeros = zlib.crc32(bytes(LEAF))
        bits = [zlib.crc32(bytes(LEAF), 1 << bit) ^ of_zeros for bit in range(32)]
        self._tables = [_table(bits[at : at + 8]) for at in range(0, 32, 8)]

    def add(self, leaf: int) -> None:
        first, second, third, fourth = self._tables
        old = self.value
        self.value = leaf ^ first[old & 255] ^ second[old >> 8 & 255] ^ third[old >> 16 & 255] ^ fourth[old >> 24]


def _table(bits: Sequence[int]) -> List[int]:
    table = [0] * 256
    for value in range(1, 256):
        lowest = value & -value
        table[value] = table[value ^ lowest] ^ bits[lowest.bit_length() - 1]
    return table
