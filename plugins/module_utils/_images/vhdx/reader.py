# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A strict reader of VHDX images over ranged reads: fixed, dynamic, and differencing where that is asked for.

Fails closed: one whose log is to be replayed is refused, and so is what the format may learn later. No name in an image
is followed: whoever knows the parent of a layer hands it in.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import Iterator, List, Mapping, Optional, Sequence, Tuple

from ..._blocks import BlockSource, Extent, Kind, Piece
from ..._errors import VmferryError
from ..mapped import NOWHERE, ReadAt, check_bounds, joined, read_mapped
from .format import (
    DISK_SIZE,
    FILE_PARAMETERS,
    FULLY_PRESENT,
    HAS_PARENT,
    HEADER_SIZE,
    HEADERS_AT,
    IDENTIFIER,
    KNOWN_ITEMS,
    LARGEST_BLOCK,
    LARGEST_DISK,
    LOGICAL_SECTOR_SIZE,
    METADATA_REGION,
    METADATA_SIZE,
    MIB,
    NOT_PRESENT,
    PARENT_LOCATOR,
    PARTIALLY_PRESENT,
    PLACE,
    REGIONS_AT,
    REGIONS_SIZE,
    REQUIRED,
    SMALLEST_BLOCK,
    STATE,
    TABLE_REGION,
    Header,
    Region,
    chunk_ratio,
    entries,
    layer_entries,
    unpack_metadata,
    unpack_regions,
)
from .locator import ParentLocator, unpack_locator
from .sector_bitmap import SectorBitmaps

_LARGEST_TABLE = 17 * MIB  # bytes, held in memory; of 64 TiB in blocks of 32 MiB, as Hyper-V makes them


