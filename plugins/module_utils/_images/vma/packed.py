# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stream that is packed as a whole, as vzdump packs archives: unpacked on the way, in bounded memory.

Whether it came to its end, whoever reads what is in it has to know.
"""

from __future__ import annotations

import zlib
from typing import Any, Callable

from ..._errors import VmferryError

Read = Callable[[int], bytes]  # as many bytes as there are, up to so many; none at the end
_GZIP, _ZSTD, _LZO = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x89LZO\0\r\n\x1a\n"
_PIECE = 1 << 17  # bytes that are read at once
_LARGEST_WINDOW = 1 << 27  # bytes of memory that zstd may ask for; `zstd -d` gives as many without being told


def unpacked(read: Read, where: str = "The stream") -> Read:
    """What is in it; what is not packed as it is. Raises `unsupported` for LZO and where a library is missing, then or
    later `invalid_config` for damage.
    """
    begun = _Begun(read)
    if begun.start.startswith(_GZIP):
        return _Gunzip(begun.read, where).read
    if begun.start.startswith(_ZSTD):
        return _Unzstd(begun, where).read
    if begun.start.startswith(_LZO):
        raise VmferryError("unsupported", f"{where} is packed with LZO.", "Unpack it first, with lzop -d.")
    return begun.read


class _Begun:
    """`start`: what was looked at already."""

    def __init__(self, read: Read) -> None:
        self._read, self.start = read, b""
        while len(self.start) < len(_LZO):
            more = read(len(_LZO) - len(self.start))
            if not more:
                break
            self.start += more

    def read(self, count: int) -> bytes:
        if not self.start:
            return self._read(count)
        found, self.start = self.start[:count], self.start[count:]
        return found


class _Gunzip:
    """Of one member or several, whose sums zlib checks."""

    def __init__(self, read: Read, where: str) -> None:
        self._read, self._where = read, where
        self._stream, self._taken = zlib.decompressobj(16 + zlib.MAX_WBITS), b""

    def read(self, count: int) -> bytes:
        found = b""
        while not found:
            self._taken = self._taken or self._read(_PIECE)
            if not self._taken:
                break
            if self._stream.eof:
                self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
            try:
                found = self._stream.decompress(self._taken, count)
            except zlib.error as error:
                raise _damaged(self._where) from error
            self._taken = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        return found


class _Unzstd:
    """Of one frame or several."""

    def __init__(self, source: _Begun, where: str) -> None:
        try:
            import zstandard
        except ImportError as error:
            text = "The Python package zstandard is not installed on this host."
            raise VmferryError("unsupported", text, f"Install it with pip, or unpack {where} first.") from error
        self._where, self._error = where, zstandard.ZstdError
        unpacker = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        stream: Any = source  # it wants no more of a file than to read it
        self._reader = unpacker.stream_reader(stream, read_size=_PIECE, read_across_frames=True)

    def read(self, count: int) -> bytes:
        try:
            found: bytes = self._reader.read(count)
        except self._error as error:
            raise _damaged(self._where) from error
        return found


def _damaged(where: str) -> VmferryError:
    text = f"{where} is damaged: it cannot be unpacked."
    return VmferryError("invalid_config", text, "Get it again from whoever has it.")
