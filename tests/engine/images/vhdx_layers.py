# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Differencing VHDX images, written sector by sector as [MS-VHDX] has them: nothing else here can make any."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhdx.format import (
    DISK_ID,
    DISK_SIZE,
    FILE_PARAMETERS,
    HEADERS_AT,
    IDENTIFIER,
    LOGICAL_SECTOR_SIZE,
    METADATA_REGION,
    PARENT_LOCATOR,
    PHYSICAL_SECTOR_SIZE,
    REGIONS_AT,
    TABLE_REGION,
    Header,
    Region,
    pack_metadata,
    pack_regions,
)

from .disks import MIB

BLOCK, SECTOR = MIB, 512
RATIO = 4096  # blocks of a mebibyte that one bitmap stands for
WHOLE, PARTLY, ZERO, UNMAPPED = 6, 7, 2, 3
_OF_VHDX = UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913").bytes_le


@dataclass(frozen=True)
class Layer:
    """`whole`: contents of blocks by their number; `sectors`: of single sectors; `empty`: states of blocks without."""

    size: int
    whole: Mapping[int, bytes] = field(default_factory=dict)
    sectors: Mapping[int, bytes] = field(default_factory=dict)
    empty: Mapping[int, int] = field(default_factory=dict)

    def over(self, below: bytes) -> bytes:
        """What a guest sees of it, and of what is below it."""
        disk = bytearray(below[: self.size].ljust(self.size, b"\0"))
        for number, data in self.whole.items():
            disk[number * BLOCK : number * BLOCK + len(data)] = data
        for number in self.empty:
            disk[number * BLOCK : (number + 1) * BLOCK] = bytes(min(BLOCK, self.size - number * BLOCK))
        for sector, data in self.sectors.items():
            disk[sector * SECTOR : (sector + 1) * SECTOR] = data
        return bytes(disk)


def locator(**entries: str) -> bytes:
    head, texts = struct.pack("<16s2xH", _OF_VHDX, len(entries)), b""
    at = len(head) + 12 * len(entries)
    for key, value in entries.items():
        one, other = key.encode("utf-16-le"), value.encode("utf-16-le")
        head += struct.pack("<IIHH", at + len(texts), at + len(texts) + len(one), len(one), len(other))
        texts += one + other
    return head + texts


def linked(name: str, parent_id: bytes) -> bytes:
    """As Hyper-V writes it, with the folder of where it was made."""
    return locator(
        parent_linkage=f"{{{UUID(bytes_le=parent_id)}}}",
        relative_path=f".\\{name}",
        absolute_win32_path=f"D:\\VMs\\{name}",
    )


def data_id(path: Path) -> bytes:
    header = path.read_bytes()[HEADERS_AT[1] :][:4096]
    found = Header.unpack(header)
    assert found is not None
    return found.data_id


def write_layer(path: Path, layer: Layer, parent: bytes) -> Path:
    """`parent`: its locator."""
    blocks = -(-layer.size // BLOCK)
    chunks = -(-blocks // RATIO)
    table = [0] * (chunks * (RATIO + 1))
    table_at = 3 * MIB
    end = table_at + -(-8 * len(table) // MIB) * MIB
    identity = sha256(str(path).encode()).digest()[:16]
    partly = {sector * SECTOR // BLOCK for sector in layer.sectors}
    with path.open("wb") as file:

        def put(at: int, data: bytes) -> None:
            file.seek(at)
            file.write(data)

        put(0, IDENTIFIER)
        for number, at in enumerate(HEADERS_AT):
            put(at, Header(number + 1, identity, identity).pack())
        regions = {TABLE_REGION: Region(table_at, end - table_at, 1), METADATA_REGION: Region(2 * MIB, MIB, 1)}
        for at in REGIONS_AT:
            put(at, pack_regions(regions))
        items = [
            (FILE_PARAMETERS, struct.pack("<II", BLOCK, 2), 4),
            (DISK_SIZE, struct.pack("<Q", layer.size), 6),
            (DISK_ID, identity, 6),
            (LOGICAL_SECTOR_SIZE, struct.pack("<I", SECTOR), 6),
            (PHYSICAL_SECTOR_SIZE, struct.pack("<I", 4096), 6),
            (PARENT_LOCATOR, parent, 4),
        ]
        put(2 * MIB, pack_metadata(items))
        bitmaps = {}
        for chunk in sorted({block // RATIO for block in partly}):
            bitmaps[chunk] = end
            table[chunk * (RATIO + 1) + RATIO] = end | WHOLE
            end += MIB
        for block in sorted({*layer.whole, *partly}):
            table[block + block // RATIO] = end | (WHOLE if block in layer.whole else PARTLY)
            put(end, layer.whole.get(block, b""))
            bits = bytearray(BLOCK // SECTOR // 8)
            for sector in range(BLOCK // SECTOR):
                data = layer.sectors.get(block * BLOCK // SECTOR + sector)
                if data is not None:
                    put(end + sector * SECTOR, data)
                    bits[sector // 8] |= 1 << sector % 8
            if block in partly:
                put(bitmaps[block // RATIO] + block % RATIO * len(bits), bits)
            end += BLOCK
        for block, state in layer.empty.items():
            table[block + block // RATIO] = state
        put(table_at, struct.pack(f"<{len(table)}Q", *table))
        file.truncate(end)
    return path
