# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VHD: "Virtual Hard Disk Image Format Specification" 1.0 of Microsoft,
https://download.microsoft.com/download/f/f/e/ffef50a5-07dd-4cf8-aaa3-442c0673a029/Virtual%20Hard%20Disk%20Format%20Spec_10_18_06.doc
"""

from __future__ import annotations

import struct
from typing import Tuple

from .places import UsedBlocks
from .reading import SECTOR, Examination, ceiling, is_power_of_two
from .words import Description

MAGIC, HEADER_MAGIC = b"conectix", b"cxsparse"
FOOTER = 512
_FOOTER = ">8sIIQI4sII QQ III16s"  # ... the checksum is the last but one
_CHECKSUM_AT = 64
_HEADER = ">8sQQIIII16sII"
_HEADER_SIZE, _HEADER_CHECKSUM_AT = 1024, 36
_VERSION = 0x00010000
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_NONE = 0xFFFFFFFF  # an entry of the block allocation table
_SMALLEST_BLOCK, _LARGEST_BLOCK = 512, 256 << 20


def describe(examination: Examination) -> Description:
    at = examination.size - FOOTER
    examination.demand(at >= 0, "is too short for a footer", "truncated")
    last = examination.read(at, FOOTER, "its footer")
    examination.demand(last[:8] == MAGIC, "has no footer at its end", "truncated")
    examination.demand(sums_up(last, _CHECKSUM_AT), "has a footer whose checksum is wrong", "corrupt")
    (
        _cookie, _features, version, header_at, _time, _creator, _creator_version, _creator_os, _first_size, size,
        _geometry, kind, _checksum, _id,
    ) = struct.unpack_from(_FOOTER, last)  # fmt: skip
    examination.demand(version == _VERSION, f"is VHD of version 0x{version:08x}", "unknown_feature")
    examination.disk_size(size)
    if kind == _FIXED:
        examination.demand(size == at, f"is of a disk of {size} bytes in a file that holds {at}")
        return Description("vhd", "fixed", size)
    examination.demand(kind in (_DYNAMIC, _DIFFERENCING), f"is VHD of the kind {kind}", "unknown_feature")
    examination.demand(examination.read(0, FOOTER, "its header") == last, "has a header and a footer that differ")
    _check_dynamic(examination, header_at, size, kind == _DIFFERENCING)
    return Description("vhd", "dynamic" if kind == _DYNAMIC else "differencing", size)


def sums_up(data: bytes, at: int) -> bool:
    """The one's complement of the sum of all bytes but the checksum's own."""
    total = sum(data) - sum(data[at : at + 4])
    return ~total & 0xFFFFFFFF == int.from_bytes(data[at : at + 4], "big")


def _check_dynamic(examination: Examination, at: int, size: int, stands_on_another: bool) -> None:
    data = examination.read(at, _HEADER_SIZE, "its dynamic header")
    examination.demand(data[:8] == HEADER_MAGIC, "has no dynamic header where it says")
    examination.demand(sums_up(data, _HEADER_CHECKSUM_AT), "has a header whose checksum is wrong", "corrupt")
    _cookie, _next, table_at, version, entries, block, _sum, parent, _time, _reserved = struct.unpack_from(
        _HEADER, data
    )
    examination.demand(version == _VERSION, f"has a header of version 0x{version:08x}", "unknown_feature")
    if stands_on_another or any(parent) or any(data[64:768]):  # the parent's name, and where to find it
        examination.refuse("backing_file", "stands on another image")
    fits = is_power_of_two(block) and _SMALLEST_BLOCK <= block <= _LARGEST_BLOCK
    examination.demand(fits, f"has blocks of {block} bytes")
    examination.demand(4 * entries <= examination.limits.table, f"has a table of {entries} blocks", "tables")
    examination.demand(entries >= ceiling(size, block), "has a smaller table than its disk needs")
    examination.demand(not at % SECTOR and not table_at % SECTOR, "has its table off its alignment")
    if not examination.header_only:
        _walk(examination, at, (table_at, entries), block)


def _walk(examination: Examination, header_at: int, table: Tuple[int, int], block: int) -> None:
    """A block is its bitmap, of whole sectors, and its data; all of them lie behind the table."""
    at, entries = table
    examination.demand(header_at >= FOOTER and header_at + _HEADER_SIZE <= at, "has its table over a header", "overlap")
    bitmap = ceiling(ceiling(block // SECTOR, 8), SECTOR) * SECTOR
    places = UsedBlocks(examination, bitmap + block)
    for entry in struct.unpack(f">{entries}I", examination.table(at, 4 * entries, "its table")):
        if entry != _NONE:
            examination.demand(entry * SECTOR >= at + 4 * entries, "has a block over its table", "overlap")
            places.take(entry * SECTOR, "a block")
