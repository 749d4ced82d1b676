# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compressed archive (gzip, RFC 1952), read at any offset of what is in it, without unpacking it anywhere.

It is run through once, which tells how long it is and whether it is whole. On the way the state of the decompressor is
kept now and then; a read goes on from the nearest one in front of it. So what is read in about its order is unpacked
once more, and memory stays the same however long it is.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any, List

from .packages import ReadAt
from .refusals import not_supported, refused

BLOCK = 1 << 20  # bytes that are decompressed at a time
_KEPT_BLOCKS = 16
_MOST_STATES = 128  # each has 40 KiB or so
_FIRST_SPACING = 8  # blocks between two of them, until there are too many
_READ = 256 * 1024  # bytes of the file
_MOST_EMPTY = 1024
_GZIP = 31  # `wbits` of zlib: a header and a checksum as of gzip
MAX_RATIO = 200  # beyond the first gibibyte; an archive of disk images is far below, and a bomb at about 1000
_UNSUSPICIOUS = 1 << 30
_UNPACK = "Unpack it with gunzip, if you trust whoever made it, and import the .ova."


@dataclass
class _State:
    """Right before a block. `unpacker`: zlib's, which `copy` lets be used again. `ahead`: of the file, from `at` on."""

    block: int
    at: int  # of the next byte of the file
    unpacker: Any
    ahead: bytes = b""


class GzipReader:
    """Plays `ReadAt`, for any number of threads. `size`: bytes of what is in it."""

    def __init__(self, read_at: ReadAt, file_size: int, where: str) -> None:
        """Runs through all of it. Raises `invalid_config` for what is damaged, and `unsupported` for what gets out of
        proportion."""
        self._read_at, self._file_size, self._where = read_at, file_size, where
        self._lock = Lock()
        self._spacing = _FIRST_SPACING
        self._current = _State(0, 0, zlib.decompressobj(_GZIP))
        self._states: List[_State] = []
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self.size = 0
        while True:
            self._keep_state()
            data = self._next_block()
            self.size += len(data)
            if self.size > _UNSUSPICIOUS and self.size > MAX_RATIO * self._current.at:
                raise not_supported(where, f"unpacks to more than {MAX_RATIO} times its size", _UNPACK)
            if len(data) < BLOCK:
                break

    def __call__(self, offset: int, buffer: memoryview) -> None:
        if offset < 0 or offset + len(buffer) > self.size:
            raise refused(self._where, "ends before what it says it holds")
        done = 0
        with self._lock:
            while done < len(buffer):
                number, start = divmod(offset + done, BLOCK)
                data = memoryview(self._block(number))[start : start + len(buffer) - done]
                buffer[done : done + len(data)] = data
                done += len(data)

    def _block(self, number: int) -> bytes:
        found = self._blocks.get(number)
        if found is not None:
            self._blocks.move_to_end(number)
            return found
        if self._current.block > number or self._nearest(number).block > self._current.block:
            state = self._nearest(number)
            self._current = _State(state.block, state.at, state.unpacker.copy())
        while True:
            data = self._next_block()
            self._blocks[self._current.block - 1] = data
            if len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
            if self._current.block > number:
                return data

    def _nearest(self, number: int) -> _State:
        return max((state for state in self._states if state.block <= number), key=lambda state: state.block)

    def _keep_state(self) -> None:
        here = self._current
        if here.block % self._spacing:
            return
        self._states.append(_State(here.block, here.at, here.unpacker.copy()))
        if len(self._states) > _MOST_STATES:
            self._spacing *= 2
            self._states = [state for state in self._states if not state.block % self._spacing]

    def _next_block(self) -> bytes:
        """Shorter than one only at the end."""
        here, found, empty = self._current, bytearray(), 0
        while len(found) < BLOCK:
            if here.unpacker.eof:
                if self._is_at_end():
                    break
                here.unpacker = zlib.decompressobj(_GZIP)  # several in a row are one (RFC 1952, 2.2)
            here.ahead = here.ahead or self._read()
            try:
                more = here.unpacker.decompress(here.ahead, BLOCK - len(found))
            except zlib.error as error:
                raise refused(self._where, "is no gzip, or is damaged") from error
            if not here.ahead and not more and not here.unpacker.eof:
                raise refused(self._where, "ends before its end is marked: it is not whole")
            empty = empty + 1 if here.unpacker.eof and not more else 0
            if empty > _MOST_EMPTY:
                raise refused(self._where, "is made of pieces with nothing in them")
            found += more
            left = here.unpacker.unused_data if here.unpacker.eof else here.unpacker.unconsumed_tail
            here.at += len(here.ahead) - len(left)
            here.ahead = left
        here.block += 1
        return bytes(found)

    def _read(self) -> bytes:
        """What follows, or nothing at the end of the file."""
        data = bytearray(min(_READ, self._file_size - self._current.at))
        if data:
            self._read_at(self._current.at, memoryview(data))
        return bytes(data)

    def _is_at_end(self) -> bool:
        """Zeros behind the end are left there by tapes, and are nothing."""
        left = self._file_size - self._current.at
        if left > _READ:
            return False
        rest = bytearray(left)
        if rest:
            self._read_at(self._current.at, memoryview(rest))
        return not any(rest)
