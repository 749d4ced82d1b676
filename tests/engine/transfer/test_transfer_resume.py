# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export of a disk that was killed goes on: to the same object, whatever of its journal is left."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from disk_strategies import SEEDS, random_disk, random_extents
from disks_in_memory import MemorySource, Rules, naive_proof, naive_root, unpacked
from engine.searching import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_attempt import BINDING, SMALL, Attempt

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import journal
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.journal import (
    KnownDisk,
    UnfitJournal,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.pipeline import DiskResult
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.windows import ExtentMap


def full_disk(seed: int, leaves: int) -> bytes:
    return random.Random(seed).randbytes(leaves * LEAF)


@pytest.fixture(autouse=True)
def entries_as_often_as_can_be() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "STEP", 2 * LEAF)
        patch.setattr(journal, "SMALL", 0)
        patch.setattr(journal, "CHAPTER", 3)
        yield


def assert_whole(attempt: Attempt, result: DiskResult, disk: bytes) -> None:
    stored = attempt.store.object
    assert stored is not None
    assert len(stored) == result.size
    assert (stored if attempt.format == "raw" else unpacked(stored)) == disk
    assert result.digest_root == naive_root(disk)
    assert [receipt.proof for receipt in result.receipts] == [
        naive_proof(stored[r.part.offset : r.part.offset + r.part.size]) for r in result.receipts
    ]
    alone = Attempt(attempt.store.any_offset, attempt.format)
    plain = alone.run(MemorySource(disk, attempt_extents(disk)))
    assert (bytes(attempt.file), result.digest_root) == (bytes(alone.file), plain.digest_root)


def attempt_extents(disk: bytes) -> list[Extent]:
    return [Extent(0, len(disk), "data")] if disk else []


@pytest.mark.parametrize("any_offset", [False, True], ids=["parts", "file"])
@pytest.mark.parametrize("format_", ["raw", "packed", "packed with tables"])
@given(
    seed=SEEDS,
    size=st.integers(1, 90).map(lambda leaves: leaves * LEAF) | st.integers(1, 90 * LEAF),
    deaths=st.lists(st.integers(0, 25), min_size=1, max_size=3),
    tear=st.integers(0, 3000),
)
@settings(deadline=None, max_examples=examples(25))
def test_whenever_it_is_killed_and_whatever_the_journal_lost_it_ends_with_the_disk(
    format_: str, any_offset: bool, seed: int, size: int, deaths: list[int], tear: int
) -> None:
    disk = random_disk(seed, size)
    extents = random_extents(seed, disk)
    attempt = Attempt(any_offset, format_)
    for death in deaths:
        attempt.die(MemorySource(disk, extents), death)
        if tear < 2000 and attempt.notes:
            name = sorted(attempt.notes)[tear % len(attempt.notes)]
            attempt.notes[name] = attempt.notes[name][: -(tear % 97) or None]
    progress = DiskProgress()
    result = attempt.run(MemorySource(disk, extents), progress=progress)
    assert_whole(attempt, result, disk)
    assert progress.bytes_settled == progress.total
    assert progress.bytes_sent == result.bytes_stored


@pytest.mark.parametrize("format_", ["raw", "packed with tables"])
@given(
    seed=SEEDS,
    size=st.integers(30 * LEAF, 90 * LEAF),
    deaths=st.lists(st.integers(0, 40), min_size=1, max_size=3),
)
@settings(deadline=None, max_examples=examples(25))
def test_whenever_it_is_killed_among_pieces_it_ends_with_the_disk(
    format_: str, seed: int, size: int, deaths: list[int]
) -> None:
    disk = random_disk(seed, size)
    extents = random_extents(seed, disk)
    attempt = Attempt(False, format_, Rules(max_parts=5, joins_pieces=True))
    small = replace(SMALL, part=2 * LEAF, part_budget=6 * LEAF)
    for death in deaths:
        attempt.die(MemorySource(disk, extents), death, limits=small)
    result = attempt.run(MemorySource(disk, extents), limits=small)
    assert_whole(attempt, result, disk)
    assert attempt.store.sent_at_once or format_ != "raw"  # a packed image may be small enough


