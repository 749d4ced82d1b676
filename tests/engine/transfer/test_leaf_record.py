# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was read is known again, leaf by leaf, without a byte of memory for each."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from disks_in_memory import MemorySource

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.copy_blocks import copy_blocks
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import DigestTree, leaf_digests
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.leaf_record import LeafRecord
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits

ISLANDS = {0: 1, 63: 2, 64: 3, 200: 4, 201: 5}  # leaves of a disk that is zeros elsewhere, and a seed for each
COUNT, TAIL = 450, 1000  # whole leaves, and bytes behind them


def disk(islands: dict[int, int], tail: bytes = b"\1" * TAIL) -> bytes:
    data = bytearray(COUNT * LEAF) + tail
    for leaf, seed in islands.items():
        data[leaf * LEAF : (leaf + 1) * LEAF] = random.Random(seed).randbytes(LEAF)
    return bytes(data)


def learnt(data: bytes, folder: Path, extents: Sequence[Extent] | None = None) -> LeafRecord:
    record = LeafRecord(len(data), folder)
    limits = Limits.of_transfer(any_offset=True, workers=3)
    copy_blocks(MemorySource(data, extents), None, record, limits=limits, flow=Flow())
    return record


def differing(record: LeafRecord, data: bytes) -> list[int]:
    found: list[int] = []
    limits = Limits.of_transfer(any_offset=True, workers=3)
    copy_blocks(MemorySource(data), None, record.check("disk-0", found.append), limits=limits, flow=Flow())
    return sorted(found)


@pytest.mark.parametrize("islands", [ISLANDS, {}, {COUNT - 1: 9}])
def test_the_root_is_that_of_the_data_and_the_same_data_fits(islands: dict[int, int], tmp_path: Path) -> None:
    data = disk(islands)
    with learnt(data, tmp_path) as record:
        tree = DigestTree(len(data))
        found = leaf_digests(bytearray(data), len(data))
        for chunk in range(0, len(found), 64):
            tree.add(chunk // 64, {at: one for at, one in enumerate(found[chunk : chunk + 64]) if one})
        assert record.finish() == tree.root()
        assert differing(record, data) == []


@pytest.mark.parametrize(
    ("other", "leaves"),
    [
        (({**ISLANDS, 64: 7},), [64]),
        (({leaf: seed for leaf, seed in ISLANDS.items() if leaf != 200},), [200]),  # zeros, where there was data
        (({**ISLANDS, 300: 8},), [300]),  # data, where there were zeros
        ((ISLANDS, b"\1" * (TAIL - 1) + b"\2"), [COUNT]),
    ],
    ids=["other-data", "zeros", "data", "tail"],
)
def test_what_differs_is_told_by_its_place(other: tuple[Any, ...], leaves: list[int], tmp_path: Path) -> None:
    with learnt(disk(ISLANDS), tmp_path) as record:
        assert differing(record, disk(*other)) == leaves


def test_a_terabyte_of_zeros_takes_no_room(tmp_path: Path) -> None:
    class Empty(MemorySource):
        size = 1 << 40

    with LeafRecord(1 << 40, tmp_path) as record:
        source = Empty(b"", [Extent(0, 1 << 40, "zero")])
        copy_blocks(source, None, record, limits=Limits.of_transfer(any_offset=True, workers=1), flow=Flow())
        assert os.fstat(record._file.fileno()).st_blocks == 0


def test_nothing_of_it_has_a_name(tmp_path: Path) -> None:
    with learnt(disk(ISLANDS), tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_unused: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(VmferryError) as caught, LeafRecord(LEAF, tmp_path) as record:
        record.compare(0, [b"\1" * 32], [None])
    assert (caught.value.kind, "state_dir" in caught.value.hint) == ("no_space", True)
