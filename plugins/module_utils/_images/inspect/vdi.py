# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VDI of VirtualBox, as QEMU reads it: https://gitlab.com/qemu-project/qemu/-/blob/master/block/vdi.c"""

from __future__ import annotations

import struct

from .places import UsedBlocks
from .reading import SECTOR, Examination, ceiling
from .words import Description

MAGIC_AT, MAGIC = 0x40, b"\x7f\x10\xda\xbe"
_HEADER = "<4sIIII256sIIIIIIIQIIII16s16s16s16s"
_VERSION = 0x00010001
_BLOCK = 1 << 20
_KINDS = {1: "dynamic", 2: "static"}
_UNDO, _DIFFERENCING = 3, 4
_FREE = 0xFFFFFFFE  # and the one above: never written, or given up


def describe(examination: Examination) -> Description:
    (
        _magic, version, header_size, kind, _flags, _text, map_at, data_at, _cylinders, _heads, _sectors, sector,
        _unused, size, block, extra, blocks, allocated, _id, _snapshot, link, parent,
    ) = examination.words(_HEADER, MAGIC_AT, "its header")  # fmt: skip
    examination.demand(version == _VERSION, f"is VDI of version 0x{version:08x}", "unknown_feature")
    if kind in (_UNDO, _DIFFERENCING) or any(link) or any(parent):
        examination.refuse("backing_file", "stands on another image")
    examination.demand(kind in _KINDS, f"is VDI of the kind {kind}", "unknown_feature")
    examination.demand(header_size >= 0x180, f"has a header of {header_size} bytes")
    examination.demand(
        sector == SECTOR and block == _BLOCK and not extra, "has blocks of another size", "unknown_feature"
    )
    examination.disk_size(size)
    examination.demand(not map_at % SECTOR and not data_at % SECTOR, "has its blocks off their alignment")
    examination.demand(map_at >= MAGIC_AT + struct.calcsize(_HEADER), "has its map inside its header")
    examination.demand(ceiling(size, _BLOCK) <= blocks, "has fewer blocks than its disk needs")
    examination.demand(4 * blocks <= examination.limits.table, f"has a map of {blocks} blocks", "tables")
    examination.demand(allocated <= blocks, "has more blocks in use than it has blocks")
    examination.demand(data_at >= map_at + 4 * blocks, "has its blocks inside their map", "overlap")
    if not examination.header_only:
        _walk(examination, map_at, data_at, blocks)
    return Description("vdi", _KINDS[kind], size)


def _walk(examination: Examination, map_at: int, data_at: int, blocks: int) -> None:
    """Blocks are numbered from `data_at` on."""
    places = UsedBlocks(examination, _BLOCK)
    for entry in struct.unpack(f"<{blocks}I", examination.table(map_at, 4 * blocks, "its map")):
        if entry < _FREE:
            places.take(data_at + entry * _BLOCK, "a block")
