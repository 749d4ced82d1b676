# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A reader of a disk in a gzipped tar archive over ranged reads: ours by its index, others as a stream.

It is strict about how the file is made, and proves nothing of what is in it: by the index, nobody compares the CRC-32
of gzip. That is for images of exports, whose leaves are compared with the digests in the manifest. For others,
a `ProvenTarGzReader` reads all of it as a stream, to its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Optional, Protocol, Sequence, Tuple

from ..._blocks import Extent, Kind, Piece
from ..._errors import VmferryError
from ..disk_archive import GIB, SparseMap, unpacked_header
from ..mapped import ReadAt, check_bounds, joined
from .index import LOCATOR_SIZE, Locator
from .indexed import IndexedArchive, fits, has_room, read_header, read_starts
from .stream import GzipStream

_MOST_BEHIND = 64 << 20  # bytes that an archive has behind the disk; those for Compute Engine have some 10 KiB


class _Stored(Protocol):
    """What is in the archive of the disk, by its place there."""

    def read_into(self, pieces: Sequence[Piece]) -> None: ...


class RawTarGzReader:
    """Plays BlockSource; thread-safe if `read_at` is."""

    def __init__(
        self, read_at: ReadAt, file_size: int, *, size: Optional[int] = None, where: str = "The image"
    ) -> None:
        """`size`: the disk's, where somebody knows it: the image may have zeros behind it, up to a whole GiB.
        Raises `invalid_config`.
        """
        self._where = where
        self._layout, self._archive = self._opened(read_at, file_size, size)
        self.size = self._layout.size if size is None else size

    def close(self) -> None:
        """Nothing is held."""

    def extents(self) -> Iterator[Extent]:
        return joined(self._runs(), self.size)

    def read_into(self, pieces: Sequence[Piece]) -> None:
        check_bounds(pieces, self.size, self._where)
        self._archive.read_into([one for offset, buffer in pieces for one in self._pieces(offset, buffer)])

    def _pieces(self, offset: int, buffer: memoryview) -> Iterator[Piece]:
        """Of what is stored; the rest is filled in."""
        while buffer:
            place, length = self._layout.place(offset)
            here = buffer[:length]
            if place < 0:
                here[:] = bytes(len(here))
            else:
                yield place, here
            offset, buffer = offset + len(here), buffer[len(here) :]

    def _runs(self) -> Iterator[Tuple[Kind, int]]:
        at = 0
        for kind, length in self._layout.kinds():
            if at >= self.size:
                return
            yield kind, length
            at += length

    def _opened(self, read_at: ReadAt, file_size: int, size: Optional[int]) -> Tuple[SparseMap, _Stored]:
        end = bytearray(min(LOCATOR_SIZE, file_size))
        if end:
            read_at(file_size - len(end), memoryview(end))
        locator = Locator.unpack(bytes(end))
        if locator is None:
            return self._streamed(read_at, file_size, size)
        layout = read_header(read_at, locator.first) if has_room(file_size, locator) else None
        if layout is None or not fits(layout, locator):
            raise self._lie("has an index that does not fit it")
        self._check_size(layout, size)
        starts = read_starts(read_at, locator)  # no more than this disk needs
        if starts is None:
            raise self._lie("has an index that does not fit it")
        return layout, IndexedArchive(read_at, starts, layout.stored, self._where)

    def _streamed(self, read_at: ReadAt, file_size: int, size: Optional[int]) -> Tuple[SparseMap, _StreamedArchive]:
        stream, taken = GzipStream(read_at, file_size, self._where), 0

        def take(count: int) -> bytes:
            nonlocal taken
            data = bytearray(count)
            stream.read_into(taken, memoryview(data))
            taken += count
            return bytes(data)

        layout = unpacked_header(take)
        if layout is None:
            raise self._lie("is no archive in the old format of GNU tar that begins with a file disk.raw")
        self._check_size(layout, size)
        return layout, _StreamedArchive(stream, taken)

    def _check_size(self, layout: SparseMap, size: Optional[int]) -> None:
        if size is not None and not size <= layout.size < size + GIB:
            raise self._lie(f"is of a disk of {layout.size} bytes where {size} were expected")

    def _lie(self, what: str) -> VmferryError:
        return VmferryError("invalid_config", f"{self._where} {what}.", "It was damaged, or it is of another kind.")


class ProvenTarGzReader(RawTarGzReader):
    """Of an archive that nobody has digests of. What was read of it may be used once `prove` returned."""

    def _opened(self, read_at: ReadAt, file_size: int, size: Optional[int]) -> Tuple[SparseMap, _Stored]:
        layout, self._stream = self._streamed(read_at, file_size, size)
        return layout, self._stream

    def prove(self) -> None:
        """Raises `invalid_config`."""
        self._stream.stream.read_to_end(self._stream.start + self._layout.stored + _MOST_BEHIND)


@dataclass(frozen=True)
class _StreamedArchive:
    """`start`: of what is stored, in the stream."""

    stream: GzipStream
    start: int

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for place, buffer in pieces:
            self.stream.read_into(self.start + place, buffer)
