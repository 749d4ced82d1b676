# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stream that is packed as a whole, as vzdump packs archives: unpacked on the way, in bounded memory.

The sums that gzip and zstd keep are compared, and the end of the stream is told from one that broke off.
"""

from __future__ import annotations

import zlib
from typing import Any, Callable, Type

from ..._errors import VmferryError

Read = Callable[[int], bytes]  # as many bytes as there are, up to so many; none at the end
_GZIP, _ZSTD, _LZO = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x89LZO\0\r\n\x1a\n"
_PIECE = 1 << 17  # bytes that are read at once
_FED = 1 << 11  # bytes that a library gets at once: what is left of them is copied
_FED_ZSTD = 1 << 8  # bytes: it unpacks all that it gets, and they make at most 8 MiB
_UNSUSPICIOUS, _EXPANSION = 1 << 30, 200  # bytes that anything may unpack to, and how many each byte beyond may
_LARGEST_WINDOW = 1 << 27  # bytes of memory that zstd may ask for; `zstd -d` gives as many without being told


def unpacked(read: Read, where: str = "The stream") -> Read:
    """What is in it; what is not packed as it is. Raises `unsupported` for LZO, where a library is missing and for what
    gets out of proportion, then or later `invalid_config` for damage.
    """
    begun = _Begun(read)
    if begun.start.startswith(_GZIP):
        return _gunzip(begun.read, where).read
    if begun.start.startswith(_ZSTD):
        return _unzstd(begun.read, where).read
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


class _Unpacker:
    """Of one member or several, one behind the other. `begin`: what unpacks one of them."""

    def __init__(self, read: Read, where: str, begin: Callable[[], Any], error: Type[Exception]) -> None:
        self._read, self._where, self._begin, self._error = read, where, begin, error
        self._stream = begin()
        self._taken, self._ready = memoryview(b""), memoryview(b"")
        self._packed = self._unpacked = 0  # bytes

    def read(self, count: int) -> bytes:
        while not self._ready:
            if not self._taken:
                self._taken = memoryview(self._read(_PIECE))
                self._packed += len(self._taken)
            if not self._taken:
                if not self._stream.eof:
                    raise _damaged(self._where, "breaks off: it is not whole")
                return b""
            self._ready = memoryview(self._step(count))
            self._unpacked += len(self._ready)
            if self._unpacked > max(_UNSUSPICIOUS, _EXPANSION * self._packed):
                text = f"{self._where} unpacks to more than {_EXPANSION} times its size."
                raise VmferryError("unsupported", text, "Unpack it first, if you trust whoever made it.")
        found, self._ready = bytes(self._ready[:count]), self._ready[count:]
        return found

    def _step(self, count: int) -> bytes:
        if self._stream.eof:
            self._stream = self._begin()
        fed = self._taken[:_FED]
        try:
            found: bytes = self._stream.decompress(fed, count)
        except self._error as error:
            raise _damaged(self._where, "is damaged: it cannot be unpacked") from error
        rest = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        self._taken = self._taken[len(fed) - len(rest) :]
        return found


def _gunzip(read: Read, where: str) -> _Unpacker:
    return _Unpacker(read, where, lambda: zlib.decompressobj(16 + zlib.MAX_WBITS), zlib.error)


def _unzstd(read: Read, where: str) -> _Unpacker:
    try:
        import zstandard
    except ImportError as error:
        text = "The Python package zstandard is not installed on this host."
        raise VmferryError("unsupported", text, f"Install it with pip, or unpack {where} first.") from error
    if not hasattr(zstandard.ZstdDecompressor().decompressobj(), "unused_data"):
        text = f"The Python package zstandard of this host is too old ({zstandard.__version__})."
        raise VmferryError("unsupported", text, f"Install 0.19 or later, or unpack {where} first.")
    unpacker = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    return _Unpacker(read, where, lambda: _Frame(unpacker.decompressobj()), zstandard.ZstdError)


class _Frame:
    """One of zstd, in the words of zlib."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.unconsumed_tail = b""

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._frame.unused_data) + self.unconsumed_tail

    def decompress(self, data: memoryview, _count: int) -> bytes:
        found, at = b"", 0
        while at < len(data) and len(found) < _PIECE and not self._frame.eof:
            found += self._frame.decompress(data[at : at + _FED_ZSTD])
            at += _FED_ZSTD
        self.unconsumed_tail = bytes(data[at:])
        return found


def _damaged(where: str, how: str) -> VmferryError:
    return VmferryError("invalid_config", f"{where} {how}.", "Get it again from whoever has it.")
