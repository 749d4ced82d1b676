# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-pass qcow2, packed: data in guest order, L2 tables and refcount blocks inline, a small head last.

Nothing but the head is ever patched. A refcount block covers a stretch of 32768 host clusters and is that stretch's
last cluster (the last stretch's is the file's last), so when it is written, every reference it counts is known: one for
each cluster of its stretch.
"""

from __future__ import annotations

from array import array
from typing import Optional, Sequence

from ..._blocks import Codec, ImageOutput
from .format import (
    CLUSTER,
    COPIED,
    L2_ENTRIES,
    ONE_EACH,
    REFCOUNTS,
    ZERO_CLUSTER,
    Head,
    backing_name,
    big_endian,
    clusters,
    disk_tables,
)


def packed_bound(size: int, data: int, crypto_size: int = 0) -> int:
    """Bytes that no image of such a disk exceeds, with so many of data in whole clusters, and a crypto header."""
    return CLUSTER * _bounds(size, min(size, data), clusters(crypto_size))[1]


def _bounds(size: int, data: int, crypto: int) -> tuple[int, int]:
    """Clusters of the refcount table, and of the whole image, at the most. `crypto`: clusters of the crypto header."""
    tables = disk_tables(size)
    counted = (
        clusters(data) + tables + 2 + clusters(8 * tables) + crypto
    )  # all clusters but refcount blocks and their table
    table_clusters = clusters(8 * (clusters(counted, REFCOUNTS - 2) + 1))
    return table_clusters, counted + table_clusters + clusters(counted + table_clusters, REFCOUNTS - 1) + 1


class PackedQcow2:
    """Plays ImageWriter. Full, or with `backing` a layer on the image of that name."""

    def __init__(
        self,
        size: int,
        output: ImageOutput,
        *,
        data_bound: Optional[int] = None,
        backing: str = "",
        compression_type: int = 0,
        crypto_size: int = 0,
    ) -> None:
        """`data_bound`: bytes of data, in whole clusters, that will come at the most; by default the whole disk."""
        self._backing = backing_name(size, backing)
        self._output, tables = output, disk_tables(size)
        room = size if data_bound is None else min(size, data_bound)
        table_clusters, self._bound = _bounds(size, room, clusters(crypto_size))
        self._head = Head(size, tables, table_clusters, compression_type, crypto_size)
        self._l1 = array("Q", bytes(8 * tables))
        self._blocks: list[int] = []  # offset of each refcount block
        self._l2: Optional[array[int]] = None
        self._l2_index = -1
        self._next = self._head.length // CLUSTER  # host cluster

    @property
    def codec(self) -> Optional[Codec]:
        return None

    @property
    def encrypts(self) -> bool:
        return False

    @property
    def head_size(self) -> int:
        return self._head.length

    @property
    def size_bound(self) -> int:
        return CLUSTER * self._bound

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        at = 0
        while at < len(run):
            table, index = self._open_l2((offset + at) // CLUSTER)
            room = min(REFCOUNTS - 1 - self._next % REFCOUNTS, L2_ENTRIES - index)
            if not room:
                self._close_stretch()
                continue
            count = min(room, (len(run) - at) // CLUSTER)
            first = self._next * CLUSTER | COPIED
            table[index : index + count] = array("Q", range(first, first + count * CLUSTER, CLUSTER))
            self._put(run[at : at + count * CLUSTER], digests[at // CLUSTER : at // CLUSTER + count])
            at += count * CLUSTER

    def zero(self, offset: int, length: int) -> None:
        """Hides the parent's data. A full image has no parent: what it does not map reads as zeros."""
        if not self._backing:
            return
        first, end = offset // CLUSTER, clusters(offset + length)
        while first < end:
            table, index = self._open_l2(first)
            count = min(end - first, L2_ENTRIES - index)
            table[index : index + count] = array("Q", [ZERO_CLUSTER]) * count
            first += count

    def finish(self) -> None:
        self._close_l2()
        self._put_refcounts(self._next % REFCOUNTS + 1)

    def head(self) -> bytes:
        return self._head.pack(self._l1, self._blocks, self._backing)

    def _open_l2(self, guest_cluster: int) -> tuple[array[int], int]:
        index, entry = divmod(guest_cluster, L2_ENTRIES)
        if self._l2 is None or index != self._l2_index:
            self._close_l2()
            self._l2, self._l2_index = array("Q", bytes(CLUSTER)), index
        return self._l2, entry

    def _close_l2(self) -> None:
        if self._l2 is not None:
            if self._next % REFCOUNTS == REFCOUNTS - 1:
                self._close_stretch()
            self._l1[self._l2_index] = self._next * CLUSTER | COPIED
            self._put(memoryview(big_endian(self._l2)))
            self._l2 = None

    def _close_stretch(self) -> None:
        self._put_refcounts(REFCOUNTS)

    def _put_refcounts(self, count: int) -> None:
        """Of the so many clusters of this stretch, the last of which is where they go."""
        self._blocks.append(self._next * CLUSTER)
        self._put(memoryview(self._refcounts(count)))

    def _refcounts(self, count: int) -> bytes:
        return ONE_EACH[: 2 * count].ljust(CLUSTER, b"\0")

    def _put(self, data: memoryview, digests: Optional[Sequence[bytes]] = None) -> None:
        self._next += len(data) // CLUSTER
        self._output.emit(data, digests)
