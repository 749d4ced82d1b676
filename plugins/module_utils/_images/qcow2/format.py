# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words of the qcow2 format, version 3: https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt"""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass
from typing import Sequence

from ..._blocks import LEAF
from ..._errors import VmferryError

CLUSTER = LEAF
CLUSTER_BITS = 16
L2_ENTRIES = CLUSTER // 8  # one L2 table maps 512 MiB
REFCOUNTS = CLUSTER // 2  # 16-bit: one refcount block counts 2 GiB of the file
REFCOUNT_ORDER = 4
SECTOR = 512  # what a virtual size is a multiple of
COPIED = 1 << 63
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
ZERO_CLUSTER = 1  # of the entry of a cluster that is not compressed
COMPRESSED = 1 << 62
COMPRESSED_OFFSET_BITS = 62 - (CLUSTER_BITS - 8)  # in the entry of a compressed cluster; above it, further sectors
OTHER_COMPRESSION = 8  # incompatible feature: compression_type is not 0
MAGIC = b"QFI\xfb"
BACKING_FORMAT = 0xE2792ACA  # header extension
CRYPTO_HEADER = 0x0537BE77  # header extension: where the LUKS header lies, and its length
EXTENSION = struct.Struct(">II")
CRYPTO_PLACE = struct.Struct(">QQ")
PLAIN, LUKS = 0, 2  # crypt_method
HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQIIB7x")
ONE_EACH = b"\0\1" * REFCOUNTS  # a refcount block whose clusters are all in use, once
LONGEST_BACKING = 1023  # bytes
LARGEST_DISK = 64 << 40  # bytes; an L1 table of 1 MiB, well below QEMU's limit of 32 MiB


def clusters(length: int, unit: int = CLUSTER) -> int:
    return -(-length // unit)


def virtual_size(size: int) -> int:
    """QEMU counts in sectors, and cuts off what is less than one: a disk's odd end is rounded up, with zeros."""
    return clusters(size, SECTOR) * SECTOR


def big_endian(table: array[int]) -> bytes:
    copy = table[:]
    if sys.byteorder == "little":
        copy.byteswap()
    return copy.tobytes()


def backing_name(size: int, backing: str) -> bytes:
    """As it goes into the header. Refuses a name, or a disk's size, that an image of ours cannot have."""
    if not 0 <= size <= LARGEST_DISK:
        raise VmferryError("unsupported", f"A disk of {size} bytes is larger than a qcow2 image of ours can be.")
    name = backing.encode()
    if len(name) > LONGEST_BACKING:
        raise VmferryError("invalid_config", f"The backing file's name is longer than {LONGEST_BACKING} bytes.")
    return name


def disk_tables(size: int) -> int:
    """L2 tables that a disk can have. At least one: QEMU takes the cluster of an empty L1 table for a leak."""
    return max(1, clusters(size, CLUSTER * L2_ENTRIES))


@dataclass(frozen=True)
class Head:
    """Everything that lies in front of the first data cluster: header, L1 table, refcount table."""

    size: int
    l1_entries: int
    table_clusters: int
    compression_type: int = 0
    crypto_size: int = 0  # bytes of a LUKS header behind the refcount table

    @property
    def l1_clusters(self) -> int:
        return clusters(8 * self.l1_entries)

    @property
    def length(self) -> int:
        return self._crypto_at + CLUSTER * clusters(self.crypto_size)

    @property
    def _crypto_at(self) -> int:
        return CLUSTER * (1 + self.l1_clusters + self.table_clusters)

    def pack(self, l1: array[int], refcount_blocks: Sequence[int], backing: bytes, crypto_header: bytes = b"") -> bytes:
        """`l1` as it is in the file, but for the byte order; `refcount_blocks`: their offsets."""
        head = bytearray(self.length)
        extensions = struct.pack(">II8s", BACKING_FORMAT, 5, b"qcow2") if backing else b""
        if self.crypto_size:
            extensions += EXTENSION.pack(CRYPTO_HEADER, CRYPTO_PLACE.size)
            extensions += CRYPTO_PLACE.pack(self._crypto_at, self.crypto_size)
        extensions += bytes(EXTENSION.size)
        name_at = HEADER.size + len(extensions)
        l1_at, table_at = CLUSTER, CLUSTER * (1 + self.l1_clusters)
        HEADER.pack_into(
            head, 0, MAGIC, 3, name_at if backing else 0, len(backing), CLUSTER_BITS, virtual_size(self.size),
            LUKS if self.crypto_size else PLAIN, self.l1_entries, l1_at, table_at, self.table_clusters, 0, 0,
            OTHER_COMPRESSION if self.compression_type else 0, 0, 0, REFCOUNT_ORDER, HEADER.size, self.compression_type,
        )  # fmt: skip
        head[HEADER.size : name_at + len(backing)] = extensions + backing
        head[l1_at : l1_at + 8 * len(l1)] = big_endian(l1)
        head[table_at : table_at + 8 * len(refcount_blocks)] = big_endian(array("Q", refcount_blocks))
        head[self._crypto_at : self._crypto_at + self.crypto_size] = crypto_header
        return bytes(head)


def backing_name_in(head: bytes) -> str:
    """The backing file's name in the first cluster of an image; empty where it has none. Raises `invalid_config`."""
    if len(head) < HEADER.size or head[:4] != MAGIC:
        raise VmferryError("invalid_config", "What should be an image has no header of one.")
    offset, length = HEADER.unpack_from(head)[2:4]
    if length > LONGEST_BACKING or offset + length > len(head):
        raise VmferryError("invalid_config", "An image names its backing file in a place where none of ours does.")
    return bytes(head[offset : offset + length]).decode(errors="replace")
