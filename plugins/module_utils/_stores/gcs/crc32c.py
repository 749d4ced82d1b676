# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CRC-32C, the one checksum that Cloud Storage knows of every object, and of the whole from those of its parts.

The arithmetic is that of polynomials over GF(2) modulo Castagnoli's, with the bits of a number reflected:
https://www.rfc-editor.org/rfc/rfc9260#appendix-A.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from functools import lru_cache

_POLYNOMIAL = 0x82F63B78
_ONE = 1 << 31  # x to the 0
_CHUNK = 256 * 1024  # bytes; the C library takes nothing but `bytes`, and a copy of this size stays in the cache


def crc32c(data: memoryview) -> int:
    import google_crc32c

    crc = 0
    for at in range(0, len(data), _CHUNK):
        crc = google_crc32c.extend(crc, bytes(data[at : at + _CHUNK]))
    return crc


def combined(first: int, second: int, second_size: int) -> int:
    """The checksum of two runs of bytes, one behind the other, from their own."""
    return _times(_shift(second_size), first) ^ second


def encoded(crc: int) -> str:
    """As the JSON API writes it: base64 of the big-endian number."""
    return b64encode(crc.to_bytes(4, "big")).decode()


def decoded(text: str) -> int | None:
    """None where that is no such checksum."""
    try:
        number = b64decode(text, validate=True)
    except ValueError:
        return None
    return int.from_bytes(number, "big") if len(number) == 4 else None


def _times(a: int, b: int) -> int:
    product, bit = 0, _ONE
    while bit:
        if a & bit:
            product ^= b
        b = (b >> 1) ^ (_POLYNOMIAL if b & 1 else 0)
        bit >>= 1
    return product


@lru_cache(maxsize=256)  # of one object, all parts but two have the same size
def _shift(nbytes: int) -> int:
    """x to the power of eight times that: what so many bytes behind a run do to its checksum."""
    shift, power = _ONE, 1 << 30
    nbits = 8 * nbytes
    while nbits:
        if nbits & 1:
            shift = _times(power, shift)
        power = _times(power, power)
        nbits >>= 1
    return shift
