# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proofs of an object that is written in order with gaps, and of which no part is gathered in memory: what lies
around a gap is kept in blocks of 64 KiB until that is filled, and of all else the digests alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Dict, List, Tuple

from .._blocks import LEAF, Part
from .._errors import VmferryError
from .part_sizes import PartSizes


@dataclass
class _Block:
    data: bytearray
    used: int = 0
    missing: int = 0  # of the used bytes, those of gaps


class GappedProof:
    """For one thread at a time."""

    def __init__(self, sizes: PartSizes) -> None:
        self._sizes = sizes
        self._size = 0
        self._last = _Block(bytearray(LEAF))
        self._waiting: Dict[int, _Block] = {}  # full, but for gaps, by number
        self._digests: Dict[int, Dict[int, bytes]] = {}  # of the parts that are not proven, by block
        self._proven: Dict[int, bytes] = {}  # by the number of the part

    def write(self, data: memoryview) -> None:
        at = 0
        while at < len(data):
            count = min(len(data) - at, LEAF - self._last.used)
            self._last.data[self._last.used : self._last.used + count] = data[at : at + count]
            self._advance(count)
            at += count

    def reserve(self, size: int) -> None:
        while size:
            count = min(size, LEAF - self._last.used)
            self._last.missing += count
            self._advance(count)
            size -= count

    def fill(self, offset: int, data: bytes) -> None:
        """What was reserved, once."""
        at = 0
        while at < len(data):
            number, start = divmod(offset + at, LEAF)
            count = min(len(data) - at, LEAF - start)
            block = self._waiting.get(number, self._last)
            block.data[start : start + count] = data[at : at + count]
            block.missing -= count
            if number in self._waiting and not block.missing:
                self._digest(number, self._waiting.pop(number))
            at += count

    def finish(self) -> List[Tuple[Part, bytes]]:
        """Each part with the SHA-256 over those of its blocks, in order."""
        if self._last.used:
            if self._last.missing or self._waiting:
                raise VmferryError("internal", "An object was to be proven before its gaps were filled.")
            self._digest(self._size // LEAF, self._last)
        found = []
        for number in sorted({*self._proven, *self._digests}):
            part = self._sizes.part(number)
            size = min(part.size, self._size - part.offset)
            proof = self._proven.get(number) or _proof(self._digests[number])
            found.append((Part(number, part.offset, size), proof))
        return found

    def _advance(self, count: int) -> None:
        self._last.used += count
        self._size += count
        if self._last.used < LEAF:
            return
        number, block = self._size // LEAF - 1, self._last
        if block.missing:
            self._waiting[number], self._last = block, _Block(bytearray(LEAF))
        else:
            self._digest(number, block)
            block.used = 0

    def _digest(self, number: int, block: _Block) -> None:
        part = self._sizes.number_at(number * LEAF)
        digests = self._digests.setdefault(part, {})
        digests[number] = sha256(memoryview(block.data)[: block.used]).digest()
        if len(digests) * LEAF == self._sizes.part(part).size:
            self._proven[part] = _proof(self._digests.pop(part))


def _proof(digests: Dict[int, bytes]) -> bytes:
    return sha256(b"".join(digest for _number, digest in sorted(digests.items()))).digest()
