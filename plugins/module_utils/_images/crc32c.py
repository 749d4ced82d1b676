# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CRC-32C of the few kilobytes that are a VHDX's headers: https://www.rfc-editor.org/rfc/rfc9260#appendix-A.

Two hundred times slower than a library, which a host would have to have for them alone.
"""

from __future__ import annotations

from typing import Tuple, Union

_POLYNOMIAL = 0x82F63B78


def _row(byte: int) -> int:
    for _unused in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE: Tuple[int, ...] = tuple(map(_row, range(256)))


def crc32c(data: Union[bytes, bytearray, memoryview]) -> int:
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
