# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By which firmware a disk boots, as far as its first sectors tell: "UEFI Specification", chapter 5,
https://uefi.org/specs/UEFI/2.10/05_GUID_Partition_Table_Format.html

Nothing is followed or mounted: a few kilobytes are looked at, whatever stands in them.
"""

from __future__ import annotations

import struct
from typing import FrozenSet, Literal
from uuid import UUID

from .._blocks import BlockSource

Boots = Literal["uefi", "bios", ""]

_SECTORS = (512, 4096)
_HEADER = struct.Struct("<8s16x16x16s16xQIII")  # signature ... the entries' place, how many, how long each
_MOST_ENTRIES, _LONGEST_ENTRY = 128, 128  # what every tool makes; more of them are not looked at
_EFI_SYSTEM = UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B").bytes_le
_BIOS_BOOT = UUID("21686148-6449-6E6F-744E-656564454649").bytes_le  # GRUB's, for whoever starts it without UEFI
_SIGNATURE_AT, _SIGNATURE = 510, b"\x55\xaa"


def boots_by(disk: BlockSource) -> Boots:
    """`uefi` where there is an EFI system partition in a GPT and nothing for a BIOS, `bios` where there is another boot
    sector, empty where there is none.
    """
    for sector in _SECTORS:
        kinds = _kinds(disk, sector)
        if _EFI_SYSTEM in kinds and _BIOS_BOOT not in kinds:
            return "uefi"
    return "bios" if _read(disk, _SIGNATURE_AT, len(_SIGNATURE)) == _SIGNATURE else ""


def _kinds(disk: BlockSource, sector: int) -> FrozenSet[bytes]:
    """Of the partitions in a GPT."""
    header = _read(disk, sector, _HEADER.size)
    if len(header) < _HEADER.size:
        return frozenset()
    signature, _disk, at, count, length, _sum = _HEADER.unpack(header)
    if signature != b"EFI PART" or length < 16 or length > _LONGEST_ENTRY:
        return frozenset()
    entries = _read(disk, at * sector, min(count, _MOST_ENTRIES) * length)
    return frozenset(entries[place : place + 16] for place in range(0, len(entries) - 15, length))


def _read(disk: BlockSource, offset: int, length: int) -> bytes:
    """As much of it as lies on the disk."""
    data = bytearray(max(0, min(length, disk.size - offset)))
    if data:
        disk.read_into([(offset, memoryview(data))])
    return bytes(data)
