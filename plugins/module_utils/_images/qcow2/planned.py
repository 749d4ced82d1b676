# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-pass qcow2, planned: every place is computed before the first byte, for sinks that take a file front to back.

In the file: header, L1 table, refcount table, refcount blocks, L2 tables, then the data in guest order.
"""

from __future__ import annotations

from array import array
from typing import Iterable, Iterator

from ..._blocks import Extent
from ..._errors import VmferryError
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


class PlannedQcow2:
    """Full, or with `backing` a layer on the image of that name. The file is all of `head()`, then all of `runs()`.

    `size` is the file's, exact; so is `head_size`.
    """

    def __init__(self, size: int, runs: Iterable[Extent], backing: str = "") -> None:
        """`runs`: ordered, in whole leaves up to the end of the disk; what they leave out is `unchanged`, which a full
        image reads as zeros.
        """
        self._backing = backing_name(size, backing)
        self._disk_size = size
        self._firsts, self._ends, self._are_data = array("Q"), array("Q"), bytearray()  # in clusters
        used = bytearray(disk_tables(size))
        for run in runs:
            self._take(run)
            if self._holds(run):
                first, end = run.offset // CLUSTER // L2_ENTRIES, clusters(run.end, CLUSTER * L2_ENTRIES)
                used[first:end] = b"\1" * (end - first)
        data = sum(self._ends[at] - self._firsts[at] for at, is_data in enumerate(self._are_data) if is_data)
        self._plan(used, data)

    def head(self) -> Iterator[bytes]:
        """In whole clusters: a large disk's L2 tables need not be in memory at once."""
        blocks = range(self._head.length, self._head.length + self._blocks * CLUSTER, CLUSTER)
        yield self._head.pack(self._l1, blocks, self._backing)
        counted = self.size // CLUSTER
        for block in range(self._blocks):
            yield ONE_EACH[: 2 * min(REFCOUNTS, counted - block * REFCOUNTS)].ljust(CLUSTER, b"\0")
        yield from self._tables()

    def runs(self) -> Iterator[Extent]:
        """The data to be sent behind the head, in the file's order and whole leaves: zeros follow the disk's end."""
        for first, end, is_data in zip(self._firsts, self._ends, self._are_data):
            if is_data:
                yield Extent(first * CLUSTER, (end - first) * CLUSTER, "data")

    def _holds(self, run: Extent) -> bool:
        return run.length > 0 and (run.kind == "data" or (run.kind == "zero" and bool(self._backing)))

    def _take(self, run: Extent) -> None:
        whole = not run.offset % CLUSTER and (not run.end % CLUSTER or run.end == self._disk_size)
        first, end, is_data = run.offset // CLUSTER, clusters(run.end), run.kind == "data"
        last = self._ends[-1] if self._ends else 0
        if not whole or first < last or run.length < 0 or run.end > self._disk_size:
            raise VmferryError("internal", f"The run of {run.length} bytes at {run.offset} has no place in an image.")
        if not self._holds(run):
            return
        if self._ends and first == last and is_data == self._are_data[-1]:
            self._ends[-1] = end
            return
        self._firsts.append(first)
        self._ends.append(end)
        self._are_data.append(is_data)

    def _plan(self, used: bytearray, data: int) -> None:
        table_clusters, blocks, total = 1, 0, 0
        while blocks * REFCOUNTS < total or not blocks:  # blocks count themselves, and their table
            blocks = max(1, clusters(total, REFCOUNTS))
            table_clusters = clusters(8 * blocks)
            self._head = Head(self._disk_size, len(used), table_clusters)
            total = self._head.length // CLUSTER + blocks + sum(used) + data
        self._blocks, self.size, self.head_size = blocks, total * CLUSTER, (total - data) * CLUSTER
        self._l1 = array("Q", bytes(8 * len(used)))
        at = self._head.length + blocks * CLUSTER
        for index, is_used in enumerate(used):
            if is_used:
                self._l1[index] = at | COPIED
                at += CLUSTER

    def _tables(self) -> Iterator[bytes]:
        table, opened, host = array("Q"), -1, self.head_size
        for first, end, is_data in zip(self._firsts, self._ends, self._are_data):
            while first < end:
                index, entry = divmod(first, L2_ENTRIES)
                if index != opened:
                    if table:
                        yield big_endian(table)
                    table, opened = array("Q", bytes(CLUSTER)), index
                count = min(end - first, L2_ENTRIES - entry)
                if is_data:
                    table[entry : entry + count] = array(
                        "Q", range(host | COPIED, host + count * CLUSTER | COPIED, CLUSTER)
                    )
                    host += count * CLUSTER
                else:
                    table[entry : entry + count] = array("Q", [ZERO_CLUSTER]) * count
                first += count
        if table:
            yield big_endian(table)
