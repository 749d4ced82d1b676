# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk through the whole pipeline: the bytes, the digests and the proofs are those of the disk."""

from __future__ import annotations

import io
from hashlib import sha256

import pytest
from disk_strategies import SEEDS, SIZES, random_disk, random_extents
from disks_in_memory import (
    MemoryParts,
    MemorySink,
    MemorySource,
    PackedImage,
    RawImage,
    Rules,
    naive_proof,
    naive_root,
    unpacked,
)
from engine.searching import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.copy_blocks import copy_blocks
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digest_check import DigestCheck
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digest_file import DigestReader, merged_leaves
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import DigestWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.open_parts import object_proof_root
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.pipeline import DiskResult, export_disk
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress

SMALL = Limits(workers=3, window=4 * LEAF, part=6 * LEAF, part_budget=16 * LEAF)
ONE_BUFFER = Limits(workers=3, window=8 * LEAF, part=3 * LEAF, part_budget=LEAF)


def export(
    source: MemorySource, store: MemoryParts, format_: str, limits: Limits = SMALL, progress: DiskProgress | None = None
) -> tuple[DiskResult, bytes]:
    file = bytearray()

    def make_image(output, data_bound):
        if format_ == "raw":
            return RawImage(source.size, output)
        return PackedImage(source.size, output, data_bound, tables=format_.count("tables"))

    result = export_disk(
        source,
        make_image,
        store,
        DigestWriter(source.size, file.extend),
        limits=limits,
        rules=Rules(),
        flow=Flow(),
        progress=progress,
    )
    store.complete(result.receipts, result.size)
    return result, bytes(file)


@pytest.mark.parametrize("limits", [SMALL, ONE_BUFFER], ids=["buffers", "one buffer"])
@pytest.mark.parametrize("any_offset", [False, True], ids=["parts", "file"])
@pytest.mark.parametrize("format_", ["raw", "packed", "packed with tables"])
@given(seed=SEEDS, size=SIZES)
@settings(deadline=None, max_examples=examples(12))
def test_what_is_stored_is_the_disk(format_: str, any_offset: bool, limits: Limits, seed: int, size: int) -> None:
    disk = random_disk(seed, size)
    store, progress = MemoryParts(any_offset), DiskProgress()
    result, file = export(MemorySource(disk, random_extents(seed, disk)), store, format_, limits, progress)
    stored = store.object
    assert stored is not None
    assert len(stored) == result.size
    assert (stored if format_ == "raw" else unpacked(stored)) == disk
    assert result.digest_root == naive_root(disk)
    assert [receipt.proof for receipt in result.receipts] == [
        naive_proof(stored[r.part.offset : r.part.offset + r.part.size]) for r in result.receipts
    ]
    assert sum(receipt.part.size for receipt in result.receipts) == result.size
    assert result.bytes_zero == sum(
        min(LEAF, size - at) for at in range(0, size, LEAF) if not any(disk[at : at + LEAF])
    )
    assert result.bytes_read <= size
    assert progress.bytes_read == progress.bytes_settled == progress.total == result.bytes_read
    assert progress.bytes_sent == result.bytes_stored
    assert result.bytes_stored == (len(stored) if not any_offset or format_ != "raw" else result.bytes_stored)
    restored = MemorySink(size)
    check = DigestCheck(size, merged_leaves([DigestReader(io.BytesIO(file).read)]), result.digest_root, "disk-0")
    copied = copy_blocks(
        MemorySource(disk, random_extents(seed + 1, disk)), restored, check, limits=limits, flow=Flow()
    )
    assert bytes(restored.data) == disk
    assert copied.digest_root == result.digest_root


