# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers on layers, through the pipeline and the real qcow2: each holds what differs, and the whole is the disk."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import pytest
from disk_strategies import SEEDS, SIZES, random_disk
from disks_in_memory import MemoryParts, MemorySource, Rules, naive_root
from engine.searching import examples
from hypothesis import given, settings

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, BlockSource, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._images.layers import Layers
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.packed import PackedQcow2
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.reader import Qcow2Reader
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.copy_blocks import copy_blocks
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digest_check import DigestCheck
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digest_file import DigestReader, merged_leaves
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import DigestWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.pipeline import DiskResult, export_disk

LIMITS = Limits(workers=3, window=4 * LEAF, part=6 * LEAF, part_budget=16 * LEAF)


class Chain:
    """Exports of one disk, each on the one before."""

    def __init__(self) -> None:
        self.images: list[bytes] = []
        self.digests: list[bytes] = []
        self.size = 0

    def add(self, disk: bytes, extents: list[Extent] | None = None) -> DiskResult:
        file, parts = bytearray(), MemoryParts()
        backing = "../before/disk-0.qcow2" if self.images else ""
        result = export_disk(
            MemorySource(disk, extents),
            lambda output, bound: PackedQcow2(len(disk), output, data_bound=bound, backing=backing),
            parts,
            DigestWriter(len(disk), file.extend, self.leaves() if self.images else None),
            limits=LIMITS,
            rules=Rules(),
            flow=Flow(),
        )
        parts.complete(result.receipts, result.size)
        assert parts.object is not None
        self.images.append(parts.object)
        self.digests.append(bytes(file))
        self.size = len(disk)
        return result

    def leaves(self) -> Iterator:
        return merged_leaves([DigestReader(io.BytesIO(file).read) for file in self.digests])

    def source(self) -> BlockSource:
        source: BlockSource | None = None
        for image in self.images:
            source = Layers.on(source, self._reader(image, source))
        assert source is not None
        return source

    def _reader(self, image: bytes, backing: BlockSource | None) -> Qcow2Reader:
        def read_at(offset: int, buffer: memoryview) -> None:
            buffer[:] = image[offset : offset + len(buffer)]

        return Qcow2Reader(read_at, len(image), size=self.size, backing=backing)


def mutated(disk: bytes, seed: int) -> tuple[bytes, list[Extent]]:
    """The disk after a guest wrote here, discarded there; and a change map: coarse, and dirty where nothing differs."""
    chance, after = random.Random(seed), bytearray(disk)
    leaves = -(-len(disk) // LEAF)
    dirty = [chance.random() < 0.3 for _unused in range(leaves)]
    for index in range(leaves):
        at, end = index * LEAF, min((index + 1) * LEAF, len(disk))
        deed = chance.choice(["write", "rewrite", "zero", "a byte"]) if dirty[index] else ""
        if deed == "write":
            after[at:end] = chance.randbytes(end - at)
        elif deed == "zero":
            after[at:end] = bytes(end - at)
        elif deed == "a byte":
            after[chance.randrange(at, end)] ^= 0xFF
    extents = []
    for index in range(leaves):
        at, end = index * LEAF, min((index + 1) * LEAF, len(disk))
        hole = not any(after[at:end]) and chance.random() < 0.5
        extents.append(Extent(at, end - at, "unchanged" if not dirty[index] else "zero" if hole else "data"))
    return bytes(after), extents


@pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "by digests"])
@given(seed=SEEDS, size=SIZES)
@settings(deadline=None, max_examples=examples(25))
def test_every_layer_holds_what_differs_and_the_newest_is_the_disk(tracked: bool, seed: int, size: int) -> None:
    disk, chain = random_disk(seed, size), Chain()
    chain.add(disk)
    for turn in range(3):
        before = disk
        disk, extents = mutated(before, seed + turn)
        result = chain.add(disk, extents if tracked else None)
        different = [at for at in range(0, size, LEAF) if before[at : at + LEAF] != disk[at : at + LEAF]]
        assert result.bytes_unchanged == size - sum(min(LEAF, size - at) for at in different)
        assert result.digest_root == naive_root(disk)
        read = bytearray(size)
        source = chain.source()
        source.read_into([(0, memoryview(read))])
        assert bytes(read) == disk
        check = DigestCheck(size, chain.leaves(), result.digest_root, "disk-0")
        copied = copy_blocks(source, None, check, limits=LIMITS, flow=Flow())
        assert copied.digest_root == result.digest_root


def test_what_became_zero_hides_the_parents_data_whether_the_source_says_so_or_it_is_read() -> None:
    disk = b"\xaa" * (40 * LEAF)
    after = disk[: 10 * LEAF] + bytes(20 * LEAF) + disk[30 * LEAF :]
    told = [Extent(0, 10 * LEAF, "unchanged"), Extent(10 * LEAF, 20 * LEAF, "zero")]
    told.append(Extent(30 * LEAF, 10 * LEAF, "unchanged"))
    for extents in (told, None):
        chain = Chain()
        chain.add(disk)
        result = chain.add(after, extents)
        assert (result.bytes_zero, result.bytes_unchanged) == (20 * LEAF, 20 * LEAF)
        read = bytearray(len(disk))
        chain.source().read_into([(0, memoryview(read))])
        assert bytes(read) == after


def test_a_layer_on_which_nothing_differs_holds_nothing() -> None:
    disk, chain = random_disk(9, 300 * LEAF + 512), Chain()
    first = chain.add(disk)
    second = chain.add(disk)
    assert second.bytes_unchanged == len(disk)
    assert second.digest_root == first.digest_root
    assert chain.digests[1].count(b"\n") == 1
    assert chain.digests[1].endswith(b"\n"), "a header, and no record"
