# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VHDX: [MS-VHDX], https://learn.microsoft.com/openspecs/windows_protocols/ms-vhdx"""

from __future__ import annotations

import struct
from typing import Dict, Mapping, Tuple
from uuid import UUID

from ..crc32c import crc32c
from .places import UsedPlaces
from .reading import Examination, ceiling, is_power_of_two
from .words import Description

MAGIC = b"vhdxfile"
_KIB, _MIB = 1 << 10, 1 << 20
_HEADERS, _HEADER_SIZE = (64 * _KIB, 128 * _KIB), 4 * _KIB
_HEADER = "<4sIQ16s16s16sHHIQ"  # signature, checksum, sequence, 3 ids (the last: of the log), versions, log
_REGIONS, _REGION_SIZE = (192 * _KIB, 256 * _KIB), 64 * _KIB
_REGION_ENTRY, _ITEM = "<16sQII", "<16sIIII"
_MOST_ENTRIES = 2047
_BAT, _METADATA = "2dc27766-f623-4200-9d64-115e9bfd4a08", "8b7ca206-4790-4b9a-b8fe-575f050f886e"
_PARAMETERS = "caa16737-fa36-4d43-b3b6-33f0aa44e76b"
_SIZE, _PAGE_83 = "2fa54224-cd1b-4876-b211-5dbed83bf4b8", "beca12ab-b2e6-4523-93ef-c309e000c746"
_LOGICAL, _PHYSICAL = "8141bf1d-a96f-4709-ba47-f233a8faab5f", "cda348c7-445d-4471-9cc9-e9885251c556"
_PARENT = "a8d35f2d-b30b-454d-abf7-d3d84834ab0c"
_LENGTHS = {_PARAMETERS: 8, _SIZE: 8, _PAGE_83: 16, _LOGICAL: 4, _PHYSICAL: 4}
_REQUIRED, _OF_USER = 4, 1  # flags of a metadata item
_LEAVES_ALLOCATED, _HAS_PARENT = 1, 2  # flags of the file parameters
_UNMAPPED, _WHOLE, _PARTLY = 3, 6, 7  # states of a block; up to the first, nothing of it is in the file
_PLACE = ~((1 << 20) - 1) & (1 << 64) - 1

Run = Tuple[int, int]


def describe(examination: Examination) -> Description:
    log = _log(examination)
    regions = _regions(examination)
    items = _items(examination, regions[_METADATA])
    block, flags = struct.unpack("<II", items[_PARAMETERS])
    size, sector = int.from_bytes(items[_SIZE], "little"), int.from_bytes(items[_LOGICAL], "little")
    is_layer = bool(flags & _HAS_PARENT)
    if is_layer or _PARENT in items:
        examination.object("backing_file", "stands on another image")
    examination.demand(
        not flags & ~(_LEAVES_ALLOCATED | _HAS_PARENT), f"has flags 0x{flags:x} that are not known", "unknown_feature"
    )
    examination.demand(is_power_of_two(block) and _MIB <= block <= 256 * _MIB, f"has blocks of {block} bytes")
    examination.demand(sector in (512, 4096), f"has sectors of {sector} bytes")
    examination.disk_size(size)
    examination.demand(not size % sector, f"is of a disk of {size} bytes")
    if not examination.header_only:
        _walk(examination, [log, regions[_METADATA]], regions[_BAT], block, (size, sector), is_layer)
    return Description(
        "vhdx", "differencing" if is_layer else "fixed" if flags & _LEAVES_ALLOCATED else "dynamic", size
    )


def _log(examination: Examination) -> Run:
    """Of the header that counts: the one with the higher sequence number among those whose checksum is right."""
    found = []
    for at in _HEADERS:
        data = examination.read(at, _HEADER_SIZE, "its headers")
        if data[:4] == b"head" and sums_up(data):
            found.append(struct.unpack_from(_HEADER, data)[2:])
    examination.demand(bool(found), "has no header whose checksum is right", "corrupt")
    _sequence, _file_id, _data_id, log_id, log_version, version, length, at = max(found)
    examination.demand(version == 1 and not log_version, f"is VHDX of version {version}", "unknown_feature")
    if any(log_id):
        examination.object("log", "has changes in its log that are not replayed yet")
    examination.demand(not at % _MIB and not length % _MIB and at >= _MIB, "has its log off its alignment")
    return at, length


