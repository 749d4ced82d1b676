# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gzip file (RFC 1952) of blocks that are stored as they are (RFC 1951, 3.2.4), all but the last of one length: where
each byte of what is in it lies is known without reading it. The disks of an appliance are compressed already, so that
nothing is lost by that.

An extra field in its header, which other readers pass over, says that it is one.
"""

from __future__ import annotations

import struct
from typing import Iterator

from .packages import ReadAt
from .refusals import refused

BLOCK = 127 * 512  # bytes of data: the most that has room in a stored block, in whole blocks of a tar archive
_BLOCK_START = struct.pack("<BHH", 0, BLOCK, BLOCK ^ 0xFFFF)
_LAST_BLOCK = struct.pack("<BHH", 1, 0, 0xFFFF)  # an empty one
_FIELD = struct.pack("<2sHI", b"vf", 4, BLOCK)
_EXTRA = 4  # the flag of a header with extra fields
_UNKNOWN_SYSTEM = 255
START = struct.pack("<HBBIBBH", 0x8B1F, 8, _EXTRA, 0, 0, _UNKNOWN_SYSTEM, len(_FIELD)) + _FIELD
_SUMS = struct.Struct("<II")  # CRC-32, and size modulo 2^32
_END = len(_LAST_BLOCK) + _SUMS.size
_FRAME = len(_BLOCK_START) + BLOCK
_AT_ONCE = 16  # blocks


def padding(size: int) -> int:
    """Bytes of zeros behind so many, which make them whole blocks."""
    return -size % BLOCK


def framed(offset: int, data: memoryview) -> Iterator[bytes | memoryview]:
    """What stands in the file for these bytes from `offset` on of what is in it."""
    while data:
        into = offset % BLOCK
        piece, data = data[: BLOCK - into], data[BLOCK - into :]
        yield piece if into else _BLOCK_START + piece
        offset += len(piece)


def framed_size(offset: int, size: int) -> int:
    """Bytes of what `framed` makes of so many."""
    starts = -(-(offset + size) // BLOCK) - -(-offset // BLOCK)
    return size + starts * len(_BLOCK_START)


def file_bound(size: int) -> int:
    """Bytes of the file for so many at the most."""
    return len(START) + framed_size(0, size + padding(size)) + _END


def file_end(crc: int, size: int) -> bytes:
    """Behind the last block. `crc`: the CRC-32 of all `size` bytes in it."""
    return _LAST_BLOCK + _SUMS.pack(crc, size & 0xFFFFFFFF)


def is_stored(read_at: ReadAt, file_size: int) -> bool:
    """Whether the file says that it is one. Nothing but its header is read."""
    if file_size < len(START) + _END:
        return False
    start = bytearray(len(START))
    read_at(0, memoryview(start))
    return bytes(start) == START


class StoredGzip:
    """Plays `ReadAt`, for any number of threads. `size`: bytes of what is in it.

    The header of each block is looked at with the block, so that what is read is what others unpack there.
    """

    def __init__(self, read_at: ReadAt, file_size: int, where: str) -> None:
        """Reads the first bytes and the last. Raises `invalid_config` for what is not whole."""
        self._read_at, self._where = read_at, where
        blocks, rest = divmod(file_size - len(START) - _END, _FRAME)
        self.size = blocks * BLOCK
        end = bytearray(_END)
        if not rest and is_stored(read_at, file_size):
            read_at(file_size - _END, memoryview(end))
        if end[: len(_LAST_BLOCK)] != _LAST_BLOCK or _SUMS.unpack_from(end, len(_LAST_BLOCK))[1] != self.size % 2**32:
            raise refused(where, "is not whole, or is damaged")

    def __call__(self, offset: int, buffer: memoryview) -> None:
        if offset < 0 or offset + len(buffer) > self.size:
            raise refused(self._where, "ends before what it says it holds")
        while buffer:
            first, into = divmod(offset, BLOCK)
            count = min(len(buffer), _AT_ONCE * BLOCK - into)
            self._read(first, into, buffer[:count])
            buffer, offset = buffer[count:], offset + count

    def _read(self, first: int, into: int, buffer: memoryview) -> None:
        """From a byte of the block `first` on, up to some block's end."""
        frames = bytearray(framed_size(0, into + len(buffer)))
        self._read_at(len(START) + first * _FRAME, memoryview(frames))
        done, view = 0, memoryview(frames)
        for at in range(0, len(frames), _FRAME):
            if view[at : at + len(_BLOCK_START)] != _BLOCK_START:
                raise refused(self._where, "is damaged")
            piece = view[at + len(_BLOCK_START) + (0 if at else into) : at + _FRAME]
            buffer[done : done + len(piece)] = piece
            done += len(piece)
