# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What maps the grains of a sparse VMDK extent, read by ranges and believed only within the file."""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from threading import Lock
from typing import Deque, Iterator, List, Tuple

from ..._blocks import LEAF, Kind
from ..._errors import VmferryError
from ..mapped import ReadAt
from .format import (
    AT_END,
    COMPRESSED,
    DEFLATE,
    FOOTER,
    GRAIN_SECTORS,
    HEADER,
    LARGEST_DISK,
    MARKER,
    MARKERS,
    NEWLINES,
    REDUNDANT,
    SECTOR,
    TABLE_ENTRIES,
    TABLE_SIZE,
    ZEROED_GRAINS,
    Header,
    sectors,
    tables,
    words_of,
)

TABLES_HELD = 2048  # in memory: 2 KiB each
TABLES_READ = 32  # neighbours that are read at once
AHEAD = 8  # requests under way while the whole map is read: a store may take its time for each
_KNOWN_FLAGS = NEWLINES | REDUNDANT | ZEROED_GRAINS | COMPRESSED | MARKERS
_ZEROED = 1  # a grain table's entry, where the flag says so


class GrainTables:
    """Thread-safe if `read_at` is. `size`: the disk's."""

    def __init__(self, read_at: ReadAt, file_size: int, size: int | None, where: str) -> None:
        """`size`: where somebody knows it; else the image says it. Raises `invalid_config`."""
        self._read_at, self._file_size, self._where = read_at, file_size, where
        self._header = self._read_header()
        self.size = self._header.capacity * SECTOR if size is None else size
        if sectors(self.size) != self._header.capacity:
            raise self.lie(f"is of a disk of {self._header.capacity * SECTOR} bytes where {size} were expected")
        self.compressed = bool(self._header.flags & COMPRESSED)
        self._nothing = _ZEROED if self._header.flags & ZEROED_GRAINS else 0  # the last entry that is no place
        self._directory = self._read_directory()
        self._groups: OrderedDict[int, List[array[int]]] = OrderedDict()
        self._lock, self._held = Lock(), 0

    def place(self, grain: int) -> int:
        """Of its first byte in the file; 0 where it is not stored."""
        index, entry = divmod(grain, TABLE_ENTRIES)
        table = self._table(index)
        sector = table[entry] if table is not None else 0
        return 0 if sector <= self._nothing else sector * SECTOR

    def places(self, grain: int, count: int) -> Tuple[List[int], int]:
        """As `place` tells it: of up to `count` neighbours that one table maps, and of what that maps behind them, if
        anything. Second, where the table itself lies."""
        index, entry = divmod(grain, TABLE_ENTRIES)
        count = min(count, TABLE_ENTRIES - entry)
        table = self._table(index)
        if table is None:
            return [0] * (count + 1), 0
        found = [sector * SECTOR if sector > self._nothing else 0 for sector in table[entry : entry + count + 1]]
        return found + [0] * (count + 1 - len(found)), self._directory[index] * SECTOR

    def runs(self) -> Iterator[Tuple[Kind, int]]:
        """Kinds of neighbours, and how many bytes they are."""
        asked: Deque[Tuple[int, Future[List[array[int]]]]] = deque()
        empty = 0  # tables in front of the next group that are not there
        with ThreadPoolExecutor(AHEAD) as pool:
            for index, place in enumerate(self._directory):
                if not place:
                    empty += 1
                elif not self._follows(index):
                    asked.append((empty, pool.submit(self._group, index)))
                    empty = 0
                    if len(asked) > AHEAD:
                        yield from self._runs_of(*asked.popleft())
            while asked:
                yield from self._runs_of(*asked.popleft())
        yield "zero", empty * TABLE_ENTRIES * LEAF

    def _runs_of(self, empty: int, group: Future[List[array[int]]]) -> Iterator[Tuple[Kind, int]]:
        yield "zero", empty * TABLE_ENTRIES * LEAF
        for table in group.result():
            if table.count(0) == TABLE_ENTRIES:  # at the speed of memory, of a large disk with little in it
                yield "zero", TABLE_ENTRIES * LEAF
                continue
            for is_data, entries in groupby(table, lambda entry: entry > self._nothing):
                yield "data" if is_data else "zero", len(list(entries)) * LEAF

    def lie(self, what: str) -> VmferryError:
        return VmferryError("invalid_config", f"{self._where} {what}.", "It was damaged, or it is of another kind.")

    def _table(self, index: int) -> array[int] | None:
        if not self._directory[index]:
            return None
        first = self._first_of_group(index)
        return self._group(first)[index - first]

    def _group(self, first: int) -> List[array[int]]:
        with self._lock:
            group = self._groups.get(first)
            if group is not None:
                self._groups.move_to_end(first)
                return group
        group = self._read_group(first)
        with self._lock:
            if first not in self._groups:
                self._groups[first] = group
                self._held += len(group)
            while self._held > TABLES_HELD:
                self._held -= len(self._groups.popitem(last=False)[1])
        return group

    def _follows(self, index: int) -> bool:
        """On the table before it, so that both are read at once."""
        before = self._directory[index - 1]
        return index % TABLES_READ > 0 and before > 0 and self._directory[index] == before + TABLE_SIZE // SECTOR

    def _first_of_group(self, index: int) -> int:
        while self._follows(index):
            index -= 1
        return index

    def _read_group(self, first: int) -> List[array[int]]:
        end = first + 1
        while end < len(self._directory) and self._follows(end):
            end += 1
        words = self._read_words(self._directory[first] * SECTOR, (end - first) * TABLE_ENTRIES)
        last = self._file_size // SECTOR - (1 if self.compressed else GRAIN_SECTORS)
        used = {entry for entry in words if entry > self._nothing} if words.count(0) < len(words) else set()
        if used and (min(used) * SECTOR < HEADER.size or max(used) > last):
            raise self.lie("points outside of what it holds")
        return [words[at : at + TABLE_ENTRIES] for at in range(0, len(words), TABLE_ENTRIES)]

    def _read_header(self) -> Header:
        header = self._header_at(0)
        if header.directory == AT_END:
            header = self._footer(header)
        packed = (COMPRESSED | MARKERS, DEFLATE)
        kind = (header.flags & (COMPRESSED | MARKERS), header.compression)
        sound = header.version in (1, 2, 3) and not header.flags & ~_KNOWN_FLAGS and kind in ((0, 0), packed)
        if not sound or header.grain != GRAIN_SECTORS or header.table_entries != TABLE_ENTRIES or header.is_unclean:
            raise self.lie("uses a feature that is not known here, or was not closed")
        if header.capacity * SECTOR > LARGEST_DISK:
            raise self.lie(f"claims to be of a disk of {header.capacity * SECTOR} bytes")
        return header

    def _footer(self, header: Header) -> Header:
        place = self._file_size - 2 * SECTOR
        marker = bytearray(MARKER.size)
        if place > 2 * SECTOR:
            self._read_at(place - SECTOR, memoryview(marker))
        if place % SECTOR or MARKER.unpack(marker) != (1, 0, FOOTER):
            raise self.lie("ends before its footer")
        footer = self._header_at(place)
        if (footer.capacity, footer.flags, footer.grain) != (header.capacity, header.flags, header.grain):
            raise self.lie("has a footer that contradicts its header")
        return footer

    def _header_at(self, offset: int) -> Header:
        data = bytearray(HEADER.size)
        if self._file_size >= offset + HEADER.size:
            self._read_at(offset, memoryview(data))
        header = Header.unpack(data)
        if header is None:
            raise self.lie("is no sparse VMDK extent")
        return header

    def _read_directory(self) -> array[int]:
        words = self._read_words(self._header.directory * SECTOR, tables(self.size))
        used = [place for place in words if place]
        if used and (min(used) * SECTOR < HEADER.size or max(used) * SECTOR + TABLE_SIZE > self._file_size):
            raise self.lie("points outside of what it holds")
        if len(set(used)) != len(used):  # a short file could stand for a thousand million grains
            raise self.lie("uses a table twice")
        return words

    def _read_words(self, offset: int, count: int) -> array[int]:
        if not HEADER.size <= offset <= self._file_size - 4 * count:
            raise self.lie("ends inside a table")
        data = bytearray(4 * count)
        self._read_at(offset, memoryview(data))
        return words_of(data)
