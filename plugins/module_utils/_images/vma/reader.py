# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VMA in a file, read by ranges: the headers of all its extents first, then from its disks whatever is asked for."""

from __future__ import annotations

from array import array
from typing import Iterator, Mapping, Sequence, Tuple, Union

from ..._blocks import Extent, Kind, Piece
from ..._errors import VmferryError
from ..mapped import NOWHERE, ReadAt, check_bounds, joined, read_mapped
from ..vma_header import CLUSTER, HEADER, VM_STATE, NoVma, VmaDevice, VmaHeader, header_size
from .extents import BLOCK, CLUSTERS, EXTENT_HEADER, FULL, UUID, Cluster, fits, stored_blocks, unpacked_extent

LARGEST_MAP = 256 << 20  # bytes of memory for where clusters lie: of 2.6 TiB of disks
_UNIT = 512  # of a place, from the end of the header on: what all extents are a multiple of
_MOST_UNITS = (1 << 32) - 1
_AHEAD = 1 << 17  # bytes of headers


class VmaArchive:
    """`disks`: by their names. Each plays BlockSource; thread-safe if `read_at` is."""

    def __init__(self, read_at: ReadAt, file_size: int, where: str = "The archive") -> None:
        """Raises `invalid_config` for what is no VMA, or lacks a part of a disk; `unsupported` for one too large."""
        self._read_at, self._file_size, self._where = read_at, file_size, where
        try:
            start = self._read(0, HEADER)
            size = header_size(start)
            self.header = VmaHeader.unpack(start + self._read(HEADER, size - HEADER))
        except NoVma as error:
            raise self._lie(str(error)) from error
        self._check_room(size)
        wide = file_size // _UNIT > _MOST_UNITS
        places = {disk.number: _Places(disk, size, wide) for disk in self.header.disks}
        self._find_clusters(size, places)
        self.disks: Mapping[str, VmaDisk] = {
            one.disk.name: VmaDisk(read_at, one, f"{where}: {one.disk.name}", one.disk.size) for one in places.values()
        }

    def _check_room(self, start: int) -> None:
        """Before any memory is taken: of each cluster, the file has at least eight bytes."""
        clusters = sum(disk.clusters for disk in self.header.disks)
        if clusters * 8 > self._file_size - start:
            raise self._lie("ends without all of its disks")
        if clusters * _Places.COST > LARGEST_MAP:
            text = f"{self._where} has disks of {clusters * CLUSTER} bytes, which is more than is read by ranges."
            raise VmferryError("unsupported", text, "Restore it with qmrestore, or read it as a stream.")

    def _find_clusters(self, at: int, places: Mapping[int, _Places]) -> None:
        known = {device.number: device for device in self.header.devices}
        for clusters, place in _Extents(self._read_at, self._file_size, self._where).found(at, self.header.uuid):
            for cluster in clusters:
                device = known.get(cluster.device)
                if device is None:
                    raise self._lie(f"has a cluster of a disk {cluster.device} that it has not")
                if device.name != VM_STATE and not places[device.number].put(cluster, place):
                    raise self._lie(f"has cluster {cluster.number} of its disk {device.name} twice, or behind its end")
                place += cluster.stored
        for one in places.values():
            if not one.is_whole:
                raise self._lie(f"ends without all of its disk {one.disk.name}")

    def _read(self, offset: int, length: int) -> bytes:
        if offset + length > self._file_size:
            raise self._lie("ends early")
        data = bytearray(length)
        if length:
            self._read_at(offset, memoryview(data))
        return bytes(data)

    def _lie(self, what: str) -> VmferryError:
        return _lie(self._where, what)