def test_holes_are_not_sent_to_a_file_and_are_zeros_in_an_object() -> None:
    disk = bytes(300 * LEAF) + b"x" * LEAF + bytes(300 * LEAF)
    extents = [Extent(0, 300 * LEAF, "zero"), Extent(300 * LEAF, LEAF, "data"), Extent(301 * LEAF, 300 * LEAF, "zero")]
    for any_offset, sent in ((True, LEAF), (False, 601 * LEAF)):
        store = MemoryParts(any_offset)
        result, _unused = export(MemorySource(disk, extents), store, "raw")
        assert store.object == disk
        assert (result.bytes_stored, result.size) == (sent, len(disk))


def test_an_empty_disk_is_an_empty_object() -> None:
    store = MemoryParts()
    result, _unused = export(MemorySource(b""), store, "raw")
    assert (store.object, result.size, len(result.receipts)) == (b"", 0, 1)


def test_the_proofs_root_depends_on_every_part() -> None:
    store = MemoryParts()
    result, _unused = export(MemorySource(b"y" * (40 * LEAF)), store, "packed")
    assert len(result.receipts) > 3
    assert object_proof_root(result.receipts) == sha256(b"".join(r.proof for r in result.receipts)).hexdigest()
    assert object_proof_root(result.receipts[1:]) != object_proof_root(result.receipts)


def test_part_1_with_the_head_is_sent_last() -> None:
    sent: list[int] = []
    store = MemoryParts()
    write_part = store.write_part
    store.write_part = lambda part, data: (sent.append(part.number), write_part(part, data))[1]  # type: ignore[method-assign]
    export(MemorySource(b"z" * (50 * LEAF)), store, "packed")
    assert sent[-1] == 1
    assert sorted(sent) == list(range(1, len(sent) + 1))


def test_an_increment_stores_what_changed_and_proves_the_whole() -> None:
    before, after = bytearray(random_disk(1, 100 * LEAF)), bytearray(random_disk(2, 100 * LEAF))
    after[: 50 * LEAF] = before[: 50 * LEAF]
    before[60 * LEAF : 70 * LEAF], after[60 * LEAF : 70 * LEAF] = b"b" * (10 * LEAF), bytes(10 * LEAF)
    _unused, parent_file = export(MemorySource(bytes(before)), MemoryParts(), "packed")
    extents = [Extent(0, 50 * LEAF, "unchanged"), Extent(50 * LEAF, 10 * LEAF, "data")]
    extents += [Extent(60 * LEAF, 10 * LEAF, "zero"), Extent(70 * LEAF, 30 * LEAF, "data")]
    file = bytearray()
    images: list[PackedImage] = []

    def make_image(output, data_bound):
        images.append(PackedImage(100 * LEAF, output, data_bound))
        return images[0]

    result = export_disk(
        MemorySource(bytes(after), extents),
        make_image,
        MemoryParts(),
        DigestWriter(100 * LEAF, file.extend, merged_leaves([DigestReader(io.BytesIO(parent_file).read)])),
        limits=SMALL,
        rules=Rules(),
        flow=Flow(),
    )
    assert result.digest_root == naive_root(bytes(after))
    same = sum(before[at : at + LEAF] == after[at : at + LEAF] for at in range(50 * LEAF, 100 * LEAF, LEAF))
    assert result.bytes_unchanged == (50 + same) * LEAF
    assert (60 * LEAF, 10 * LEAF) in images[0].zeros
    assert all(offset >= 50 * LEAF for offset, _unused, _unused in images[0].placed)


def test_a_full_export_refuses_unchanged_extents() -> None:
    source = MemorySource(bytes(LEAF), [Extent(0, LEAF, "unchanged")])
    with pytest.raises(VmferryError) as caught:
        export(source, MemoryParts(), "raw")
    assert caught.value.kind == "internal"


def test_a_disk_that_cannot_fit_is_refused_before_the_first_byte() -> None:
    source = MemorySource(b"x" * (40 * LEAF), before_read=lambda number: pytest.fail("it read"))
    with pytest.raises(VmferryError) as caught:
        export_disk(
            source,
            lambda output, bound: RawImage(source.size, output),
            MemoryParts(),
            DigestWriter(source.size, lambda data: None),
            limits=SMALL,
            rules=Rules(max_object=39 * LEAF),
            flow=Flow(),
        )
    assert caught.value.kind == "unsupported"


