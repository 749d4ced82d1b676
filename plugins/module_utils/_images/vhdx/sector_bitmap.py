# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sectors of a block are in a differencing VHDX itself: [MS-VHDX] 2.5.2, Sector Bitmap."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Tuple

from ..mapped import ReadAt

_BLOCKS_HELD = 256  # of at most 64 KiB each


class SectorBitmaps:
    """Thread-safe if `read_at` is."""

    def __init__(self, read_at: ReadAt, block: int, sector: int) -> None:
        self._read_at, self._sector, self._length = read_at, sector, block // sector // 8
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()

    def run(self, place: int, offset: int) -> Tuple[bool, int]:
        """Whether the byte at `offset` of a block is in this file, and for how many bytes that goes on. `place`: of the
        block's own bits in the file.
        """
        bits = self._bits(place)
        at = offset // self._sector
        is_here, count = _bit(bits, at), 8 * len(bits)
        same = 0xFF if is_here else 0
        while at < count and _bit(bits, at) == is_here:
            at += 8 if not at % 8 and bits[at // 8] == same else 1
        return is_here, at * self._sector - offset

    def _bits(self, place: int) -> bytes:
        with self._lock:
            bits = self._held.get(place)
            if bits is not None:
                self._held.move_to_end(place)
                return bits
        data = bytearray(self._length)
        self._read_at(place, memoryview(data))
        with self._lock:
            self._held[place] = bytes(data)
            while len(self._held) > _BLOCKS_HELD:
                self._held.popitem(last=False)
        return bytes(data)


def _bit(bits: bytes, number: int) -> bool:
    return bool(bits[number // 8] >> number % 8 & 1)
