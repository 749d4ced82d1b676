# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VMA as a stream: read from its first byte to its last, and never back. So comes one that is packed as a whole.

Fails closed: a cluster that is there twice, or not at all, ends it as it ends Proxmox VE's own restore.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Iterator, Optional, Sequence, Tuple

from ..._errors import VmferryError
from ..vma_header import CLUSTER, HEADER, VM_STATE, NoVma, VmaDevice, VmaHeader, header_size
from .extents import BLOCK, EXTENT_HEADER, Cluster, fits, runs_of, unpacked_extent

_PAGE = 8192  # bytes of one bit for each cluster: of 4 GiB


class _Seen:
    """Which clusters of a disk there were. Takes memory for what came, whatever the header says of the disk."""

    def __init__(self, disk: VmaDevice) -> None:
        self.disk, self._count = disk, 0
        self._pages: Dict[int, bytearray] = {}

    @property
    def is_whole(self) -> bool:
        return self._count == self.disk.clusters

    def take(self, cluster: Cluster) -> bool:
        """False where it was there before, or does not fit the disk."""
        page, bit = divmod(cluster.number, 8 * _PAGE)
        if not fits(cluster, self.disk):
            return False
        bits = self._pages.get(page)
        if bits is None:
            bits = self._pages[page] = bytearray(_PAGE)
        byte, bit = divmod(bit, 8)
        if bits[byte] >> bit & 1:
            return False
        bits[byte] |= 1 << bit
        self._count += 1
        return True


@dataclass(frozen=True)
class VmaRun:
    """`data` is None for zeros."""

    device: VmaDevice
    offset: int  # on the disk
    length: int
    data: Optional[memoryview]


class VmaStream:
    """`read(count)` gives as many bytes as there are, up to `count`.

    Raises `invalid_config` for what is no VMA, and for one that ends early.
    """

    def __init__(self, read: Callable[[int], bytes], where: str = "The stream") -> None:
        self._read, self._where = read, where
        try:
            start = self._exactly(HEADER)
            self.header = VmaHeader.unpack(start + self._exactly(header_size(start) - HEADER))
        except NoVma as error:
            raise self._lie(str(error)) from error
        self._devices = {device.number: device for device in self.header.devices}
        self._seen = {disk.number: _Seen(disk) for disk in self.header.disks}

    def runs(self, step: Callable[[], object] = lambda: None) -> Iterator[VmaRun]:
        """Every byte of every disk once, in the order of the stream. What was the guest's memory is left out.

        `step` is called with each extent, of 4 MiB at the most: there may be gigabytes of them without any run.
        """
        while True:
            step()
            header = self._up_to(EXTENT_HEADER)
            if not header:
                break
            clusters, stored = self._extent(header)
            data, at = memoryview(self._exactly(stored)), 0
            for cluster in clusters:
                yield from self._runs(cluster, data[at : at + cluster.stored])
                at += cluster.stored
        for seen in self._seen.values():
            if not seen.is_whole:
                raise self._lie(f"ends without all of its disk {seen.disk.name}")

    def _extent(self, header: bytes) -> Tuple[Sequence[Cluster], int]:
        found = unpacked_extent(header, self.header.uuid) if len(header) == EXTENT_HEADER else None
        if found is None:
            raise self._lie("has no extent where one should begin")
        return found[0], found[1]  # in words that pylint follows, too

    def _runs(self, cluster: Cluster, data: memoryview) -> Iterator[VmaRun]:
        device = self._devices.get(cluster.device)
        if device is None:
            raise self._lie(f"has a cluster of a disk {cluster.device} that it has not")
        if device.name == VM_STATE:
            return
        offset, at = cluster.number * CLUSTER, 0
        if not self._seen[device.number].take(cluster):
            raise self._lie(f"has cluster {cluster.number} of its disk {device.name} twice, or behind its end")
        for is_stored, count in runs_of(cluster.mask):
            length = min(count * BLOCK, device.size - offset)
            if length > 0:
                yield VmaRun(device, offset, length, data[at : at + length] if is_stored else None)
            offset, at = offset + count * BLOCK, at + count * BLOCK * is_stored

    def _exactly(self, count: int) -> bytes:
        data = self._up_to(count)
        if len(data) < count:
            raise self._lie("ends early")
        return data

    def _up_to(self, count: int) -> bytes:
        pieces, left = [], count
        while left:
            piece = self._read(left)
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _lie(self, what: str) -> VmferryError:
        return VmferryError("invalid_config", f"{self._where} {what}.", "It was damaged, or it is of another kind.")
