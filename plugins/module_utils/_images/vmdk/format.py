# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words of VMDK's sparse extents: VMware, "Virtual Disk Format 5.0", "Hosted Sparse Extents" and "Stream-Optimized
Compressed Sparse Extents", https://www.vmware.com/app/vmdk/?src=vmdk

A grain is a leaf here. Offsets in the file are in sectors; those of grains, and of grain tables, have 32 bits.
"""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass

from ..._blocks import LEAF

SECTOR = 512
GRAIN_SECTORS = LEAF // SECTOR
TABLE_ENTRIES = 512  # grains that one grain table maps: 32 MiB
TABLE_SIZE = 4 * TABLE_ENTRIES
MAGIC = b"KDMV"
HEADER = struct.Struct("<4sIIQQQQIQQQB4sH433x")
LINE_ENDS = b"\n \r\n"  # broken by whatever takes the file for text
MARKER = struct.Struct("<QII")  # of what is no grain: sectors, 0, kind
GRAIN_MARKER = struct.Struct("<QI")  # of a grain: its first sector on the disk, bytes that follow
END_OF_STREAM, TABLE, DIRECTORY, FOOTER = 0, 1, 2, 3  # kinds
AT_END = (1 << 64) - 1  # as the directory's place in the header: it is in the footer
NEWLINES, REDUNDANT, ZEROED_GRAINS, COMPRESSED, MARKERS = 1, 2, 4, 1 << 16, 1 << 17  # flags
DEFLATE = 1
DESCRIPTOR_SECTORS = 20
LARGEST_DISK = 62 << 40  # bytes; of any VMDK on a datastore
LARGEST_FILE = SECTOR << 32
HEADS, TRACK = 255, 63  # of a SCSI disk's geometry


def sectors(size: int) -> int:
    return -(-size // SECTOR)


def tables(size: int) -> int:
    """Grain tables of a disk, one at the least."""
    return max(1, -(-size // (LEAF * TABLE_ENTRIES)))


def little_endian(words: array[int]) -> bytes:
    if sys.byteorder == "little":
        return words.tobytes()
    copy = words[:]
    copy.byteswap()
    return copy.tobytes()


def words_of(data: bytes | bytearray | memoryview) -> array[int]:
    words = array("I", bytes(data))
    if sys.byteorder == "big":
        words.byteswap()
    return words


@dataclass(frozen=True)
class Header:
    """All places and lengths in sectors."""

    version: int
    flags: int
    capacity: int
    directory: int
    redundant_directory: int
    overhead: int
    compression: int
    descriptor: int = 1
    descriptor_length: int = DESCRIPTOR_SECTORS
    grain: int = GRAIN_SECTORS
    table_entries: int = TABLE_ENTRIES
    is_unclean: int = 0

    def pack(self) -> bytes:
        return HEADER.pack(
            MAGIC, self.version, self.flags, self.capacity, self.grain, self.descriptor, self.descriptor_length,
            self.table_entries, self.redundant_directory, self.directory, self.overhead, self.is_unclean, LINE_ENDS,
            self.compression,
        )  # fmt: skip

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Header | None:
        """None where that is no header."""
        (
            magic, version, flags, capacity, grain, descriptor, descriptor_length, entries, redundant, directory,
            overhead, is_unclean, line_ends, compression,
        ) = HEADER.unpack(data)  # fmt: skip
        if magic != MAGIC or (flags & NEWLINES and line_ends != LINE_ENDS):
            return None
        return cls(
            version, flags, capacity, directory, redundant, overhead, compression, descriptor, descriptor_length, grain,
            entries, is_unclean,
        )  # fmt: skip


def descriptor(size: int, create_type: str, identity: bytes) -> bytes:
    """As it lies behind the header, in whole sectors. `identity`: 16 bytes."""
    content_id = min(int.from_bytes(identity[:4], "big"), 0xFFFFFFFD)  # the two above it have meanings of their own
    text = f"""# Disk DescriptorFile
version=1
CID={content_id:08x}
parentCID=ffffffff
createType="{create_type}"

# Extent description
RW {sectors(size)} SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "{max(1, sectors(size) // (HEADS * TRACK))}"
ddb.geometry.heads = "{HEADS}"
ddb.geometry.sectors = "{TRACK}"
ddb.longContentID = "{identity[4:].hex()}{content_id:08x}"
ddb.toolsVersion = "2147483647"
ddb.virtualHWVersion = "4"
"""
    return text.encode().ljust(DESCRIPTOR_SECTORS * SECTOR, b"\0")
