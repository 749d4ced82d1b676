# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Extents of a VMA: 59 clusters of 64 KiB at the most, of any disk and in any order, without blocks of zeros."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Iterator, List, Optional, Sequence, Tuple, Union

from ..vma_header import CLUSTER, VmaDevice

BLOCK = 4096
BLOCKS = CLUSTER // BLOCK  # of a cluster; one bit each, the first one's the lowest
FULL = (1 << BLOCKS) - 1
CLUSTERS = 59
EXTENT_HEADER = 512
LARGEST_EXTENT = EXTENT_HEADER + CLUSTERS * CLUSTER
_MAGIC = b"VMAE"
_START = struct.Struct(">4sHH16s16s")
UUID = slice(8, 24)  # of an extent: the archive's
_SUM = slice(24, 40)
_INFOS = struct.Struct(f">{CLUSTERS}Q")
STORED = bytes(bin(bits).count("1") for bits in range(1 << 8))  # blocks, by one byte of a mask


@dataclass(frozen=True)
class Cluster:
    """`mask`: which of its blocks are stored, one behind the other."""

    device: int
    number: int
    mask: int

    @property
    def stored(self) -> int:
        """Bytes."""
        return BLOCK * stored_blocks(self.mask)


def stored_blocks(mask: int) -> int:
    return STORED[mask & 255] + STORED[mask >> 8]


def packed_extent(uuid: bytes, clusters: Sequence[Cluster]) -> bytes:
    """The header; what is stored follows."""
    infos = [one.mask << 48 | one.device << 32 | one.number for one in clusters]
    infos += [0] * (CLUSTERS - len(infos))
    blocks = sum(one.stored for one in clusters) // BLOCK
    header = bytearray(_START.pack(_MAGIC, 0, blocks, uuid, bytes(16)) + _INFOS.pack(*infos))
    header[_SUM] = _md5(header)
    return bytes(header)


def unpacked_extent(header: bytes, uuid: bytes) -> Optional[Tuple[List[Cluster], int]]:
    """Its clusters, in their order, and the bytes of what is stored of them all. None where that is none of `uuid`."""
    magic, reserved, blocks, found, digest = _START.unpack_from(header)
    if magic != _MAGIC or reserved or found != uuid:
        return None
    if _md5(header[: _SUM.start] + bytes(16) + header[_SUM.stop :]) != digest:
        return None
    infos = _INFOS.unpack_from(header, _START.size)
    clusters = [Cluster(info >> 32 & 255, info & 0xFFFFFFFF, info >> 48) for info in infos if info >> 32 & 255]
    stored = sum(one.stored for one in clusters)
    return (clusters, stored) if stored == blocks * BLOCK else None


def runs_of(mask: int) -> Iterator[Tuple[bool, int]]:
    """Whether blocks are stored, and how many neighbours."""
    if mask in (0, FULL):
        yield bool(mask), BLOCKS
        return
    last, count = bool(mask & 1), 0
    for block in range(BLOCKS):
        is_stored = bool(mask >> block & 1)
        if is_stored != last:
            yield last, count
            last, count = is_stored, 0
        count += 1
    yield last, count


def fits(cluster: Cluster, disk: VmaDevice) -> bool:
    """Whether the disk has it. No block behind the disk's end is stored, but for a cluster of which all are."""
    length = disk.size - cluster.number * CLUSTER
    return length > 0 and (cluster.mask == FULL or not cluster.mask >> -(-length // BLOCK))


def _md5(data: Union[bytes, bytearray]) -> bytes:
    return hashlib.new("md5", data, usedforsecurity=False).digest()
