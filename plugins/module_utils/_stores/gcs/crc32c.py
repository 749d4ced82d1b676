# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CRC-32C, the one checksum that Cloud Storage knows of every object, and of the whole from those of its parts."""

from __future__ import annotations

from base64 import b64decode, b64encode

from ..._crc import CRC32C, joined

_CHUNK = 256 * 1024  # bytes; the C library takes nothing but `bytes`, and a copy of this size stays in the cache


def crc32c(data: memoryview) -> int:
    import google_crc32c

    crc = 0
    for at in range(0, len(data), _CHUNK):
        crc = google_crc32c.extend(crc, bytes(data[at : at + _CHUNK]))
    return crc


def combined(first: int, second: int, second_size: int) -> int:
    """The checksum of two runs of bytes, one behind the other, from their own."""
    return joined(CRC32C, first, second, second_size)


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
