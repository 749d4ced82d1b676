# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects as streams of bytes: written in order without knowing how long they get, and read in order."""

from __future__ import annotations

from hashlib import sha256
from typing import Callable

from .._blocks import LEAF, ObjectInfo, PartReceipt, PartWriter
from .part_sizes import PartRules, PartSizes

SMALL_PART = 256 * 1024  # bytes gathered before a write, where the store does not ask for more
READ_AHEAD = 1024 * 1024


class SequentialObject:
    """`write` as often as wanted, then `finish`: the object appears. Holds one part in memory. For one thread.

    `size` and `sha256` are of all that was written.
    """

    def __init__(self, parts: PartWriter, size_bound: int, rules: PartRules) -> None:
        self._parts = parts
        self._sizes = PartSizes.for_object(size_bound, 0, SMALL_PART, rules)
        self._gathered = bytearray()
        self._receipts: list[PartReceipt] = []
        self._sum = sha256()
        self.size = 0  # bytes

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self._sum.update(data)
        self._gathered += data
        while len(self._gathered) > (size := self._sizes.part(len(self._receipts) + 1).size):
            self._send(size)

    def finish(self) -> ObjectInfo:
        self._send(len(self._gathered))
        last = self._receipts[-1].part
        return self._parts.complete(self._receipts, last.offset + last.size)

    def abort(self) -> None:
        self._parts.abort()

    def _send(self, size: int) -> None:
        planned = self._sizes.part(len(self._receipts) + 1)
        part = type(planned)(planned.number, planned.offset, size)
        data = memoryview(bytes(self._gathered[:size]))
        etag = ""
        if self._parts.any_offset:
            self._parts.write_at(part.offset, data)
        else:
            etag = self._parts.write_part(part, data)
        proof = sha256(b"".join(sha256(data[at : at + LEAF]).digest() for at in range(0, size, LEAF)))
        self._receipts.append(PartReceipt(part, proof.digest(), etag))
        del self._gathered[:size]


class SequentialReader:
    """`read(n)` over a store's ranged reads, a mebibyte at a time. For one thread."""

    def __init__(self, read_into: Callable[[int, memoryview], object], size: int) -> None:
        """`read_into(offset, buffer)` fills the buffer or raises."""
        self._read_into, self._size = read_into, size
        self._at, self._ahead, self._used = 0, b"", 0

    def read(self, count: int) -> bytes:
        """At least one byte and at most `count`; none at the end."""
        if self._used == len(self._ahead):
            buffer = bytearray(min(READ_AHEAD, self._size - self._at))
            if not buffer:
                return b""
            self._read_into(self._at, memoryview(buffer))
            self._at += len(buffer)
            self._ahead, self._used = bytes(buffer), 0
        taken = self._ahead[self._used : self._used + count]
        self._used += len(taken)
        return taken
