# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CRC-32C of the few kilobytes that are a VHDX's headers: https://www.rfc-editor.org/rfc/rfc9260#appendix-A.

Two hundred times slower than a library, which a host would have to have for them alone.
"""

from __future__ import annotations

from typing import Tuple, Union

from .._crc import CRC32C, behind_zeros


def _row(byte: int) -> int:
    for _unused in range(8):
        byte = byte >> 1 ^ (CRC32C if byte & 1 else 0)
    return byte


_TABLE: Tuple[int, ...] = tuple(map(_row, range(256)))


def crc32c(data: Union[bytes, bytearray, memoryview]) -> int:
    """Zeros at the end, which most of a table is, take no time."""
    whole = bytes(data)
    used = whole.rstrip(b"\0")
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in used:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return behind_zeros(CRC32C, crc, len(whole) - len(used)) ^ 0xFFFFFFFF
