# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMAs by another hand than the writer's: as vzdump makes them, with clusters in any order, and with a lie in each."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF

UUID = bytes(range(16))
BLOCK = 4096
Clusters = Sequence[tuple[int, int, bytes]]  # of which disk, its number there, and what is in it
Change = Callable[[bytearray], None]


def unchanged(_data: bytearray) -> None:
    """No lie."""


def put(form: str, at: int, *values: int | bytes) -> Change:
    def change(data: bytearray) -> None:
        struct.pack_into(form, data, at, *values)

    return change


def sealed(data: bytearray, at: int, change: Change) -> bytes:
    """With the MD5 over all of it, itself as zeros."""
    change(data)
    data[at : at + 16] = bytes(16)
    data[at : at + 16] = hashlib.md5(data).digest()
    return bytes(data)


@dataclass
class Archive:
    """`devices`: numbers, names and sizes."""

    devices: Sequence[tuple[int, str, int]]
    clusters: Clusters
    configs: Sequence[tuple[str, bytes]] = (("qemu-server.conf", b"name: web01\n"),)
    in_header: Change = unchanged
    in_extent: Change = unchanged
    _blobs: bytearray = field(default_factory=lambda: bytearray(1))

    def header(self) -> bytes:
        header = bytearray(12288)
        for number, (name, data) in enumerate(self.configs):
            struct.pack_into(">I", header, 2044 + 4 * number, self._blob(name.encode() + b"\0"))
            struct.pack_into(">I", header, 3068 + 4 * number, self._blob(data))
        for device, name, size in self.devices:
            struct.pack_into(">IIQ", header, 4096 + 32 * device, self._blob(name.encode() + b"\0"), 0, size)
        end = 12288 + len(self._blobs)
        struct.pack_into(">4sI16sQ16sIII", header, 0, b"VMA\0", 1, UUID, 1700000000, b"", 12288, len(self._blobs), end)
        return sealed(header + self._blobs, 32, self.in_header)

    def extents(self, clusters_each: int = 59) -> list[bytes]:
        groups = [self.clusters[at : at + clusters_each] for at in range(0, len(self.clusters), clusters_each)]
        return [self._extent(group) for group in groups]

    def whole(self, clusters_each: int = 59) -> bytes:
        return self.header() + b"".join(self.extents(clusters_each))

    def _blob(self, data: bytes) -> int:
        at = len(self._blobs)
        self._blobs += struct.pack("<H", len(data)) + data
        return at

    def _extent(self, clusters: Clusters) -> bytes:
        header, stored = bytearray(512), b""
        for number, (device, cluster, data) in enumerate(clusters):
            padded = data.ljust(LEAF, b"\0")
            mask = 0
            for block in range(16):
                one = padded[block * BLOCK : (block + 1) * BLOCK]
                if any(one):
                    mask |= 1 << block
                    stored += one
            struct.pack_into(">HBBI", header, 40 + 8 * number, mask, 0, device, cluster)
        struct.pack_into(">4sHH16s", header, 0, b"VMAE", 0, len(stored) // BLOCK, UUID)
        return sealed(header, 24, self.in_extent) + stored


def clusters_of(device: int, data: bytes) -> list[tuple[int, int, bytes]]:
    return [(device, at // LEAF, data[at : at + LEAF]) for at in range(0, len(data), LEAF)]
