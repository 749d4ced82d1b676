# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CRC-32C of the few kilobytes that are a VHDX's headers: https://www.rfc-editor.org/rfc/rfc9260#appendix-A.

Two hundred times slower than a library, which a host would have to have for them alone.
"""

from __future__ import annotations

from typing import Tuple, Union

_POLYNOMIAL = 0x82F63B78
_EIGHTH_POWER = 1 << 23  # of x


def _row(byte: int) -> int:
    for _unused in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE: Tuple[int, ...] = tuple(map(_row, range(256)))


def crc32c(data: Union[bytes, bytearray, memoryview]) -> int:
    """Zeros at the end, which most of a table is, take no time."""
    whole = bytes(data)
    used = whole.rstrip(b"\0")
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in used:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return _behind_zeros(crc, len(whole) - len(used)) ^ 0xFFFFFFFF


def _behind_zeros(crc: int, count: int) -> int:
    """Each byte of zeros multiplies what is in front of it by x^8."""
    power = _EIGHTH_POWER
    while count:
        if count & 1:
            crc = _product(power, crc)
        power = _product(power, power)
        count >>= 1
    return crc


def _product(first: int, second: int) -> int:
    """Of two polynomials, each with its highest coefficient in its lowest bit, modulo that of the sum."""
    found = 0
    for bit in range(31, -1, -1):
        if first >> bit & 1:
            found ^= second
        second = second >> 1 ^ (_POLYNOMIAL if second & 1 else 0)
    return found
