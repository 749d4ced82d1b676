# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cyclic redundancy checks of what is joined, from those of its runs. Imports nothing of ours.

The arithmetic is that of polynomials over GF(2) modulo the check's own, with the bits of a number reflected:
https://www.rfc-editor.org/rfc/rfc9260#appendix-A, and crc32_combine in https://www.zlib.net/manual.html#Checksum, which
Python's zlib does not have.
"""

from __future__ import annotations

from functools import lru_cache

CRC32, CRC32C = 0xEDB88320, 0x82F63B78  # their polynomials, the highest coefficient in the lowest bit
_ONE, _EIGHTH_POWER = 1 << 31, 1 << 23  # of x


def joined(polynomial: int, first: int, second: int, length: int) -> int:
    """Of two runs of bytes, one behind the other: `length` is that of the second."""
    return behind_zeros(polynomial, first, length) ^ second


def behind_zeros(polynomial: int, register: int, count: int) -> int:
    """What a register becomes as so many bytes of zeros come behind: each multiplies it by x^8."""
    return _product(polynomial, _power(polynomial, count), register)


@lru_cache(maxsize=256)  # of one object, all parts but two have the same size
def _power(polynomial: int, count: int) -> int:
    """x^8 to the power of `count`."""
    found, square = _ONE, _EIGHTH_POWER
    while count:
        if count & 1:
            found = _product(polynomial, found, square)
        square = _product(polynomial, square, square)
        count >>= 1
    return found


def _product(polynomial: int, first: int, second: int) -> int:
    found = 0
    for bit in range(31, -1, -1):
        if first >> bit & 1:
            found ^= second
        second = second >> 1 ^ (polynomial if second & 1 else 0)
    return found