class VhdxReader:
    """Plays BlockSource; thread-safe if `read_at` is. `parent`: of a layer, what it says of the image below; what is to
    be read of that has to be told by `stand_on` before the first read. `data_id`: another one after each write.
    `table_size`: bytes of the table that maps it, which is held.
    """

    def __init__(
        self,
        read_at: ReadAt,
        file_size: int,
        *,
        size: Optional[int] = None,
        where: str = "The image",
        layer: bool = False,
    ) -> None:
        """`size`: the disk's, where somebody knows it; the image's is in whole sectors. `layer`: whether it may be one.
        Raises `invalid_config`.
        """
        self._read_at, self._file_size, self._where, self._layer = read_at, file_size, where, layer
        self.parent: Optional[ParentLocator] = None
        self._below: Optional[BlockSource] = None
        self.data_id = self._check_headers()
        regions = self._regions()
        virtual = self._read_metadata(regions[METADATA_REGION])
        self.size = virtual if size is None else size
        if not self.size <= virtual < self.size + max(self._sector, 513):
            raise self._lie(f"is of a disk of {virtual} bytes where {size} were expected")
        self._bitmaps, self._bits = array("Q"), SectorBitmaps(self._read_at, self._block, self._sector)
        self._table = self._read_table(regions[TABLE_REGION], virtual)

    def stand_on(self, below: BlockSource) -> None:
        """Of the same size."""
        self._below = below

    def close(self) -> None:
        """Nothing is held."""

    def extents(self) -> Iterator[Extent]:
        return joined(self._runs(), self.size)

    def read_into(self, pieces: Sequence[Piece]) -> None:
        check_bounds(pieces, self.size, self._where)
        read_mapped(self._read_at, self._place, pieces)
        if self.parent is not None:
            self._read_inherited(pieces)

    def _read_inherited(self, pieces: Sequence[Piece]) -> None:
        if self._below is None:
            raise VmferryError("internal", f"{self._where} was read without the image that it stands on.")
        wanted: List[Piece] = []
        for offset, buffer in pieces:
            while buffer:
                _place, length, is_below = self._found(offset)
                here, buffer = buffer[:length], buffer[length:]
                if is_below:
                    wanted.append((offset, here))
                offset += len(here)
        if wanted:
            self._below.read_into(wanted)

    def _runs(self) -> Iterator[Tuple[Kind, int]]:
        absent: Kind = "zero" if self.parent is None else "unchanged"
        for entry in self._table:
            state = entry & STATE
            present = state in (FULLY_PRESENT, PARTIALLY_PRESENT)
            yield "data" if present else absent if state == NOT_PRESENT else "zero", self._block

    def _place(self, offset: int) -> Tuple[int, int]:
        place, length, _is_below = self._found(offset)
        return place, length

    def _found(self, offset: int) -> Tuple[int, int, bool]:
        """Where a byte of the disk lies in the file, or NOWHERE; for how many bytes that goes on; and whether the image
        below has it.
        """
        index, at = divmod(offset, self._block)
        entry = self._table[index]
        state, rest = entry & STATE, self._block - at
        if state == FULLY_PRESENT:
            return (entry & PLACE) + at, rest, False
        if state == PARTIALLY_PRESENT:
            chunk, number = divmod(index, chunk_ratio(self._block, self._sector))
            bits = (self._bitmaps[chunk] & PLACE) + number * (self._block // self._sector // 8)
            is_here, length = self._bits.run(bits, at)
            return ((entry & PLACE) + at if is_here else NOWHERE), length, not is_here
        return NOWHERE, rest, state == NOT_PRESENT and self.parent is not None

    def _check_headers(self) -> bytes:
        if self._read(0, len(IDENTIFIER), "is no VHDX image") != IDENTIFIER:
            raise self._lie("is no VHDX image")
        headers = [Header.unpack(self._read(at, HEADER_SIZE, "ends inside its headers")) for at in HEADERS_AT]
        valid = [header for header in headers if header is not None]
        if not valid:
            raise self._lie("has no header whose checksum is right")
        newest = max(valid, key=lambda header: header.sequence)
        if newest.version != 1 or newest.log_version:
            raise self._lie("is of a version that is not known here")
        if any(newest.log_id):
            raise VmferryError(
                "invalid_config",
                f"{self._where} was not closed: its log is to be replayed first.",
                "Attach it once where it was written, or run qemu-img check -r all on a copy of it.",
            )
        return newest.data_id

    def _regions(self) -> Mapping[bytes, Region]:
        for at in REGIONS_AT:
            found = unpack_regions(self._read(at, REGIONS_SIZE, "ends inside its regions"))
            if found is None:
                continue
            if {TABLE_REGION, METADATA_REGION} - set(found) or any(
                region.required for kind, region in found.items() if kind not in (TABLE_REGION, METADATA_REGION)
            ):
                raise self._lie("has other regions than are known here")
            if any(region.offset < MIB or region.offset % MIB for region in found.values()):
                raise self._lie("has a region where none can be")
            return found
        raise self._lie("has no table of regions whose checksum is right")

    def _read_metadata(self, region: Region) -> int:
        """Bytes of the disk."""
        length = min(region.length, MIB)
        if length < METADATA_SIZE:
            raise self._lie("has metadata that cannot be")
        items = unpack_metadata(self._read(region.offset, length, "ends inside its metadata"))
        wanted = ((FILE_PARAMETERS, "<II"), (DISK_SIZE, "<Q"), (LOGICAL_SECTOR_SIZE, "<I"))
        if items is None or any(len(items.get(kind, (b"", 0))[0]) != struct.calcsize(form) for kind, form in wanted):
            raise self._lie("has metadata that cannot be")
        (block, flags), (size,), (sector,) = (struct.unpack(form, items[kind][0]) for kind, form in wanted)
        if flags & HAS_PARENT:
            if not self._layer:
                raise self._lie("is a layer on another image")
            self.parent = unpack_locator(items.get(PARENT_LOCATOR, (b"", 0))[0])
            if self.parent is None:
                raise self._lie("is a layer, and does not say on which image")
        if flags >> 2 or any(flag & REQUIRED for kind, (_content, flag) in items.items() if kind not in KNOWN_ITEMS):
            raise self._lie("uses a feature that is not known here")
        if block & (block - 1) or not SMALLEST_BLOCK <= block <= LARGEST_BLOCK or sector not in (512, 4096):
            raise self._lie("has blocks or sectors of a size that cannot be")
        if not size or size % sector or size > LARGEST_DISK:
            raise self._lie(f"claims to be of a disk of {size} bytes")
        self._block, self._sector = int(block), int(sector)
        return int(size)

    def _read_table(self, region: Region, size: int) -> array[int]:
        """The entries of blocks alone."""
        ratio, blocks = chunk_ratio(self._block, self._sector), -(-size // self._block)
        length = 8 * (entries if self.parent is None else layer_entries)(blocks, ratio)
        if length > min(region.length, _LARGEST_TABLE):
            raise self._lie("has a table of another length, or a longer one than is read here")
        self.table_size = length
        interleaved = array("Q", bytes(self._read(region.offset, length, "ends inside its table")))
        if sys.byteorder == "big":
            interleaved.byteswap()
        table = array("Q")
        for at in range(0, len(interleaved), ratio + 1):
            table.extend(interleaved[at : at + ratio])
        table = table[:blocks]
        if self.parent is not None:
            self._bitmaps = interleaved[ratio :: ratio + 1]
        self._check(table, ratio)
        return table

    def _check(self, table: array[int], ratio: int) -> None:
        partly = {number // ratio for number, entry in enumerate(table) if entry & STATE == PARTIALLY_PRESENT}
        if any(entry & STATE in (4, 5) for entry in table) or (partly and self.parent is None):
            raise self._lie("has a block in a state that is none of such an image")
        if any(self._bitmaps[chunk] & STATE != FULLY_PRESENT for chunk in partly):
            raise self._lie("has a block without the bitmap that belongs to it")
        used = [(entry & PLACE, self._block) for entry in table if entry & STATE in (FULLY_PRESENT, PARTIALLY_PRESENT)]
        used = sorted(used + [(self._bitmaps[chunk] & PLACE, MIB) for chunk in partly])
        if used and (used[0][0] < MIB or sum(used[-1]) > self._file_size):
            raise self._lie("points outside of what it holds")
        if any(second[0] - first[0] < first[1] for first, second in zip(used, used[1:])):
            raise self._lie("has blocks that overlap")

    def _read(self, offset: int, length: int, otherwise: str) -> bytearray:
        if not 0 <= offset <= self._file_size - length:
            raise self._lie(otherwise)
        data = bytearray(length)
        if length:
            self._read_at(offset, memoryview(data))
        return data

    def _lie(self, what: str) -> VmferryError:
        return VmferryError("invalid_config", f"{self._where} {what}.", "It was damaged, or it is of another kind.")
