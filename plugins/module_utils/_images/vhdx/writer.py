# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-pass VHDX, dynamic: blocks in guest order, and all that describes them in front of them, last.

In the file: the headers and region tables, each twice (1 MiB), an empty log (1 MiB), metadata (1 MiB), the table of
blocks in whole mebibytes, blocks.
"""

from __future__ import annotations

import struct
import sys
from array import array
from hashlib import sha256
from typing import Iterable, Sequence

from ..._blocks import Extent, ImageOutput
from ..large_blocks import LargeBlocks, blocks_touched
from .format import (
    DISK_ID,
    DISK_SIZE,
    FILE_PARAMETERS,
    FULLY_PRESENT,
    HAS_PARENT,
    HEADERS_AT,
    IDENTIFIER,
    LARGEST_BLOCK,
    LOGICAL_SECTOR,
    LOGICAL_SECTOR_SIZE,
    METADATA_REGION,
    MIB,
    OF_DISK,
    PARENT_LOCATOR,
    PHYSICAL_SECTOR,
    PHYSICAL_SECTOR_SIZE,
    REGIONS_AT,
    REQUIRED,
    TABLE_REGION,
    Header,
    Region,
    chunk_ratio,
    entries,
    pack_metadata,
    pack_regions,
)

CREATOR = "vmferry.migrate".encode("utf-16-le")
METADATA_AT, TABLE_AT = 2 * MIB, 3 * MIB
_SMALLEST_BLOCK = 2 * MIB  # the less, the less of a block is empty
_LARGEST_TABLE = 4 * MIB  # held in memory


def virtual_size(size: int) -> int:
    return max(1, -(-size // LOGICAL_SECTOR)) * LOGICAL_SECTOR


def block_size(size: int) -> int:
    """2 MiB up to disks of 1 TiB; from there on as much more as keeps the table small."""
    block = _SMALLEST_BLOCK
    while block < LARGEST_BLOCK and -(-size // block) * 8 > _LARGEST_TABLE:
        block *= 2
    return block


def vhdx_bound(size: int, blocks: int) -> int:
    """Bytes of a file with so many blocks."""
    return TABLE_AT + _table_size(size) + blocks * block_size(size)


def _table_size(size: int) -> int:
    block = block_size(size)
    count = entries(-(-virtual_size(size) // block), chunk_ratio(block))
    return -(-8 * count // MIB) * MIB


class DynamicVhdx:
    """Plays ImageWriter."""

    codec = None
    encrypts = False

    def __init__(self, size: int, output: ImageOutput, runs: Iterable[Extent], *, identity: bytes) -> None:
        """`runs`: no other data comes than what they announce."""
        self._size, self._identity, self._block = virtual_size(size), identity, block_size(size)
        self.head_size = TABLE_AT + _table_size(size)
        self.size_bound = vhdx_bound(size, blocks_touched(runs, self._block))
        self._blocks = LargeBlocks(output, self._size, self._block, self.head_size)

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        self._blocks.data(offset, run, digests)

    def zero(self, offset: int, length: int) -> None:
        """A block that is not present reads as zeros, and so does what no data comes for in one that is."""

    def finish(self) -> None:
        self._blocks.finish()

    def head(self) -> bytes:
        metadata = packed_metadata(self._size, self._block, self._identity)
        return packed_head(self.head_size, self._identity, metadata, self._table())

    def _table(self) -> bytes:
        places, ratio = self._blocks.places, chunk_ratio(self._block)
        table = array("Q", bytes(8 * entries(len(places), ratio)))
        for chunk in range(-(-len(places) // ratio)):
            found = places[chunk * ratio : (chunk + 1) * ratio]
            at = chunk * (ratio + 1)
            table[at : at + len(found)] = array("Q", [place | FULLY_PRESENT if place else 0 for place in found])
        if sys.byteorder == "big":
            table.byteswap()
        return table.tobytes()


def packed_head(head_size: int, identity: bytes, metadata: bytes, table: bytes) -> bytes:
    """All that lies in front of the blocks."""
    head = bytearray(head_size)
    regions = {
        TABLE_REGION: Region(TABLE_AT, head_size - TABLE_AT, 1),
        METADATA_REGION: Region(METADATA_AT, MIB, 1),
    }
    pieces = [(0, IDENTIFIER + CREATOR), (METADATA_AT, metadata), (TABLE_AT, table)]
    for number, at in enumerate(HEADERS_AT):
        pieces.append((at, Header(number + 1, _id(identity, b"file"), data_id_of(identity)).pack()))
    packed = pack_regions(regions)
    pieces += [(at, packed) for at in REGIONS_AT]
    for at, piece in pieces:
        head[at : at + len(piece)] = piece
    return bytes(head)


def packed_metadata(size: int, block: int, identity: bytes, parent: bytes = b"") -> bytes:
    """`parent`: of a layer, where it finds what it stands on."""
    of_disk = OF_DISK | REQUIRED
    items = [
        (FILE_PARAMETERS, struct.pack("<II", block, HAS_PARENT if parent else 0), REQUIRED),
        (DISK_SIZE, struct.pack("<Q", size), of_disk),
        (DISK_ID, identity, of_disk),
        (LOGICAL_SECTOR_SIZE, struct.pack("<I", LOGICAL_SECTOR), of_disk),
        (PHYSICAL_SECTOR_SIZE, struct.pack("<I", PHYSICAL_SECTOR), of_disk),
    ]
    return pack_metadata([*items, (PARENT_LOCATOR, parent, REQUIRED)] if parent else items)


def data_id_of(identity: bytes) -> bytes:
    """By which a layer knows the image of this identity."""
    return _id(identity, b"data")


def _id(identity: bytes, of: bytes) -> bytes:
    return sha256(identity + of).digest()[:16]