@given(
    seed=SEEDS, size=SIZES, reads_zero=st.booleans(), checked=st.booleans(), spare=st.sampled_from([0, 512, 3 * LEAF])
)
@settings(deadline=None, max_examples=examples(40))
def test_a_copy_is_the_disk(seed: int, size: int, reads_zero: bool, checked: bool, spare: int) -> None:
    disk = random_disk(seed, size)
    sink = MemorySink(size + spare, reads_zero)
    file = bytearray()
    root = naive_root(disk)
    check = None
    if checked:
        writer = DigestWriter(size, file.extend)
        writer.leaves(
            0,
            [
                sha256(disk[at : at + LEAF]).digest() if any(disk[at : at + LEAF]) else None
                for at in range(0, size, LEAF)
            ],
        )
        writer.finish()
        check = DigestCheck(size, merged_leaves([DigestReader(io.BytesIO(bytes(file)).read)]), root, "disk-0")
    progress = DiskProgress()
    source = MemorySource(disk, random_extents(seed, disk))
    result = copy_blocks(source, sink, check, limits=SMALL, flow=Flow(), progress=progress)
    assert bytes(sink.data) == disk + bytes(spare)
    assert sink.flushed == 1
    assert result.digest_root == (root if checked else "")
    assert result.bytes_written + result.bytes_zero == size
    assert progress.bytes_sent == result.bytes_written
    assert progress.bytes_settled == progress.total
    if reads_zero:
        assert sink.zeroed == []


@pytest.mark.parametrize("damage", ["a byte", "zeros became data", "data became zeros"])
def test_damage_is_found_before_it_is_written(damage: str) -> None:
    disk = bytearray(b"d" * (40 * LEAF))
    disk[20 * LEAF : 30 * LEAF] = bytes(10 * LEAF)
    good = bytes(disk)
    extents = None
    place = 25
    if damage == "a byte":
        place = 33
        disk[33 * LEAF + 9] ^= 4
    elif damage == "zeros became data":
        disk[25 * LEAF] = 1
    else:
        place = 10
        disk[10 * LEAF : 11 * LEAF] = bytes(LEAF)
        extents = [Extent(0, 10 * LEAF, "data"), Extent(10 * LEAF, LEAF, "zero"), Extent(11 * LEAF, 29 * LEAF, "data")]
    result, file = export(MemorySource(good), MemoryParts(), "raw")
    check = DigestCheck(len(good), merged_leaves([DigestReader(io.BytesIO(file).read)]), result.digest_root, "disk-0")
    sink = MemorySink(len(good))
    with pytest.raises(VmferryError) as caught:
        copy_blocks(MemorySource(bytes(disk), extents), sink, check, limits=SMALL, flow=Flow())
    assert caught.value.kind == "checksum_mismatch"
    assert f"bytes {place * LEAF} to" in caught.value.message
    assert bytes(sink.data[place * LEAF : (place + 1) * LEAF]) == b"\xee" * LEAF
    assert sink.flushed == 0


def test_a_check_alone_writes_nothing_and_proves_the_disk() -> None:
    disk = random_disk(9, 131 * LEAF + 512)
    result, file = export(MemorySource(disk), MemoryParts(), "raw")
    check = DigestCheck(len(disk), merged_leaves([DigestReader(io.BytesIO(file).read)]), result.digest_root, "disk-0")
    assert copy_blocks(MemorySource(disk), None, check, limits=SMALL, flow=Flow()).digest_root == naive_root(disk)


def test_a_target_that_is_too_small_is_refused() -> None:
    with pytest.raises(VmferryError) as caught:
        copy_blocks(MemorySource(bytes(2 * LEAF)), MemorySink(LEAF), None, limits=SMALL, flow=Flow())
    assert caught.value.kind == "invalid_config"
