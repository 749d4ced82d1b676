# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dissect.archive, which knows nothing of ours, finds in a VMA: the same disks and files."""

from __future__ import annotations

from pathlib import Path

from dissect.archive.vma import VMA
from engine.images.disks import MIB, content, islands, mixed
from engine.images.test_vma import CONFIGS, blocks_of_zeros, expected_of, made

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent

DISKS = {
    "drive-scsi0": (9 * MIB, islands(9 * MIB, [0, 3 * LEAF, 5 * MIB, 9 * MIB - 1], 3 * LEAF)),
    "drive-virtio1": (59 * LEAF, [Extent(0, 59 * LEAF, "data")]),
    "drive-efidisk0": (528 * 1024, [Extent(0, 528 * 1024, "data")]),
    "drive-sata2": (4 * MIB, [Extent(0, 4 * MIB, "zero")]),
}


def test_another_reader_finds_the_same_disks_and_files(tmp_path: Path) -> None:
    for of in (content, mixed, blocks_of_zeros):
        path = tmp_path / "vzdump-qemu-100.vma"
        path.write_bytes(made(tmp_path / "extents", DISKS, of))
        with path.open("rb") as file:
            found = VMA(file)
            assert found.configs() == CONFIGS
            assert found.creation_time.timestamp() == 1700000000
            assert {disk.name: disk.open().read() for disk in found.devices()} == expected_of(tmp_path, DISKS, of)
