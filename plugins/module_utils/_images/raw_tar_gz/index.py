# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a gzip file can be entered: empty members behind the one with the data tell it in their extra fields.

They unpack to nothing, so no reader has to know of them. The last one, of a known length, is the locator.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from dataclasses import dataclass
from itertools import accumulate
from typing import Iterator, Optional, Union

from ..._blocks import LEAF
from .deflate import LAST_BLOCK

GROUP_LEAVES = 8  # that are entered at the first of them: 16 bytes of memory for each MiB of data
GROUP = GROUP_LEAVES * LEAF
_START = b"\x1f\x8b\x08\4" + bytes(5) + b"\xff"  # with extra fields
_EXTRA = struct.Struct("<H2sH")  # bytes of all fields, then the only one: its name, and its bytes
_NAME = b"VF"
_END = LAST_BLOCK + bytes(8)
_AROUND = len(_START) + _EXTRA.size + len(_END)
_LENGTHS = 16000  # in one member; a field has room for 64 KiB
_LOCATOR, _LOCATOR_NAME = struct.Struct("<8sQQQI"), b"vmferry1"
LOCATOR_SIZE = _AROUND + _LOCATOR.size


def packed_index(lengths: array[int], first: int, place: int) -> Iterator[bytes]:
    """`lengths`: bytes of each group; `first`: where the first one lies in the file; `place`: where the index will."""
    words = _little_endian(lengths)
    for at in range(0, len(words), 4 * _LENGTHS):
        yield _member(words[at : at + 4 * _LENGTHS])
    yield _member(_LOCATOR.pack(_LOCATOR_NAME, first, len(lengths), place, zlib.crc32(words)))


def index_bound(groups: int) -> int:
    return 4 * groups + (groups // _LENGTHS + 1) * _AROUND + LOCATOR_SIZE


@dataclass(frozen=True)
class Locator:
    """`first`: where the first of `groups` lies; `place`: where the index does."""

    first: int
    groups: int
    place: int
    crc: int  # of the lengths

    @classmethod
    def unpack(cls, data: bytes) -> Optional[Locator]:
        """Of the end of a file. None where it has none."""
        found = _payload(data, _LOCATOR.size)
        if found is None or not found.startswith(_LOCATOR_NAME):
            return None
        return cls(*_LOCATOR.unpack(found)[1:])

    @property
    def index_size(self) -> int:
        return 4 * self.groups + -(-self.groups // _LENGTHS) * _AROUND

    def starts(self, index: Union[bytes, bytearray]) -> Optional[array[int]]:
        """Where each group lies in the file, and where the last one ends. None where `index` is none."""
        view, at = memoryview(index), 0
        words = bytearray()
        for left in range(self.groups, 0, -_LENGTHS):
            size = 4 * min(left, _LENGTHS)
            found = _payload(bytes(view[at : at + size + _AROUND]), size)
            if found is None:
                return None
            words += found
            at += size + _AROUND
        if zlib.crc32(words) != self.crc:
            return None
        return array("Q", accumulate(_from_little_endian(words), initial=self.first))


def _member(payload: bytes) -> bytes:
    return _START + _EXTRA.pack(len(payload) + 4, _NAME, len(payload)) + payload + _END


def _payload(data: bytes, size: int) -> Optional[bytes]:
    """Of the member that `data` begins with."""
    at = len(_START) + _EXTRA.size
    found = data[at : at + size]
    return found if data[: at + size + len(_END)] == _member(found) and len(found) == size else None


def _little_endian(words: array[int]) -> bytes:
    if sys.byteorder == "big":
        words = words[:]
        words.byteswap()
    return words.tobytes()


def _from_little_endian(data: Union[bytes, bytearray]) -> array[int]:
    words = array("I", bytes(data))
    if sys.byteorder == "big":
        words.byteswap()
    return words