def vma_disk(read_at: ReadAt, length: int, size: int, where: str = "The image") -> VmaDisk:
    """`read_at`: of the extents of one disk of `size` bytes, `length` of them, in the order of the disk. Raises
    `invalid_config`.
    """
    start = bytearray(min(length, EXTENT_HEADER))
    if start:
        read_at(0, memoryview(start))
    places = _InOrder()
    for clusters, at in _Extents(read_at, length, where).found(0, bytes(start[UUID])):
        if not places.put(clusters, at):
            raise _lie(where, "has clusters of another disk, or in another order than its own")
    if len(places.masks) != -(-size // CLUSTER):
        raise _lie(where, f"has {len(places.masks)} clusters, and not those of a disk of {size} bytes")
    return VmaDisk(read_at, places, where, size)


class _Extents:
    """Headers of extents, one behind the other. Where nothing is stored between them, they are read many at once."""

    def __init__(self, read_at: ReadAt, file_size: int, where: str) -> None:
        self._read_at, self._file_size, self._where = read_at, file_size, where
        self._held, self._start = b"", 0

    def found(self, at: int, uuid: bytes) -> Iterator[Tuple[Sequence[Cluster], int]]:
        """The clusters of each, and where what is stored of them begins. `at`: of the first extent."""
        ahead = EXTENT_HEADER
        while at < self._file_size:
            found = unpacked_extent(self._header(at, ahead), uuid)
            if found is None:
                raise _lie(self._where, f"has no extent at byte {at} of it")
            at += EXTENT_HEADER
            clusters, stored = found
            ahead = EXTENT_HEADER if stored else _AHEAD
            if at + stored > self._file_size:
                raise _lie(self._where, "ends early")
            yield clusters, at
            at += stored

    def _header(self, at: int, ahead: int) -> bytes:
        if at + EXTENT_HEADER > self._file_size:
            raise _lie(self._where, "ends early")
        if not self._start <= at <= self._start + len(self._held) - EXTENT_HEADER:
            data = bytearray(min(ahead, self._file_size - at))
            self._read_at(at, memoryview(data))
            self._held, self._start = bytes(data), at
        return self._held[at - self._start : at - self._start + EXTENT_HEADER]


def _lie(where: str, what: str) -> VmferryError:
    return VmferryError("invalid_config", f"{where} {what}.", "It was damaged, or it is of another kind.")


class _Places:
    """Where each cluster's stored blocks begin in the file, and which they are."""

    COST = 6  # bytes of memory for a cluster; of files of more than 2 TiB, 10

    def __init__(self, disk: VmaDevice, start: int, wide: bool) -> None:
        """`start`: where the header ends."""
        self.disk, self._start = disk, start
        self._units = array("Q" if wide else "I", [0]) * disk.clusters
        self.masks = array("H", [0]) * disk.clusters

    def put(self, cluster: Cluster, at: int) -> bool:
        """False where it was there before, or does not fit the disk."""
        if not fits(cluster, self.disk) or self._units[cluster.number]:
            return False
        self._units[cluster.number], self.masks[cluster.number] = (at - self._start) // _UNIT, cluster.mask
        return True

    @property
    def is_whole(self) -> bool:
        return 0 not in self._units

    def place(self, offset: int) -> Tuple[int, int]:
        number, skip = divmod(offset, CLUSTER)
        return _in_cluster(self.masks[number], self._start + self._units[number] * _UNIT, skip)


class _InOrder:
    """The same of the clusters of one disk as we write them: one behind the other, as many as fit in each extent. It
    takes two bytes and a little of memory for each that came.
    """

    def __init__(self) -> None:
        self.masks, self._starts = array("H"), array("Q")
        self._device = 0

    def put(self, clusters: Sequence[Cluster], at: int) -> bool:
        """False where they are not the next."""
        self._device = self._device or (clusters[0].device if clusters else 0)
        if len(self.masks) != CLUSTERS * len(self._starts):  # one before was not full
            return False
        self._starts.append(at)
        for cluster in clusters:
            if (cluster.device, cluster.number) != (self._device, len(self.masks)):
                return False
            self.masks.append(cluster.mask)
        return True

    def place(self, offset: int) -> Tuple[int, int]:
        number, skip = divmod(offset, CLUSTER)
        extent = number // CLUSTERS
        before = sum(map(stored_blocks, self.masks[extent * CLUSTERS : number]))
        return _in_cluster(self.masks[number], self._starts[extent] + BLOCK * before, skip)


def _in_cluster(mask: int, start: int, skip: int) -> Tuple[int, int]:
    """Where a byte of a cluster is whose stored blocks begin at `start`, and for how many bytes that goes on."""
    if not mask:
        return NOWHERE, CLUSTER - skip
    if mask == FULL:
        return start + skip, CLUSTER - skip
    block, within = divmod(skip, BLOCK)
    if not mask >> block & 1:
        return NOWHERE, BLOCK - within
    return start + BLOCK * stored_blocks(mask & ((1 << block) - 1)) + within, BLOCK - within


class VmaDisk:
    """Plays BlockSource."""

    def __init__(self, read_at: ReadAt, places: Union[_Places, _InOrder], where: str, size: int) -> None:
        self._read_at, self._places, self._where, self.size = read_at, places, where, size

    def extents(self) -> Iterator[Extent]:
        return joined(_kinds(self._places.masks), self.size)

    def read_into(self, pieces: Sequence[Piece]) -> None:
        check_bounds(pieces, self.size, self._where)
        read_mapped(self._read_at, self._places.place, pieces)

    def close(self) -> None:
        """Nothing is held."""


def _kinds(masks: array[int]) -> Iterator[Tuple[Kind, int]]:
    for mask in masks:
        yield "data" if mask else "zero", CLUSTER
