# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words of VHD: Microsoft, "Virtual Hard Disk Image Format Specification", version 1.0. Big-endian.

https://learn.microsoft.com/en-us/windows/win32/vstor/about-vhd
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Optional, Tuple, Union

Bytes = Union[bytes, bytearray, memoryview]

SECTOR = 512
BLOCK = 2 << 20  # bytes, the format's default, which all readers know
FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
HEADER = struct.Struct(">8sQQIIII16sI4x512s192s256x")
COOKIE, HEADER_COOKIE = b"conectix", b"cxsparse"
FEATURES, VERSION = 2, 0x10000
NO_OFFSET = (1 << 64) - 1
NOT_STORED = 0xFFFFFFFF  # a table's entry
FIXED, DYNAMIC = 2, 3
LARGEST_DISK = 2040 << 30  # bytes; what Windows takes, and QEMU
LARGEST_FILE = SECTOR << 32  # of a dynamic one, whose table counts sectors in 32 bits
# Whose size is the footer's, says Hyper-V's name here to QEMU and others: that of any unknown program would be reckoned
# from the geometry, which only comes close to it.
CREATOR, CREATOR_VERSION, CREATOR_HOST = b"win ", 0x00060003, b"Wi2k"
FOOTER_CHECKSUM_AT, HEADER_CHECKSUM_AT = 64, 36
MIB = 1 << 20


def sectors(size: int) -> int:
    return -(-size // SECTOR)


def geometry(total: int) -> Tuple[int, int, int]:
    """Cylinders, heads and sectors of a track, for so many sectors: "CHS Calculation" of the specification."""
    total = min(total, 65535 * 16 * 255)
    if total >= 65535 * 16 * 63:
        return total // 255 // 16, 16, 255
    track = 17
    tracks = total // track
    heads = max(4, (tracks + 1023) // 1024)
    if tracks >= heads * 1024 or heads > 16:
        track, heads = 31, 16
        tracks = total // track
    if tracks >= heads * 1024:
        track, heads = 63, 16
        tracks = total // track
    return tracks // heads, heads, track


def checksum(data: Bytes, at: int) -> int:
    """The complement of the sum of all bytes but the checksum's own four."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF


@dataclass(frozen=True)
class Footer:
    size: int  # bytes
    kind: int
    identity: bytes
    header: int = NO_OFFSET  # where a dynamic image's is

    def pack(self) -> bytes:
        cylinders, heads, track = geometry(sectors(self.size))
        footer = bytearray(FOOTER.size)
        FOOTER.pack_into(
            footer, 0, COOKIE, FEATURES, VERSION, self.header, 0, CREATOR, CREATOR_VERSION, CREATOR_HOST, self.size,
            self.size, cylinders, heads, track, self.kind, 0, self.identity, 0,
        )  # fmt: skip
        struct.pack_into(">I", footer, FOOTER_CHECKSUM_AT, checksum(footer, FOOTER_CHECKSUM_AT))
        return bytes(footer)

    @classmethod
    def unpack(cls, data: Bytes) -> Optional[Footer]:
        """None where that is none, or a damaged one."""
        (
            cookie, _features, version, header, _time, _app, _app_version, _host, _original, size, _cylinders, _heads,
            _track, kind, found, identity, saved,
        ) = FOOTER.unpack(data)  # fmt: skip
        if cookie != COOKIE or version != VERSION or saved or found != checksum(data, FOOTER_CHECKSUM_AT):
            return None
        return cls(size, kind, identity, header)


@dataclass(frozen=True)
class DynamicHeader:
    table: int  # where it lies in the file
    entries: int
    block: int = BLOCK

    def pack(self) -> bytes:
        header = bytearray(HEADER.size)
        HEADER.pack_into(
            header, 0, HEADER_COOKIE, NO_OFFSET, self.table, VERSION, self.entries, self.block, 0, b"", 0, b"", b""
        )
        struct.pack_into(">I", header, HEADER_CHECKSUM_AT, checksum(header, HEADER_CHECKSUM_AT))
        return bytes(header)

    @classmethod
    def unpack(cls, data: Bytes) -> Optional[DynamicHeader]:
        """None where that is none, or a damaged one."""
        cookie, _next, table, version, entries, block, found, *_parent = HEADER.unpack(data)
        if cookie != HEADER_COOKIE or version != VERSION or found != checksum(data, HEADER_CHECKSUM_AT):
            return None
        return cls(table, entries, block)
