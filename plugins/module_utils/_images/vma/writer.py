# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-pass writer of one disk's extents in a VMA, behind its header and the extents of other disks.

Every cluster is told of, also one of zeros: whoever restores the VM misses the others.
"""

from __future__ import annotations

from typing import List, Sequence

from ..._blocks import LEAF, ImageOutput
from ..._errors import VmferryError
from ..vma_header import CLUSTER, NoVma, VmaHeader
from ..whole_leaves import WholeLeaves
from .extents import BLOCK, BLOCKS, CLUSTERS, EXTENT_HEADER, FULL, Cluster, packed_extent

_ZERO_BLOCK = bytes(BLOCK)


def packed_header(header: VmaHeader) -> bytes:
    """What a VMA begins with. Raises `unsupported` for what has no room in it."""
    try:
        return header.pack()
    except NoVma as error:
        raise VmferryError("unsupported", f"A VMA {error}.", "Use qcow2.") from error


def extents_bound(size: int, data: int) -> int:
    """Bytes that no extents of such a disk exceed, with so much data in whole leaves."""
    return -(-size // (CLUSTER * CLUSTERS)) * EXTENT_HEADER + data


class VmaExtents:
    """Plays ImageWriter."""

    head_size = 0
    codec = None
    encrypts = False

    def __init__(self, device: int, size: int, uuid: bytes, output: ImageOutput, *, data_bound: int) -> None:
        """`device`: its number. `size`: bytes of the disk, which in the header are whole sectors."""
        self.size_bound = extents_bound(size, data_bound)
        self._device, self._end, self._uuid, self._file = device, -(-size // CLUSTER), uuid, WholeLeaves(output)
        self._clusters: List[Cluster] = []
        self._stored = bytearray()
        self._next = 0  # cluster

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        self._zeros_until(offset // CLUSTER)
        for at in range(0, len(run), LEAF):
            self._put(bytes(run[at : at + LEAF]))

    def zero(self, offset: int, length: int) -> None:
        """The next data, or the end, say how many clusters of zeros there are."""

    def finish(self) -> None:
        self._zeros_until(self._end)
        self._close()
        self._file.finish()

    def head(self) -> bytes:
        return b""

    def _zeros_until(self, cluster: int) -> None:
        while self._next < cluster:
            self._add(0)

    def _put(self, data: bytes) -> None:
        mask = 0
        for block in range(BLOCKS):
            if not data.startswith(_ZERO_BLOCK, block * BLOCK):
                mask |= 1 << block
        if mask == FULL:
            self._stored += data
        else:
            for block in range(BLOCKS):
                if mask >> block & 1:
                    self._stored += data[block * BLOCK : (block + 1) * BLOCK]
        self._add(mask)

    def _add(self, mask: int) -> None:
        self._clusters.append(Cluster(self._device, self._next, mask))
        self._next += 1
        if len(self._clusters) == CLUSTERS:
            self._close()

    def _close(self) -> None:
        if self._clusters:
            self._file.put(packed_extent(self._uuid, self._clusters))
            self._file.put(self._stored)
            self._clusters, self._stored = [], bytearray()
