# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A strict reader of qcow2 images that our own manifests name, over ranged reads.

Fails closed: what this collection does not write, it does not read here. The backing file's name in the image is never
followed; whoever has the manifests hands in the parent.
"""

from __future__ import annotations

import sys
from array import array
from collections import OrderedDict
from threading import Lock
from typing import Callable, Iterator, Optional, Sequence

from .._blocks import BlockSource, Extent, Kind, Piece
from .._errors import VmferryError
from .qcow2_format import (
    CLUSTER,
    CLUSTER_BITS,
    COMPRESSED,
    HEADER,
    L2_ENTRIES,
    LARGEST_DISK,
    MAGIC,
    OFFSET_MASK,
    REFCOUNT_ORDER,
    ZERO_CLUSTER,
    clusters,
    virtual_size,
)

ReadAt = Callable[[int, memoryview], None]
TABLES_HELD = 32  # L2 tables in memory: 64 KiB each
LONGEST_READ = 8 * 1024 * 1024  # bytes in one request


class Qcow2Reader:
    """Plays BlockSource; thread-safe if `read_at` is."""

    def __init__(
        self,
        read_at: ReadAt,
        file_size: int,
        *,
        size: int,
        backing: Optional[BlockSource] = None,
        where: str = "The image",
    ) -> None:
        """`size`: the disk's, by the manifest. Raises `invalid_config` for an image that is not one of ours."""
        self._read_at, self._file_size, self._where, self._backing = read_at, file_size, where, backing
        self.size = size
        self._l1 = self._read_head()
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        self._lock = Lock()

    def close(self) -> None:
        if self._backing is not None:
            self._backing.close()

    def extents(self) -> Iterator[Extent]:
        at = 0
        for index, entry in enumerate(self._l1):
            end = min(self.size, (index + 1) * L2_ENTRIES * CLUSTER)
            if not entry:
                yield Extent(at, end - at, self._hole)
                at = end
                continue
            for kind, count in _runs(self._table(index), self._hole):
                length = min(end - at, count * CLUSTER)
                if length > 0:
                    yield Extent(at, length, kind)
                at += max(length, 0)

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for offset, buffer in pieces:
            if offset < 0 or offset + len(buffer) > self.size:
                raise VmferryError("internal", f"{self._where} was asked for bytes beyond its disk.")
            for host, part in self._located(offset, buffer):
                self._read_at(host, part)

    @property
    def _hole(self) -> Kind:
        return "zero" if self._backing is None else "unchanged"

    def _located(self, offset: int, buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Where the data of this range lies, neighbours joined; what lies nowhere is filled in."""
        start, host, length = 0, -1, 0  # a run not yet given: where in the buffer, where in the file, how long
        at = 0
        while at < len(buffer):
            inside = (offset + at) % CLUSTER
            count = min(CLUSTER - inside, len(buffer) - at)
            place = self._place(offset + at, buffer[at : at + count])
            if length and (place != host + length or length + count > LONGEST_READ):
                yield host, buffer[start : start + length]
                length = 0
            if place >= 0:
                if not length:
                    start, host = at, place
                length += count
            at += count
        if length:
            yield host, buffer[start : start + length]

    def _place(self, offset: int, buffer: memoryview) -> int:
        """The host offset of a piece of one cluster; -1 when the piece has been filled in here."""
        table, entry = divmod(offset // CLUSTER, L2_ENTRIES)
        found = self._table(table)[entry] if self._l1[table] else 0
        host = found & OFFSET_MASK
        if not found & ZERO_CLUSTER and host:
            return host + offset % CLUSTER
        if not found and self._backing is not None:
            inherited = max(0, min(len(buffer), self._backing.size - offset))
            if inherited:
                self._backing.read_into([(offset, buffer[:inherited])])
            buffer = buffer[inherited:]
        buffer[:] = bytes(len(buffer))
        return -1

    def _table(self, index: int) -> array[int]:
        with self._lock:
            table = self._tables.get(index)
            if table is not None:
                self._tables.move_to_end(index)
                return table
        table = self._read_words(self._l1[index] & OFFSET_MASK, L2_ENTRIES)
        for entry in table:
            if entry & COMPRESSED or entry & 0x3F_0000_0000_0001FE or (entry & OFFSET_MASK) % CLUSTER:
                raise self._lie("has an entry of a kind that is never written")
            if (entry & OFFSET_MASK) + CLUSTER > self._file_size:
                raise self._lie("points beyond its end")
        with self._lock:
            self._tables[index] = table
            while len(self._tables) > TABLES_HELD:
                self._tables.popitem(last=False)
        return table

    def _read_head(self) -> array[int]:
        if self._file_size < HEADER.size:
            raise self._lie("is too short for a header")
        data = bytearray(HEADER.size)
        self._read_at(0, memoryview(data))
        (
            magic, version, _unused, backing_length, bits, size, crypt, l1_entries, l1_at, _unused, _unused, snapshots, _unused, incompatible,
            _unused, _unused, refcount_order, header_length,
        ) = HEADER.unpack(data)  # fmt: skip
        if magic != MAGIC or version != 3 or header_length < HEADER.size - 8:
            raise self._lie("is no qcow2 image of version 3")
        if bits != CLUSTER_BITS or crypt or snapshots or incompatible or refcount_order != REFCOUNT_ORDER:
            raise self._lie("uses a feature that is never written")
        if size != virtual_size(self.size) or size > LARGEST_DISK:
            raise self._lie(f"is of a disk of {size} bytes where {self.size} were expected")
        if bool(backing_length) != (self._backing is not None):
            raise self._lie("has another place in its chain than the manifest says")
        if l1_entries < clusters(self.size, CLUSTER * L2_ENTRIES) or l1_at % CLUSTER:
            raise self._lie("has a table of another size")
        l1 = self._read_words(l1_at, clusters(self.size, CLUSTER * L2_ENTRIES))
        for entry in l1:
            table = entry & OFFSET_MASK
            if entry and (table % CLUSTER or table + CLUSTER > self._file_size or not table):
                raise self._lie("points beyond its end")
        return l1

    def _read_words(self, offset: int, count: int) -> array[int]:
        if offset + 8 * count > self._file_size:
            raise self._lie("ends inside a table")
        data = bytearray(8 * count)
        if data:
            self._read_at(offset, memoryview(data))
        words = array("Q", bytes(data))
        if sys.byteorder == "little":
            words.byteswap()
        return words

    def _lie(self, what: str) -> VmferryError:
        return VmferryError(
            "invalid_config", f"{self._where} {what}.", "It was damaged, or it is not an export of ours."
        )


def _runs(table: array[int], hole: Kind) -> Iterator[tuple[Kind, int]]:
    """Neighbours of one kind, and how many clusters they are."""
    last: Kind = hole
    count = 0
    for entry in table:
        kind: Kind = hole if not entry else "zero" if entry & ZERO_CLUSTER or not entry & OFFSET_MASK else "data"
        if kind != last and count:
            yield last, count
            count = 0
        last, count = kind, count + 1
    yield last, count
