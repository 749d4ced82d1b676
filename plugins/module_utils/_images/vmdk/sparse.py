# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-pass VMDK, monolithic and sparse: the format that VMware's hosted products, and QEMU, run VMs from.

Grains in guest order. The sixteen grain tables of each 512 MiB, and their redundant copies, are a leaf behind the
grains that they map, and the directories are in front of all, last. Tables that map nothing are there as well, as
holes: whoever runs a VM from the image allocates grains, but no tables.
"""

from __future__ import annotations

from array import array
from typing import Optional, Sequence

from ..._blocks import LEAF, ImageOutput
from ..._errors import VmferryError
from .format import (
    DESCRIPTOR_SECTORS,
    GRAIN_SECTORS,
    LARGEST_FILE,
    NEWLINES,
    REDUNDANT,
    SECTOR,
    TABLE_ENTRIES,
    TABLE_SIZE,
    Header,
    descriptor,
    little_endian,
    sectors,
    tables,
)

_GROUP = LEAF // (2 * TABLE_SIZE)  # tables of a leaf, each of them twice
_GROUP_GRAINS = _GROUP * TABLE_ENTRIES
_TABLE_SECTORS = TABLE_SIZE // SECTOR


def vmdk_sparse_bound(size: int, data: int) -> int:
    """Bytes that no such image exceeds, with so much data in whole grains."""
    return _head_size(size) + _groups(size) * LEAF + -(-min(data, _whole(size)) // LEAF) * LEAF


def _whole(size: int) -> int:
    return -(-size // LEAF) * LEAF


def _groups(size: int) -> int:
    return -(-tables(size) // _GROUP)


def _directory_sectors(size: int) -> int:
    return sectors(4 * tables(size))


def _head_size(size: int) -> int:
    return _whole((1 + DESCRIPTOR_SECTORS + 2 * _directory_sectors(size)) * SECTOR)


class SparseVmdk:
    """Plays ImageWriter."""

    codec = None
    encrypts = False

    def __init__(self, size: int, output: ImageOutput, *, data_bound: int, identity: bytes) -> None:
        self._size, self._output, self._identity = size, output, identity
        self.head_size, self.size_bound = _head_size(size), vmdk_sparse_bound(size, data_bound)
        if self.size_bound > LARGEST_FILE:
            raise VmferryError(
                "unsupported",
                f"An image of the format vmdk_sparse is at most {LARGEST_FILE} bytes long; this one may need "
                f"{self.size_bound}.",
                "Use qcow2, or raw.",
            )
        self._places = array("I", bytes(4 * _groups(size)))  # of leaves of tables, in sectors
        self._group: Optional[array[int]] = None
        self._index = -1
        self._next = self.head_size // SECTOR

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        at, count = 0, len(run) // LEAF
        while at < count:
            index, entry = divmod(offset // LEAF + at, _GROUP_GRAINS)
            group = self._opened(index)
            here = min(count - at, _GROUP_GRAINS - entry)
            end = self._next + here * GRAIN_SECTORS
            group[entry : entry + here] = array("I", range(self._next, end, GRAIN_SECTORS))
            self._output.emit(run[at * LEAF : (at + here) * LEAF], digests[at : at + here])
            self._next, at = end, at + here

    def zero(self, offset: int, length: int) -> None:
        """What no table maps reads as zeros."""

    def finish(self) -> None:
        self._close_group()
        missing = [index for index, place in enumerate(self._places) if not place]
        for index in missing:
            self._places[index] = self._next
            self._next += GRAIN_SECTORS
        if missing:
            self._output.hole(len(missing) * LEAF)

    def head(self) -> bytes:
        length, first = _directory_sectors(self._size), DESCRIPTOR_SECTORS + 1
        used = tables(self._size)
        places = [place + number * _TABLE_SECTORS for place in self._places for number in range(_GROUP)][:used]
        header = Header(
            version=1,
            flags=NEWLINES | REDUNDANT,
            capacity=sectors(self._size),
            directory=first + length,
            redundant_directory=first,
            overhead=self.head_size // SECTOR,
            compression=0,
        )
        head = header.pack() + descriptor(self._size, "monolithicSparse", self._identity)
        for copy in (_GROUP * _TABLE_SECTORS, 0):
            directory = array("I", [place + copy for place in places])
            head += little_endian(directory).ljust(length * SECTOR, b"\0")
        return head.ljust(self.head_size, b"\0")

    def _opened(self, index: int) -> array[int]:
        if self._group is None or index != self._index:
            self._close_group()
            self._group, self._index = array("I", bytes(4 * _GROUP_GRAINS)), index
        return self._group

    def _close_group(self) -> None:
        if self._group is not None:
            self._places[self._index] = self._next
            self._output.emit(memoryview(2 * little_endian(self._group)))
            self._next += GRAIN_SECTORS
            self._group = None
