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

from ..._blocks import BlockSource, Extent, Kind, Piece
from ..._errors import VmferryError
from .codecs import Codec, codec_of
from .decrypted import open_cipher, read_decrypted
from .format import (
    CLUSTER,
    CLUSTER_BITS,
    COMPRESSED,
    COPIED,
    HEADER,
    L2_ENTRIES,
    LARGEST_DISK,
    LUKS,
    MAGIC,
    OFFSET_MASK,
    OTHER_COMPRESSION,
    PLAIN,
    REFCOUNT_ORDER,
    ZERO_CLUSTER,
    clusters,
    virtual_size,
)
from .packs import Pack, Wanted, read_packs

ReadAt = Callable[[int, memoryview], None]
TABLES_HELD = 32  # L2 tables in memory: 64 KiB each
LONGEST_READ = 8 * 1024 * 1024  # bytes in one request
UNUSED_BITS = ~(COPIED | OFFSET_MASK | ZERO_CLUSTER)  # of an L2 entry of a cluster that is not compressed
NOWHERE, PARENT, PACKED = -1, -2, -3  # places that are none: zeros, what the backing image has, compressed clusters


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
        key: Optional[bytes] = None,
    ) -> None:
        """`size`: the disk's, by the manifest; `key`: of an encrypted image.

        Raises `invalid_config` for an image that is not one of ours.
        """
        self._read_at, self._file_size, self._where, self._backing = read_at, file_size, where, backing
        self.size = size
        self._crypt = PLAIN if key is None else LUKS
        self._l1 = self._read_head()
        self._cipher = open_cipher(read_at, file_size, key) if key is not None else None
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        self._lock = Lock()

    def close(self) -> None:
        if self._backing is not None:
            self._backing.close()

    def extents(self) -> Iterator[Extent]:
        at, length, last = 0, 0, self._hole
        for index in range(len(self._l1)):
            for kind, count in self._runs(index):
                if kind != last and length:
                    yield Extent(at, length, last)
                    at, length = at + length, 0
                last, length = kind, min(length + count * CLUSTER, self.size - at)
        if length:
            yield Extent(at, length, last)

    def read_into(self, pieces: Sequence[Piece]) -> None:
        inherited: list[Piece] = []
        packed: list[Wanted] = []
        for offset, buffer in pieces:
            if offset < 0 or offset + len(buffer) > self.size:
                raise VmferryError("internal", f"{self._where} was asked for bytes beyond its disk.")
            for place, length in self._places(offset, len(buffer)):
                part, buffer = buffer[:length], buffer[length:]
                if place >= 0:
                    self._read_data(place, part)
                elif place == PARENT and self._backing is not None:
                    held = max(0, min(length, self._backing.size - offset))  # a disk may have grown since
                    if held:
                        inherited.append((offset, part[:held]))
                    part[held:] = bytes(length - held)
                elif place == PACKED:
                    packed += self._wanted(offset, part)
                else:
                    part[:] = bytes(length)
                offset += length
        if inherited and self._backing is not None:
            self._backing.read_into(inherited)
        if packed:
            for one in read_packs(self._read_at, self._codec, packed):
                raise self._lie(f"has no compressed cluster at byte {one.pack.start} of it")

    def _read_data(self, place: int, into: memoryview) -> None:
        if self._cipher is None:
            self._read_at(place, into)
        else:
            read_decrypted(self._read_at, self._cipher, place, into)

    @property
    def _hole(self) -> Kind:
        return "zero" if self._backing is None else "unchanged"

    def _places(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Where this range lies in the file, or NOWHERE, or PARENT; and for how many bytes: neighbours are joined."""
        first, joined = NOWHERE, 0
        while length:
            here = min(CLUSTER - offset % CLUSTER, length)
            place = self._place(offset)
            if joined and (place != (first if first < 0 else first + joined) or joined + here > LONGEST_READ):
                yield first, joined
                joined = 0
            if not joined:
                first = place
            offset, length, joined = offset + here, length - here, joined + here
        if joined:
            yield first, joined

    def _place(self, offset: int) -> int:
        table, index = divmod(offset // CLUSTER, L2_ENTRIES)
        entry = self._table(table)[index] if self._l1[table] else 0
        if not entry:
            return PARENT
        if entry & COMPRESSED:
            return PACKED
        return NOWHERE if entry & ZERO_CLUSTER else (entry & OFFSET_MASK) + offset % CLUSTER

    def _wanted(self, offset: int, target: memoryview) -> Iterator[Wanted]:
        """A run of compressed clusters, one by one."""
        while target:
            table, index = divmod(offset // CLUSTER, L2_ENTRIES)
            skip = offset % CLUSTER
            here = min(CLUSTER - skip, len(target))
            yield Wanted(Pack.of(self._table(table)[index], self._file_size), skip, target[:here])
            offset, target = offset + here, target[here:]

    def _runs(self, index: int) -> Iterator[tuple[Kind, int]]:
        """Neighbours of one kind among the clusters of one L2 table, and how many they are."""
        last, count = self._hole, 0
        for entry in self._table(index) if self._l1[index] else ():
            kind = self._kind(entry)
            if kind != last and count:
                yield last, count
                count = 0
            last, count = kind, count + 1
        yield last, count or L2_ENTRIES

    def _kind(self, entry: int) -> Kind:
        if not entry:
            return self._hole
        return "zero" if entry & ZERO_CLUSTER and not entry & COMPRESSED else "data"

    def _table(self, index: int) -> array[int]:
        with self._lock:
            table = self._tables.get(index)
            if table is not None:
                self._tables.move_to_end(index)
                return table
        table = self._read_words(self._l1[index] & OFFSET_MASK, L2_ENTRIES)
        for entry in set(table):
            if entry & COMPRESSED:
                self._check_pack(entry)
            elif entry & UNUSED_BITS or (entry & OFFSET_MASK) % CLUSTER:
                raise self._lie("has an entry of a kind that is never written")
            elif entry > ZERO_CLUSTER:
                self._check_place(entry & OFFSET_MASK)
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
            magic, version, _backing_at, backing_length, bits, size, crypt, l1_entries, l1_at, _counts_at, _counts,
            snapshots, _snapshots_at, incompatible, _compatible, _autoclear, refcount_order, header_length,
            compression_type,
        ) = HEADER.unpack(data)  # fmt: skip
        if magic != MAGIC or version != 3 or header_length < HEADER.size - 8:
            raise self._lie("is no qcow2 image of version 3")
        if bits != CLUSTER_BITS or crypt != self._crypt or snapshots or refcount_order != REFCOUNT_ORDER:
            raise self._lie("uses a feature that is never written")
        self._codec = self._codec_of(incompatible, compression_type if header_length >= HEADER.size else 0)
        if size != virtual_size(self.size) or size > LARGEST_DISK:
            raise self._lie(f"is of a disk of {size} bytes where {self.size} were expected")
        if bool(backing_length) != (self._backing is not None):
            raise self._lie("has another place in its chain than the manifest says")
        needed = clusters(self.size, CLUSTER * L2_ENTRIES)
        if l1_entries < needed or l1_at % CLUSTER or l1_at < CLUSTER:
            raise self._lie("has a table of another size or in another place")
        l1 = self._read_words(l1_at, needed)
        self._tables_end = l1_at + 8 * needed
        tables = [entry & OFFSET_MASK for entry in l1 if entry]
        if any(entry & ~(OFFSET_MASK | COPIED) for entry in l1) or any(table % CLUSTER for table in tables):
            raise self._lie("has an entry of a kind that is never written")
        if len(set(tables)) != len(tables):  # a short file could stand for a thousand million clusters
            raise self._lie("uses a table twice")
        for table in tables:
            self._check_place(table)
        return l1

    def _codec_of(self, incompatible: int, compression_type: int) -> Codec:
        """`unsupported` where what it needs is not installed."""
        found = codec_of(compression_type)
        if found is None or incompatible != (OTHER_COMPRESSION if compression_type else 0):
            raise self._lie("uses a feature that is never written")
        return found

    def _check_pack(self, entry: int) -> None:
        pack = Pack.of(entry, self._file_size)
        if entry & COPIED or self._crypt or not self._tables_end <= pack.start < pack.end:
            raise self._lie("points outside of what it holds")

    def _check_place(self, offset: int) -> None:
        """Of an L2 table or data: behind the L1 table, and within the file."""
        if not self._tables_end <= offset <= self._file_size - CLUSTER:
            raise self._lie("points outside of what it holds")

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
