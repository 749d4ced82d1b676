# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-pass qcow2, packed, with compressed clusters: these lie one behind the other, at any byte.

A host cluster with compressed bytes has as many references as there are compressed clusters of which it holds a sector.
What is not compressed lies in whole host clusters, so the host cluster that was begun is filled up with zeros first.
That never makes an image longer than one without compression: at least one guest cluster begins in what is filled up.
"""

from __future__ import annotations

from array import array
from itertools import groupby
from typing import Optional, Sequence

from ..._blocks import ImageOutput
from .codecs import Codec
from .format import (
    CLUSTER,
    COMPRESSED,
    COMPRESSED_OFFSET_BITS,
    L2_ENTRIES,
    REFCOUNTS,
    SECTOR,
    big_endian,
)
from .packed import PackedQcow2


class CompressedQcow2(PackedQcow2):
    """Plays ImageWriter."""

    def __init__(
        self,
        size: int,
        output: ImageOutput,
        codec: Codec,
        *,
        data_bound: Optional[int] = None,
        backing: str = "",
    ) -> None:
        super().__init__(size, output, data_bound=data_bound, backing=backing, compression_type=codec.kind)
        self._codec = codec
        self._begun = bytearray()  # of the host cluster `_next`, and of those behind it
        self._references = _one_each()  # of the host clusters of this stretch

    @property
    def codec(self) -> Codec:
        return self._codec

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        first, count = offset // CLUSTER, len(run) // CLUSTER
        at = 0
        while at < count:  # a table is closed before the next one is begun
            end = min(count, at + L2_ENTRIES - (first + at) % L2_ENTRIES)
            self._table_data(first, range(at, end), run, digests, packed)
            at = end

    def _table_data(
        self,
        first: int,
        leaves: range,
        run: memoryview,
        digests: Sequence[bytes],
        packed: Sequence[bytes | None],
    ) -> None:
        """The compressed ones first: then there is one cluster at the most to be filled up."""
        for leaf in leaves:
            blob = packed[leaf]
            if blob is not None:
                self._pack(first + leaf, blob)
        self._put_whole()
        for is_packed, group in groupby(leaves, lambda leaf: packed[leaf] is not None):
            if not is_packed:
                plain = list(group)
                start, end = plain[0], plain[-1] + 1
                self._fill_up()
                super().data((first + start) * CLUSTER, run[start * CLUSTER : end * CLUSTER], digests[start:end])

    def _pack(self, guest_cluster: int, blob: bytes) -> None:
        table, index = self._open_l2(guest_cluster)
        if not self._has_room(len(blob)):
            self._fill_up()
            if not self._has_room(len(blob)):
                self._close_stretch()
        start = self._next * CLUSTER + len(self._begun)
        first_sector, last_sector = start // SECTOR, (start + len(blob) - 1) // SECTOR
        table[index] = COMPRESSED | (last_sector - first_sector) << COMPRESSED_OFFSET_BITS | start
        for cluster in range(first_sector * SECTOR // CLUSTER, last_sector * SECTOR // CLUSTER + 1):
            self._refer(cluster)
        self._begun += blob

    def _put_whole(self) -> None:
        """The host clusters that are full."""
        length = len(self._begun) // CLUSTER * CLUSTER
        if length:
            full, self._begun = self._begun, self._begun[length:]
            self._put(memoryview(full)[:length])

    def _has_room(self, length: int) -> bool:
        """In front of the cluster that ends this stretch."""
        left = REFCOUNTS - 1 - self._next % REFCOUNTS
        return len(self._begun) + length <= left * CLUSTER

    def _refer(self, cluster: int) -> None:
        is_new = cluster * CLUSTER >= self._next * CLUSTER + len(self._begun)
        index = cluster % REFCOUNTS
        self._references[index] = 1 if is_new else self._references[index] + 1

    def _fill_up(self) -> None:
        if self._begun:
            self._begun += bytes(-len(self._begun) % CLUSTER)
            self._put_whole()

    def _close_l2(self) -> None:
        self._fill_up()
        super()._close_l2()

    def _refcounts(self, count: int) -> bytes:
        counted, self._references = self._references[:count], _one_each()
        return big_endian(counted).ljust(CLUSTER, b"\0")


def _one_each() -> array[int]:
    return array("H", [1]) * REFCOUNTS