@pytest.mark.parametrize("any_offset", [False, True], ids=["parts", "file"])
def test_no_more_is_sent_again_than_was_under_way(any_offset: bool) -> None:
    disk = full_disk(3, 400)
    plain = Attempt(any_offset)
    plain.run(MemorySource(disk))
    attempt = Attempt(any_offset)
    writes = 30 if not any_offset else 200
    assert attempt.die(MemorySource(disk), writes)
    sent_before = attempt.store.bytes
    reads: list[int] = []
    result = attempt.run(MemorySource(disk, before_read=reads.append))
    assert_whole(attempt, result, disk)
    assert sent_before > 150 * LEAF
    in_flight = (SMALL.workers + 1) * max(SMALL.part, SMALL.window) + 2 * 2 * LEAF
    assert attempt.store.bytes <= plain.store.bytes + in_flight
    assert result.bytes_kept > 0.7 * sent_before
    assert len(reads) < 100 * 0.8, "what is in the store whole is not read again"


def test_what_was_wholly_sent_is_neither_read_nor_sent_again() -> None:
    disk = random_disk(4, 100 * LEAF)
    attempt = Attempt(any_offset=False)
    first = attempt.run(MemorySource(disk))
    sent = attempt.store.bytes
    again = attempt.run(MemorySource(disk, before_read=lambda number: pytest.fail("it read")))
    assert attempt.store.bytes == sent
    assert (again.receipts, again.bytes_kept, again.bytes_stored) == (first.receipts, first.size, 0)


def test_a_part_that_the_store_lost_is_sent_again() -> None:
    disk = random_disk(5, 100 * LEAF)
    attempt = Attempt(any_offset=False)
    attempt.run(MemorySource(disk))
    del attempt.store.parts[2]
    sent = attempt.store.bytes
    result = attempt.run(MemorySource(disk))
    assert_whole(attempt, result, disk)
    assert attempt.store.bytes - sent == SMALL.part


def test_bytes_of_a_file_that_changed_are_written_again() -> None:
    disk = random_disk(6, 100 * LEAF)
    attempt = Attempt(any_offset=True)
    attempt.run(MemorySource(disk))
    attempt.store.file[20 * LEAF] ^= 1
    assert_whole(attempt, attempt.run(MemorySource(disk)), disk)


def test_the_map_of_the_killed_run_holds_where_the_source_tells_another() -> None:
    """A frozen view may tell zeros from data otherwise once the guest has written: its content is the same."""
    disk = bytes(40 * LEAF) + full_disk(7, 60)
    killed = [Extent(0, 40 * LEAF, "zero"), Extent(40 * LEAF, 60 * LEAF, "data")]
    attempt = Attempt(any_offset=False)
    assert attempt.die(MemorySource(disk, killed), 6)
    assert_whole(attempt, attempt.run(MemorySource(disk)), disk)


@pytest.mark.parametrize("any_offset", [False, True], ids=["parts", "file"])
def test_a_disk_that_is_not_what_it_was_is_refused(any_offset: bool) -> None:
    disk = full_disk(8, 100)
    attempt = Attempt(any_offset)
    assert attempt.die(MemorySource(disk), 12 if not any_offset else 30)
    other = b"\1" * LEAF + disk[LEAF:]  # part 1 is sent last: it is read again
    with pytest.raises(UnfitJournal):
        attempt.run(MemorySource(other))


def test_with_more_workers_and_smaller_windows_it_goes_on_with_the_sizes_it_was_begun_with() -> None:
    disk = random_disk(9, 100 * LEAF)
    attempt = Attempt(any_offset=False)
    assert attempt.die(MemorySource(disk), 9)
    more = replace(SMALL, workers=8, window=LEAF, part=3 * LEAF)
    result = attempt.run(MemorySource(disk), limits=more)
    assert result.bytes_kept
    assert_whole(attempt, result, disk)


