# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images on images, as one disk."""

from __future__ import annotations

from typing import Iterator, Optional, Sequence

from .._blocks import BlockSource, Extent, Piece
from .._errors import VmferryError


class Layers:
    """Plays BlockSource: an image over what it stands on, each of whose extents is somebody's own.

    The image reads through to its backing source by itself; only the map of the whole has to be put together.
    """

    def __init__(self, top: BlockSource, below: BlockSource) -> None:
        """Of one size, since a disk that was resized begins a new chain."""
        if top.size != below.size:
            raise VmferryError("internal", f"A layer of {top.size} bytes cannot stand on one of {below.size}.")
        self._top, self._below = top, below
        self.size = top.size

    @classmethod
    def on(cls, below: Optional[BlockSource], top: BlockSource) -> BlockSource:
        return top if below is None else cls(top, below)

    def extents(self) -> Iterator[Extent]:
        """Linear in both maps."""
        inherited = self._below.extents()
        under = next(inherited, None)
        for extent in self._top.extents():
            if extent.kind != "unchanged":
                yield extent
                continue
            at = extent.offset
            while at < extent.end:
                while under is not None and under.end <= at:
                    under = next(inherited, None)
                if under is None:
                    raise VmferryError("internal", "The layers of an image chain are of different sizes.")
                end = min(extent.end, under.end)
                yield Extent(at, end - at, under.kind)
                at = end

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._top.read_into(pieces)

    def close(self) -> None:
        self._top.close()


class Fitted:
    """Plays BlockSource: a disk as one of another size stands on it, which has zeros behind its end."""

    def __init__(self, disk: BlockSource, size: int) -> None:
        self._disk, self.size = disk, size

    @classmethod
    def to(cls, disk: BlockSource, size: int) -> BlockSource:
        return disk if disk.size == size else cls(disk, size)

    def extents(self) -> Iterator[Extent]:
        for extent in self._disk.extents():
            if extent.offset < self.size:
                yield Extent(extent.offset, min(extent.end, self.size) - extent.offset, extent.kind)
        if self.size > self._disk.size:
            yield Extent(self._disk.size, self.size - self._disk.size, "zero")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        held = []
        for offset, buffer in pieces:
            count = max(0, min(len(buffer), self._disk.size - offset))
            if count:
                held.append((offset, buffer[:count]))
            buffer[count:] = bytes(len(buffer) - count)
        self._disk.read_into(held)

    def close(self) -> None:
        self._disk.close()
