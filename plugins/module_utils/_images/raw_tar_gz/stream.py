# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gzip file that anybody wrote, read from the middle: what was unpacked last is kept, and the state of the stream
at some places, so that it need not begin anew where somebody goes back.

Readers that go forwards together, as those of a transfer do, unpack each byte once. The sum of a member is compared
when its last byte was read, and not before: what was read until then may be anything.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, List

from ..._errors import VmferryError
from ..mapped import ReadAt

CHUNK = 1 << 20  # bytes that are unpacked at once
_KEPT = 32  # chunks
_PLACES = 64  # where the stream can be entered, of some 50 KiB each
_STEP = 32  # chunks between two of them, until there are too many
_PACKED = 1 << 18  # bytes in one request
_FED = 1 << 13  # bytes that zlib gets at once: it copies what is behind the end of a member
_MOST_MEMBERS = 4096  # for each chunk: of 256 bytes, where those that tools write are of 64 KiB
_MEMBER = b"\x1f\x8b\x08"
_WITH_HEADER = 16 + zlib.MAX_WBITS  # zlib compares the sums of a member at its end


@dataclass
class _Cursor:
    """In front of chunk `chunk`: `at` is where the file goes on behind what the stream has taken or keeps."""

    chunk: int
    at: int
    stream: Any
    taken: memoryview = field(default_factory=lambda: memoryview(b""))  # of the file, and not yet of the stream
    members: int = 1

    def copy(self) -> _Cursor:
        return replace(self, stream=self.stream.copy())


class GzipStream:
    """`read_at` of what is packed in a file; thread-safe. Raises `invalid_config` for what is no gzip file."""

    def __init__(self, read_at: ReadAt, file_size: int, where: str) -> None:
        self._read_at, self._file_size, self._where = read_at, file_size, where
        self._lock = Lock()
        self._chunks: OrderedDict[int, bytes] = OrderedDict()
        self._current = _Cursor(0, 0, zlib.decompressobj(_WITH_HEADER))
        self._places: List[_Cursor] = [self._current.copy()]
        self._step = _STEP

    def read_into(self, offset: int, buffer: memoryview) -> None:
        while buffer:
            number, skip = divmod(offset, CHUNK)
            found = memoryview(self._chunk(number))[skip : skip + len(buffer)]
            if not found:
                raise self._lie("ends early")
            buffer[: len(found)] = found
            offset, buffer = offset + len(found), buffer[len(found) :]

    def read_to_end(self, most: int) -> None:
        """From where somebody was last, so that the sums of all members were compared. Raises `invalid_config` for
        those, too, and where more than `most` bytes are in the file.
        """
        with self._lock:
            while len(self._next()) == CHUNK:
                if self._current.chunk * CHUNK > most:
                    raise self._lie("goes on behind its end")

    def _chunk(self, number: int) -> bytes:
        """The end of the stream may be in it."""
        with self._lock:
            found = self._chunks.get(number)
            if found is not None:
                self._chunks.move_to_end(number)
                return found
            nearest = self._places[bisect_right([place.chunk for place in self._places], number) - 1]
            if not nearest.chunk <= self._current.chunk <= number:
                self._current = nearest.copy()
            try:
                while self._current.chunk < number and len(self._next()) == CHUNK:
                    pass
                return self._next() if self._current.chunk == number else b""
            except BaseException:
                self._current = self._places[0].copy()  # what it had taken is lost
                raise

    def _next(self) -> bytes:
        cursor = self._current
        data = self._unpacked(cursor, CHUNK)
        self._chunks[cursor.chunk] = data
        if len(self._chunks) > _KEPT:
            self._chunks.popitem(last=False)
        cursor.chunk += 1
        if cursor.chunk >= self._places[-1].chunk + self._step and len(data) == CHUNK:
            self._places.append(cursor.copy())
            if len(self._places) > _PLACES:
                self._places, self._step = self._places[::2], 2 * self._step
        return data

    def _unpacked(self, cursor: _Cursor, count: int) -> bytes:
        pieces, left = [], count
        while left:
            if cursor.stream.eof and not self._enter_next(cursor):
                break
            if not cursor.taken:
                cursor.taken = self._packed(cursor)
                if not cursor.taken:
                    raise self._lie("ends early")
            fed = cursor.taken[:_FED]
            try:
                piece = cursor.stream.decompress(fed, left)
            except zlib.error as error:
                raise self._lie("is damaged: it cannot be unpacked") from error
            rest = cursor.stream.unused_data if cursor.stream.eof else cursor.stream.unconsumed_tail
            cursor.taken = cursor.taken[len(fed) - len(rest) :]
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _enter_next(self, cursor: _Cursor) -> bool:
        """The member behind the one that ends here. Zeros up to the end of the file are what tapes need."""
        while len(cursor.taken) < len(_MEMBER):
            more = self._packed(cursor)
            if not more:
                break
            cursor.taken = memoryview(bytes(cursor.taken) + more)
        if cursor.taken[: len(_MEMBER)] == _MEMBER:
            cursor.stream, cursor.members = zlib.decompressobj(_WITH_HEADER), cursor.members + 1
            if cursor.members > _MOST_MEMBERS * (cursor.chunk + 1):
                raise self._lie(f"is of {cursor.members} members and more, which next to nothing is in")
            return True
        if bytes(cursor.taken).strip(b"\0"):
            raise self._lie("goes on behind its end")
        return False

    def _packed(self, cursor: _Cursor) -> memoryview:
        data = bytearray(min(_PACKED, self._file_size - cursor.at))
        if data:
            self._read_at(cursor.at, memoryview(data))
        cursor.at += len(data)
        return memoryview(data)

    def _lie(self, what: str) -> VmferryError:
        return VmferryError("invalid_config", f"{self._where} {what}.", "It was damaged, or it is of another kind.")
