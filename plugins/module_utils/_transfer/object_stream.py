# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stream of bytes into an object of unknown length, part by part: a digest file may be gigabytes."""

from __future__ import annotations

from hashlib import sha256

from .._blocks import LEAF, Part, PartReceipt, PartWriter
from .parts import PART


class ObjectStream:
    """Holds one part. Used by one thread at a time."""

    def __init__(self, store: PartWriter) -> None:
        self._store, self._buffer = store, bytearray()
        self._size, self._digest = 0, sha256()
        self._receipts: list[PartReceipt] = []

    def write(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= PART:
            self._send(PART)

    def finish(self) -> tuple[int, str]:
        """The object is complete: its size and its SHA-256 in hexadecimal."""
        if self._buffer:
            self._send(len(self._buffer))
        self._store.complete(self._receipts, self._size)
        return self._size, self._digest.hexdigest()

    def abort(self) -> None:
        self._store.abort()

    def _send(self, count: int) -> None:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        part = Part(len(self._receipts) + 1, self._size, count)
        self._digest.update(data)
        if self._store.any_offset:
            self._store.write_at(part.offset, memoryview(data))
            etag = ""
        else:
            etag = self._store.write_part(part, memoryview(data))
        blocks = b"".join(sha256(data[at : at + LEAF]).digest() for at in range(0, count, LEAF))
        self._receipts.append(PartReceipt(part, sha256(blocks).digest(), etag))
        self._size += count
