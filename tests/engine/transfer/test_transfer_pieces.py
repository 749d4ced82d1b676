# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts that are larger than memory has room for go in pieces: the same object, the same proofs, less at once."""

from __future__ import annotations

import pytest
from disk_strategies import SEEDS, random_disk, random_extents
from disks_in_memory import MemoryParts, MemorySource, PackedImage, RawImage, Rules, naive_proof, unpacked
from engine.searching import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import DigestWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import STORE_BUDGET, Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.part_sizes import PartSizes
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.pipeline import export_disk
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress

MIB = 1 << 20
FEW_PARTS = Rules(max_parts=5, joins_pieces=True)


@pytest.mark.parametrize("part", [1, 2, 3])
@pytest.mark.parametrize("format_", ["raw", "packed", "packed with tables"])
@given(seed=SEEDS, size=st.integers(1, 90 * LEAF), budget=st.integers(1, 12))
@settings(deadline=None, max_examples=examples(25))
def test_what_is_stored_in_pieces_is_the_disk(format_: str, part: int, seed: int, size: int, budget: int) -> None:
    limits = Limits(workers=3, window=4 * LEAF, part=part * LEAF, part_budget=budget * LEAF)
    disk, store, progress = random_disk(seed, size), MemoryParts(), DiskProgress()

    def make_image(output, data_bound):
        if format_ == "raw":
            return RawImage(size, output)
        return PackedImage(size, output, data_bound, tables=format_.count("tables"))

    result = export_disk(
        MemorySource(disk, random_extents(seed, disk)),
        make_image,
        store,
        DigestWriter(size, bytearray().extend),
        limits=limits,
        rules=FEW_PARTS,
        flow=Flow(),
        progress=progress,
    )
    store.complete(result.receipts, result.size)
    stored = store.object
    assert stored is not None
    assert (stored if format_ == "raw" else unpacked(stored)) == disk
    assert [receipt.proof for receipt in result.receipts] == [
        naive_proof(stored[r.part.offset : r.part.offset + r.part.size]) for r in result.receipts
    ]
    assert len(result.receipts) <= FEW_PARTS.max_parts
    assert progress.bytes_sent == result.bytes_stored == len(stored)
    assert store.pieces == {}


def test_pieces_are_what_memory_has_room_for() -> None:
    limits = Limits(workers=2, window=4 * LEAF, part=2 * LEAF, part_budget=6 * LEAF)
    disk, store = random_disk(1, 80 * LEAF), MemoryParts()
    export_disk(
        MemorySource(disk, random_extents(1, disk)),
        lambda output, data_bound: RawImage(len(disk), output),
        store,
        DigestWriter(len(disk), bytearray().extend),
        limits=limits,
        rules=FEW_PARTS,
        flow=Flow(),
    )
    # MemoryParts sends a part that is joined by `write_part`; what came from here came in pieces.
    assert store.sent_at_once == {2 * LEAF}


S3 = {"max_parts": 10_000, "min_part": 5 * MIB, "max_part": 5 << 30}


@given(st.integers(1, 48 << 40), st.integers(0, 64).map(lambda leaves: leaves * LEAF), st.integers(1, 16))
def test_the_largest_object_takes_no_more_memory_than_a_small_one(bound: int, head: int, workers: int) -> None:
    limits = Limits.of_transfer(any_offset=False, workers=workers)
    sizes = PartSizes.for_object(max(bound, head), head, limits.part, Rules(**S3, max_object=50 << 40))
    pieces = sizes.pieces(limits.part_budget, limits.part, head, 5 * MIB)
    held = pieces.first if head else 0
    buffers = max(1, (limits.part_budget - held) // pieces.other)
    assert held + buffers * pieces.other + limits.workers * limits.window <= STORE_BUDGET
    assert pieces.first >= min(sizes.first, head + 5 * MIB)
    assert 5 * MIB <= pieces.other <= sizes.other
    assert -(-sizes.first // pieces.other) <= 10_000
