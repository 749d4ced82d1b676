# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words of VHDX: Microsoft, "[MS-VHDX]: Virtual Hard Disk v2 (VHDX) File Format". Little-endian.

https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-vhdx/83e061f8-f6e2-4de1-91bd-5d518a43d477
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import List, Mapping, Optional, Tuple, Union
from uuid import UUID

from ..crc32c import crc32c

Bytes = Union[bytes, bytearray, memoryview]

KIB, MIB = 1 << 10, 1 << 20
IDENTIFIER = b"vhdxfile"
HEADERS_AT, HEADER_SIZE = (64 * KIB, 128 * KIB), 4 * KIB
REGIONS_AT, REGIONS_SIZE = (192 * KIB, 256 * KIB), 64 * KIB
CHECKSUM_AT = 4  # of headers and region tables alike
HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
REGIONS = struct.Struct("<4sIII")
REGION = struct.Struct("<16sQII")
METADATA = struct.Struct("<8s2xH20x")
ITEM = struct.Struct("<16sIII4x")
METADATA_SIZE = 64 * KIB  # of its table; items lie behind it
USER, OF_DISK, REQUIRED = 1, 2, 4  # flags of an item
LEAVE_ALLOCATED, HAS_PARENT = 1, 2  # flags of the file parameters
STATE, PLACE = 7, ~((1 << 20) - 1)  # of a table's entry
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULLY_PRESENT, PARTIALLY_PRESENT = 0, 1, 2, 3, 6, 7
LOGICAL_SECTOR, PHYSICAL_SECTOR = 512, 4096
LARGEST_DISK = 64 << 40  # bytes
SMALLEST_BLOCK, LARGEST_BLOCK = MIB, 256 * MIB


def _guid(text: str) -> bytes:
    return UUID(text).bytes_le


TABLE_REGION = _guid("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA_REGION = _guid("8B7CA206-4790-4B9A-B8FE-575F050F886E")
FILE_PARAMETERS = _guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
DISK_SIZE = _guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
DISK_ID = _guid("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL_SECTOR_SIZE = _guid("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL_SECTOR_SIZE = _guid("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT_LOCATOR = _guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
KNOWN_ITEMS = frozenset(
    (FILE_PARAMETERS, DISK_SIZE, DISK_ID, LOGICAL_SECTOR_SIZE, PHYSICAL_SECTOR_SIZE, PARENT_LOCATOR)
)


def chunk_ratio(block: int, sector: int = LOGICAL_SECTOR) -> int:
    """Blocks that one sector bitmap stands for: its entry follows theirs in the table."""
    return (sector << 23) // block


def entries(blocks: int, ratio: int) -> int:
    """Of the table of a disk that is no layer: bitmaps are counted only between blocks."""
    return blocks + (blocks - 1) // ratio if blocks else 0


def layer_entries(blocks: int, ratio: int) -> int:
    """Of the table of a layer: it ends with a bitmap."""
    return -(-blocks // ratio) * (ratio + 1)


def sealed(data: bytearray) -> bytes:
    """With its checksum, whose place is zeros in what it is reckoned from."""
    struct.pack_into("<I", data, CHECKSUM_AT, crc32c(data))
    return bytes(data)


def is_sealed(data: Bytes) -> bool:
    copy = bytearray(data)
    (found,) = struct.unpack_from("<I", copy, CHECKSUM_AT)
    copy[CHECKSUM_AT : CHECKSUM_AT + 4] = bytes(4)
    return bool(found == crc32c(copy))


@dataclass(frozen=True)
class Header:
    sequence: int
    file_id: bytes
    data_id: bytes
    log_id: bytes = bytes(16)  # zeros: the log holds nothing that is to be replayed
    log_version: int = 0
    version: int = 1
    log_length: int = MIB
    log_offset: int = MIB

    def pack(self) -> bytes:
        data = bytearray(HEADER_SIZE)
        HEADER.pack_into(
            data, 0, b"head", 0, self.sequence, self.file_id, self.data_id, self.log_id, self.log_version, self.version,
            self.log_length, self.log_offset,
        )  # fmt: skip
        return sealed(data)

    @classmethod
    def unpack(cls, data: Bytes) -> Optional[Header]:
        """None where that is none, or a damaged one."""
        signature, _checksum, *rest = HEADER.unpack_from(data)
        return cls(*rest) if signature == b"head" and is_sealed(data) else None


@dataclass(frozen=True)
class Region:
    offset: int
    length: int
    required: int


def pack_regions(regions: Mapping[bytes, Region]) -> bytes:
    data = bytearray(REGIONS_SIZE)
    REGIONS.pack_into(data, 0, b"regi", 0, len(regions), 0)
    for number, (kind, region) in enumerate(regions.items()):
        at = REGIONS.size + number * REGION.size
        REGION.pack_into(data, at, kind, region.offset, region.length, region.required)
    return sealed(data)


def unpack_regions(data: Bytes) -> Optional[Mapping[bytes, Region]]:
    """None where that is no table of regions, a damaged one, or one that names a region twice."""
    signature, _checksum, count, _reserved = REGIONS.unpack_from(data)
    if signature != b"regi" or count > (REGIONS_SIZE - REGIONS.size) // REGION.size or not is_sealed(data):
        return None
    found = {}
    for number in range(count):
        kind, *rest = REGION.unpack_from(data, REGIONS.size + number * REGION.size)
        found[kind] = Region(*rest)
    return found if len(found) == count else None


def pack_metadata(items: List[Tuple[bytes, bytes, int]]) -> bytes:
    """Of kinds, contents and flags."""
    table, contents = bytearray(METADATA_SIZE), b""
    METADATA.pack_into(table, 0, b"metadata", len(items))
    for number, (kind, content, flags) in enumerate(items):
        at = METADATA.size + number * ITEM.size
        ITEM.pack_into(table, at, kind, METADATA_SIZE + len(contents), len(content), flags)
        contents += content
    return bytes(table) + contents


def unpack_metadata(data: Bytes) -> Optional[Mapping[bytes, Tuple[bytes, int]]]:
    """Contents and flags by kind. None where that is no such region, or has an item twice, or one that lies outside."""
    signature, count = METADATA.unpack_from(data)
    if signature != b"metadata" or count > (METADATA_SIZE - METADATA.size) // ITEM.size:
        return None
    found, left = {}, len(data)  # items that overlap could be as many times as large
    for number in range(count):
        kind, offset, length, flags = ITEM.unpack_from(data, METADATA.size + number * ITEM.size)
        left -= length
        if left < 0 or (length and not METADATA_SIZE <= offset <= len(data) - length):
            return None
        found[bytes(kind)] = (bytes(data[offset : offset + length]), flags)
    return found if len(found) == count else None