def _regions(examination: Examination) -> Mapping[str, Run]:
    tables = [examination.read(at, _REGION_SIZE, "its region tables") for at in _REGIONS]
    for data in tables:
        examination.demand(data[:4] == b"regi" and sums_up(data), "has a damaged region table", "corrupt")
    examination.demand(tables[0] == tables[1], "has two region tables that differ", "corrupt")
    (count,) = struct.unpack_from("<I", tables[0], 8)
    examination.demand(count <= _MOST_ENTRIES, f"has {count} regions", "tables")
    found: Dict[str, Run] = {}
    for number in range(count):
        name, at, length, needed = struct.unpack_from(_REGION_ENTRY, tables[0], 16 + 32 * number)
        key = str(UUID(bytes_le=name))
        if key not in (_BAT, _METADATA):
            examination.demand(not needed, f"needs a region that is not known ({key})", "unknown_feature")
            continue
        fits = key not in found and not at % _MIB and not length % _MIB and at >= _MIB
        examination.demand(fits, "has a region twice, or off its alignment")
        found[key] = at, length
    examination.demand(len(found) == 2, "lacks a region")
    return found


def _items(examination: Examination, region: Run) -> Mapping[str, bytes]:
    at, length = region
    examination.demand(length >= 64 * _KIB, "has a metadata region that is too short")
    table = examination.read(at, 64 * _KIB, "its metadata")
    (count,) = struct.unpack_from("<H", table, 10)
    examination.demand(table[:8] == b"metadata" and count <= _MOST_ENTRIES, "has no table of metadata")
    found: Dict[str, bytes] = {}
    for number in range(count):
        name, offset, size, flags, _reserved = struct.unpack_from(_ITEM, table, 32 + 32 * number)
        key = str(UUID(bytes_le=name))
        if flags & _OF_USER or key not in (*_LENGTHS, _PARENT):
            examination.demand(not flags & _REQUIRED, f"needs metadata that are not known ({key})", "unknown_feature")
            continue
        fits = key not in found and offset >= 64 * _KIB and offset + size <= length and size <= _MIB
        examination.demand(fits and size == _LENGTHS.get(key, size), "has metadata twice, or out of place")
        found[key] = examination.read(at + offset, size, "its metadata")
    examination.demand({_PARAMETERS, _SIZE, _LOGICAL} <= found.keys(), "lacks metadata")
    return found


def _walk(
    examination: Examination, fixed: list[Run], bat: Run, block: int, disk: Tuple[int, int], is_layer: bool
) -> None:
    size, sector = disk
    places = UsedPlaces(examination, _MIB)
    places.take(0, _MIB, "its headers")
    for at, length in [*fixed, bat]:
        if length:
            places.take(at, length, "a region")
    ratio = (1 << 23) * sector // block  # payload blocks for each block of bitmaps
    blocks = ceiling(size, block)
    entries = ceiling(blocks, ratio) * (ratio + 1) if is_layer else blocks + max(0, blocks - 1) // ratio
    examination.demand(8 * entries <= bat[1], "has a smaller table than its disk needs")
    table = struct.unpack(f"<{entries}Q", examination.table(bat[0], 8 * entries, "its table"))
    for number, entry in enumerate(table):
        state, is_bitmap = entry & 7, number % (ratio + 1) == ratio
        if state == _WHOLE:
            places.take(entry & _PLACE, _MIB if is_bitmap else block, "a block")
        elif state == _PARTLY and is_layer and not is_bitmap:
            places.take(entry & _PLACE, block, "a block")
        elif state == _PARTLY:
            examination.refuse("backing_file", "has a block of which another image has the rest")
        elif state > _UNMAPPED:
            examination.refuse("unknown_feature", f"has a block of the state {state}")


def sums_up(data: bytes) -> bool:
    """CRC-32C of all of it, with zeros where the checksum stands."""
    return crc32c(data[:4] + bytes(4) + data[8:]) == int.from_bytes(data[4:8], "little")
