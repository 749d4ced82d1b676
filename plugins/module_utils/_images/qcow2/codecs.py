# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How clusters of a qcow2 image are compressed: "Compressed Clusters Descriptor" and "compression_type" in
https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from threading import local
from typing import Any, Mapping, Optional, Type

from ..._errors import VmferryError
from .format import CLUSTER

LARGEST = CLUSTER - CLUSTER // 8  # bytes; what saves less is read faster as it is
_ZLIB_WINDOW = -12  # raw deflate over 4 KiB, which is all that QEMU gives it
_NO_ZSTD = (
    "The Python package zstandard is not installed on this host.",
    "Install it with pip, or choose compression: zlib.",
)


class Codec(ABC):
    """Of one image; thread-safe. `kind` is the header's compression_type."""

    kind: int
    levels: range
    usual: int

    @abstractmethod
    def __init__(self, level: int) -> None: ...

    @abstractmethod
    def pack(self, leaf: memoryview) -> Optional[bytes]:
        """None where that saves too little."""

    @abstractmethod
    def unpack(self, data: memoryview) -> Optional[bytes]:
        """A whole cluster, out of its compressed bytes and whatever follows them; None where it is none."""


class Zlib(Codec):
    kind = 0
    levels = range(1, 10)
    usual = 6

    def __init__(self, level: int) -> None:
        self._level = level

    def pack(self, leaf: memoryview) -> Optional[bytes]:
        stream = zlib.compressobj(self._level, zlib.DEFLATED, _ZLIB_WINDOW)
        packed = stream.compress(leaf) + stream.flush()
        return packed if len(packed) <= LARGEST else None

    def unpack(self, data: memoryview) -> Optional[bytes]:
        try:
            found = zlib.decompressobj(_ZLIB_WINDOW).decompress(data, CLUSTER)
        except zlib.error:
            return None
        return found if len(found) == CLUSTER else None


class Zstd(Codec):
    """https://www.rfc-editor.org/rfc/rfc8878, a frame for each cluster."""

    kind = 1
    levels = range(1, 20)
    usual = 1

    def __init__(self, level: int) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise VmferryError("unsupported", *_NO_ZSTD) from error
        self._zstandard, self._level = zstandard, level
        self._own = local()  # a context is for one thread

    def _context(self, name: str, **options: Any) -> Any:
        found = getattr(self._own, name, None)
        if found is None:
            found = getattr(self._zstandard, name)(**options)
            setattr(self._own, name, found)
        return found

    def pack(self, leaf: memoryview) -> Optional[bytes]:
        packed: bytes = self._context("ZstdCompressor", level=self._level).compress(leaf)
        return packed if len(packed) <= LARGEST else None

    def unpack(self, data: memoryview) -> Optional[bytes]:
        try:
            # The library takes the frame's word for how much memory to get.
            if self._zstandard.frame_content_size(data) != CLUSTER:
                return None
            found: bytes = self._context("ZstdDecompressor").decompress(data, max_output_size=CLUSTER)
        except self._zstandard.ZstdError:
            return None
        return found if len(found) == CLUSTER else None


_CODECS: Mapping[str, Type[Codec]] = {"zlib": Zlib, "zstd": Zstd}


def codec_named(name: str, level: Optional[int] = None) -> Codec:
    """`level`: as the library counts, None for the usual one. Raises `invalid_config` for one that it has not."""
    kind = _CODECS[name]
    if level is not None and level not in kind.levels:
        raise VmferryError(
            "invalid_config",
            f"compression_level is {level}; {name} has levels from {kind.levels[0]} to {kind.levels[-1]}.",
        )
    return kind(kind.usual if level is None else level)


def codec_of(compression_type: int) -> Optional[Codec]:
    """That reads what an image of this type holds; None for a type that is not known."""
    return next((kind(kind.usual) for kind in _CODECS.values() if kind.kind == compression_type), None)
