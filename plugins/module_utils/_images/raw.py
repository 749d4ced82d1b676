# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Raw images: the disk itself, byte for byte; zeros are holes where the store has any."""

from __future__ import annotations

from typing import Callable, Iterator, Sequence

from .._blocks import LEAF, Extent, ImageOutput, Piece
from .._errors import VmferryError


class RawWriter:
    """Plays ImageWriter."""

    head_size = 0
    codec = None
    encrypts = False

    def __init__(self, size: int, output: ImageOutput) -> None:
        self.size_bound = self._size = size
        self._output, self._at = output, 0

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        self._hole_until(offset)
        whole = min(len(run), (self._size - offset) // LEAF * LEAF)
        if whole:
            self._output.emit(run[:whole], digests[: whole // LEAF])
        if whole < len(run):  # the last leaf, padded: the file ends where the disk does
            self._output.emit(run[whole : self._size - offset])
        self._at = min(offset + len(run), self._size)

    def zero(self, offset: int, length: int) -> None:
        """Nothing to do now: the next data, or the end, says how long the hole was."""

    def finish(self) -> None:
        self._hole_until(self._size)

    def head(self) -> bytes:
        return b""

    def _hole_until(self, offset: int) -> None:
        if offset > self._at:
            self._output.hole(offset - self._at)
            self._at = offset


class RawReader:
    """Plays BlockSource over ranged reads of a stored file."""

    def __init__(
        self,
        read_at: Callable[[int, memoryview], None],
        size: int,
        extents: Callable[[int], Iterator[Extent]] | None = None,
    ) -> None:
        """`extents(size)` tells holes from data where the store can; without it, all of it is read."""
        self._read_at, self.size, self._extents = read_at, size, extents

    def extents(self) -> Iterator[Extent]:
        if self._extents is not None:
            yield from self._extents(self.size)
        elif self.size:
            yield Extent(0, self.size, "data")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for offset, buffer in pieces:
            if offset < 0 or offset + len(buffer) > self.size:
                raise VmferryError("internal", "A raw image was asked for bytes beyond its disk.")
            if buffer:
                self._read_at(offset, buffer)

    def close(self) -> None:
        """Nothing is held."""