@pytest.mark.parametrize("any_offset", [False, True], ids=["parts", "file"])
@given(seed=SEEDS, death=st.integers(0, 12))
@settings(deadline=None, max_examples=examples(15))
def test_an_increment_goes_on_too(any_offset: bool, seed: int, death: int) -> None:
    before, after = random_disk(seed, 150 * LEAF), bytearray(random_disk(seed + 1, 150 * LEAF))
    after[: 50 * LEAF] = before[: 50 * LEAF]
    extents = [Extent(0, 40 * LEAF, "unchanged"), Extent(40 * LEAF, 110 * LEAF, "data")]
    parent = Attempt(any_offset)
    parent.run(MemorySource(before))
    plain, attempt = Attempt(any_offset), Attempt(any_offset)
    whole = plain.run(MemorySource(bytes(after), extents), parent=bytes(parent.file))
    attempt.die(MemorySource(bytes(after), extents), death, parent=bytes(parent.file))
    result = attempt.run(MemorySource(bytes(after), extents), parent=bytes(parent.file))
    assert replace(result, bytes_kept=0, bytes_stored=0) == replace(whole, bytes_kept=0, bytes_stored=0)
    assert (attempt.store.object, attempt.file) == (plain.store.object, plain.file)


def damaged(change: Callable[[dict[str, bytes]], object]) -> KnownDisk | None:
    attempt = Attempt(any_offset=False)
    attempt.run(MemorySource(random_disk(1, 60 * LEAF)))
    change(attempt.notes)
    return KnownDisk.read(attempt.notes.get, "disk-0")


def test_a_journal_without_its_header_or_with_another_map_is_none() -> None:
    header, extents = "disk-0.journal", "disk-0.extents"
    whole = damaged(lambda notes: None)
    assert whole is not None
    assert whole.closed
    assert damaged(lambda notes: notes.pop(header)) is None
    assert damaged(lambda notes: notes.update({header: b"[]"})) is None
    assert damaged(lambda notes: notes.update({header: notes[header].replace(b'"size": ', b'"size": "')})) is None
    assert damaged(lambda notes: notes.pop(extents)) is None
    assert damaged(lambda notes: notes.update({extents: notes[extents] + b"x"})) is None


def test_what_stands_behind_a_torn_entry_is_not_believed() -> None:
    whole, torn = damaged(lambda notes: None), damaged(lambda notes: notes.update({"disk-0.journal-0": b"VFJ1"}))
    assert whole is not None
    assert torn is not None
    assert whole.count > 5
    assert (torn.count, torn.closed, torn.receipts) == (0, False, {})


def test_a_journal_of_another_disk_or_with_larger_windows_than_there_is_memory_for_does_not_fit() -> None:
    known = damaged(lambda notes: None)
    assert known is not None
    assert known.fits(BINDING, 60 * LEAF, SMALL)
    assert not known.fits("another", 60 * LEAF, SMALL)
    assert not known.fits(BINDING, 61 * LEAF, SMALL)
    assert not known.fits(BINDING, 60 * LEAF, replace(SMALL, workers=1, window=LEAF))


def test_a_map_is_the_same_after_it_was_packed() -> None:
    disk = random_disk(11, 300 * LEAF + 77)
    told = ExtentMap(random_extents(11, disk), len(disk))
    packed = told.packed()
    assert packed is not None
    again = ExtentMap.unpacked(packed, len(disk))
    assert list(again) == list(told)
    assert again.data_bound == told.data_bound
    for wrong in (b"", b"x", packed[:-8]):
        with pytest.raises(VmferryError):
            ExtentMap.unpacked(wrong, len(disk))
    with pytest.raises(VmferryError):
        ExtentMap.unpacked(packed, 5 * LEAF)


def test_a_small_object_is_rather_sent_again_than_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SMALL", 50 * LEAF)
    monkeypatch.setattr(journal, "STEP", 100 * LEAF)
    attempt = Attempt(any_offset=False)
    attempt.run(MemorySource(b"\3" * (10 * LEAF)))
    assert attempt.notes == {}


def test_where_little_is_sent_an_entry_is_due_by_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "STEP", 1 << 40)
    monkeypatch.setattr(journal, "MANY_LEAVES", 8)
    attempt = Attempt(any_offset=False)
    attempt.run(MemorySource(bytes(100 * LEAF), [Extent(0, 100 * LEAF, "data")]))
    known = KnownDisk.read(attempt.notes.get, "disk-0")
    assert known is not None
    assert known.count == 25
