# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A strict reader of fixed and dynamic VHDs over ranged reads.

A block is read as it lies, whatever its bitmap says: what was never written in one that is stored is zeros.
"""

from __future__ import annotations

import sys
from array import array
from typing import Callable, Iterator, Optional, Sequence, Tuple

from ..._blocks import Extent, Kind, Piece
from ..._errors import VmferryError
from ..mapped import NOWHERE, ReadAt, check_bounds, joined, read_mapped
from .format import (
    DYNAMIC,
    FIXED,
    FOOTER,
    HEADER,
    LARGEST_DISK,
    MIB,
    NOT_STORED,
    SECTOR,
    DynamicHeader,
    Footer,
    sectors,
)

_LARGEST_BLOCK = 256 * MIB
_LARGEST_TABLE = 8 * MIB  # bytes, held in memory; of the largest disk in blocks of 1 MiB


class VhdReader:
    """Plays BlockSource; thread-safe if `read_at` is."""

    def __init__(
        self,
        read_at: ReadAt,
        file_size: int,
        *,
        size: Optional[int] = None,
        extents: Optional[Callable[[int], Iterator[Extent]]] = None,
        where: str = "The image",
    ) -> None:
        """`size`: the disk's, where somebody knows it: the image may have zeros behind it, up to a whole mebibyte.
        `extents(size)`: of the file, where its store knows holes. Raises `invalid_config`.
        """
        self._read_at, self._file_size, self._where, self._extents = read_at, file_size, where, extents
        footer = self._read_footer()
        self.size = footer.size if size is None else size
        if not self.size <= footer.size < self.size + MIB + SECTOR:
            raise self._lie(f"is of a disk of {footer.size} bytes where {size} were expected")
        self._table = self._read_table(footer) if footer.kind == DYNAMIC else None

    def close(self) -> None:
        """Nothing is held."""

    def extents(self) -> Iterator[Extent]:
        if self._table is not None:
            return joined(self._runs(self._table), self.size)
        if self._extents is not None:
            return self._extents(self.size)
        return iter([Extent(0, self.size, "data")] if self.size else [])

    def read_into(self, pieces: Sequence[Piece]) -> None:
        check_bounds(pieces, self.size, self._where)
        read_mapped(self._read_at, self._place, pieces)

    def _runs(self, table: array[int]) -> Iterator[Tuple[Kind, int]]:
        for entry in table:
            yield "zero" if entry == NOT_STORED else "data", self._block

    def _place(self, offset: int) -> Tuple[int, int]:
        if self._table is None:
            return offset, self.size - offset
        index, at = divmod(offset, self._block)
        entry = self._table[index]
        place = NOWHERE if entry == NOT_STORED else entry * SECTOR + self._bitmap + at
        return place, self._block - at

    def _read_footer(self) -> Footer:
        found = self._read(self._file_size - FOOTER.size, FOOTER.size)
        footer = Footer.unpack(found) if found is not None else None
        if footer is None:
            raise self._lie("ends without the footer of a VHD")
        if footer.kind not in (FIXED, DYNAMIC) or footer.size > LARGEST_DISK or footer.size % SECTOR:
            raise self._lie("is a VHD of a kind that is not read here")
        if footer.kind == FIXED and footer.size + FOOTER.size != self._file_size:
            raise self._lie("is not as long as its footer says")
        return footer

    def _read_table(self, footer: Footer) -> array[int]:
        found = self._read(footer.header, HEADER.size)
        header = DynamicHeader.unpack(found) if found is not None else None
        if header is None:
            raise self._lie("has no header of a dynamic VHD where its footer says")
        block, needed = header.block, -(-footer.size // max(1, header.block))
        if block % SECTOR or block & (block - 1) or not block <= _LARGEST_BLOCK or header.entries < needed:
            raise self._lie("has blocks or a table of a size that cannot be")
        data = self._read(header.table, 4 * needed) if 4 * needed <= _LARGEST_TABLE else None
        if data is None:
            raise self._lie("ends inside its table")
        self._block = block
        self._bitmap = sectors(block // SECTOR // 8) * SECTOR
        table = array("I", bytes(data))
        if sys.byteorder == "little":
            table.byteswap()
        self._check(table)
        return table

    def _check(self, table: array[int]) -> None:
        used = sorted(entry for entry in table if entry != NOT_STORED)
        whole = self._bitmap + self._block
        if used and (used[0] * SECTOR < FOOTER.size + HEADER.size or used[-1] * SECTOR + whole > self._file_size):
            raise self._lie("points outside of what it holds")
        if any(second - first < whole // SECTOR for first, second in zip(used, used[1:])):
            raise self._lie("has blocks that overlap")

    def _read(self, offset: int, length: int) -> Optional[bytearray]:
        if not 0 <= offset <= self._file_size - length:
            return None
        data = bytearray(length)
        if length:
            self._read_at(offset, memoryview(data))
        return data

    def _lie(self, what: str) -> VmferryError:
        return VmferryError("invalid_config", f"{self._where} {what}.", "It was damaged, or it is of another kind.")
