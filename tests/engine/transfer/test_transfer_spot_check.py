# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is looked at: both ends, leaves that hold data, others each time; and never what is said to have changed."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from functools import cache
from hashlib import sha256

import pytest
from disks_in_memory import MemorySource

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import leaf_digests, plain_hash
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.spot_check import Mismatch, SpotCheck
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.windows import ExtentMap

LEAVES = 640
SIZE = LEAVES * LEAF - 512


@cache
def disk() -> bytes:
    return random.Random(1).randbytes(200 * LEAF) + bytes(200 * LEAF) + random.Random(2).randbytes(240 * LEAF - 512)


class Watched(MemorySource):
    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.seen: list[int] = []

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self.seen += [offset // LEAF for offset, _unused in pieces]
        super().read_into(pieces)


@cache
def leaves_of(disk: bytes) -> list[tuple[int, dict[int, bytes]]]:
    digests = leaf_digests(bytearray(disk), len(disk))
    chunks: dict[int, dict[int, bytes]] = {}
    for index, digest in enumerate(digests):
        if digest is not None:
            chunks.setdefault(index // 64, {})[index % 64] = digest
    return sorted(chunks.items())


def checked(
    now: bytes, extents: list[Extent], count: int = 32, shift: float = 0.0, before: bytes = b"", block: int = LEAF
) -> tuple[Mismatch | None, list[int]]:
    before = before or disk()
    check, source = SpotCheck(len(before), count, shift, block=block), Watched(now)
    assert list(check.watching(iter(leaves_of(before)))) == leaves_of(before), "what goes by is not touched"
    found = check.compare(source, ExtentMap(extents, len(before)))
    assert check.bytes_read == sum(min(LEAF, len(before) - n * LEAF) for n in source.seen)
    return found, source.seen


UNCHANGED = [Extent(0, SIZE, "unchanged")]


def test_leaves_are_compared_by_the_hash_of_the_export_and_their_numbers() -> None:
    def keyed(number: int, leaf: memoryview) -> bytes:
        return sha256(b"%d" % number + leaf).digest()

    digests = leaf_digests(bytearray(disk()), len(disk()), range(LEAVES), keyed)
    chunks = {n: {at: d for at, d in enumerate(digests[n * 64 : (n + 1) * 64]) if d} for n in range(LEAVES // 64)}
    for leaf_hash, fits in ((keyed, True), (plain_hash, False)):
        check = SpotCheck(len(disk()), 32, 0.3, leaf_hash)
        assert list(check.watching(iter(sorted(chunks.items()))))
        found = check.compare(Watched(disk()), ExtentMap(UNCHANGED, len(disk())))
        assert (found is None) == fits


def test_a_disk_that_is_as_it_was_passes_and_little_is_read() -> None:
    found, seen = checked(disk(), UNCHANGED)
    assert found is None
    assert set(range(16)) | set(range(LEAVES - 16, LEAVES)) <= set(seen)
    assert len(set(seen)) == len(seen) == 32 + 32
    inner = [n for n in seen if 16 <= n < LEAVES - 16]
    assert not [n for n in inner if 200 <= n < 400], "leaves of zeros tell little"
    assert max(inner) > 500
    assert min(inner) < 100, "spread over the disk"


@pytest.mark.parametrize("place", [0, 15, LEAVES - 16, LEAVES - 1])
def test_the_ends_are_always_looked_at_even_if_they_were_zeros(place: int) -> None:
    before = bytearray(disk())
    before[place * LEAF : (place + 1) * LEAF] = bytes(min(LEAF, len(disk()) - place * LEAF))
    now = bytearray(before)
    now[place * LEAF + 7] = 1
    found, _unused = checked(bytes(now), UNCHANGED, 0, before=bytes(before))
    assert found == Mismatch(place * LEAF, min((place + 1) * LEAF, len(disk())))


BLOCK = 8 * LEAF


@pytest.mark.parametrize(("count", "blocks"), [(0, 0), (4, 4), (32, 8), (100, 13)])
def test_of_a_source_that_reads_blocks_few_of_them_are_asked_for(count: int, blocks: int) -> None:
    source, check = Watched(disk()), SpotCheck(len(disk()), count, 0.3, block=BLOCK)
    assert list(check.watching(iter(leaves_of(disk()))))
    assert check.compare(source, ExtentMap(UNCHANGED, len(disk()))) is None
    inner = [n for n in source.seen if 16 <= n < LEAVES - 16]
    assert count <= len(inner) < count + 8, "as many leaves as are wanted"
    assert len({n // 8 for n in inner}) == blocks
    if count >= 32:
        assert min(inner) < 100
        assert max(inner) > 500


def test_of_a_source_that_reads_blocks_every_one_has_its_day() -> None:
    chance, seen = random.Random(3), set()
    for _export in range(60):
        source, check = Watched(disk()), SpotCheck(len(disk()), 32, chance.random(), block=BLOCK)
        assert list(check.watching(iter(leaves_of(disk()))))
        assert check.compare(source, ExtentMap(UNCHANGED, len(disk()))) is None
        seen |= {n // 8 for n in source.seen}
    assert len(seen) > 50, "of 55 that hold data"


def test_of_a_source_that_reads_blocks_one_that_changed_is_none_to_look_at() -> None:
    """All of a block changes at once there, so that another one is looked at in its place."""
    changed = [n for n in range(LEAVES) if n // 8 % 2]
    extents = [Extent(n * BLOCK, BLOCK, "data" if n % 2 else "unchanged") for n in range(LEAVES // 8 - 1)]
    extents.append(Extent(SIZE // BLOCK * BLOCK, SIZE % BLOCK, "data"))
    source, check = Watched(disk()), SpotCheck(len(disk()), 32, 0.0, block=BLOCK)
    assert list(check.watching(iter(leaves_of(disk()))))
    assert check.compare(source, ExtentMap(extents, len(disk()))) is None
    inner = {n for n in source.seen if 16 <= n < LEAVES - 16}
    assert not inner & set(changed)
    assert len(inner) == 32
    assert len({n // 8 for n in inner}) == 8


def test_of_a_source_that_reads_blocks_those_with_little_data_are_no_more() -> None:
    before = bytearray(len(disk()))
    for n in range(0, LEAVES - 1, 8):
        before[n * LEAF : (n + 1) * LEAF] = disk()[:LEAF]
    now = bytes(before)
    source, check = Watched(now), SpotCheck(len(now), 32, 0.0, block=BLOCK)
    assert list(check.watching(iter(leaves_of(now))))
    assert check.compare(source, ExtentMap(UNCHANGED, len(now))) is None
    assert len({n // 8 for n in source.seen if 16 <= n < LEAVES - 16}) == 8


@pytest.mark.parametrize("block", [LEAF, BLOCK])
def test_a_lie_about_many_leaves_is_found_at_once(block: int) -> None:
    now = bytearray(disk())
    for index in range(100, 200):
        now[index * LEAF] ^= 1
    found, _unused = checked(bytes(now), UNCHANGED, block=block)
    assert found is not None
    assert 100 <= found.start // LEAF < 200


def test_a_lie_about_one_leaf_is_found_within_a_month_more_often_than_not() -> None:
    """Each export looks elsewhere: thirty of them see many times the leaves of one."""
    chance = random.Random(1)
    seen: set[int] = set()
    first: list[int] = []
    for shift in [chance.random() for _export in range(30)]:
        _unused, here = checked(disk(), UNCHANGED, shift=shift)
        first = first or here
        seen |= set(here)
    assert len(seen) > 300
    assert len(first) < 65


def test_what_is_said_to_have_changed_is_not_compared() -> None:
    now = bytearray(disk())
    now[: 100 * LEAF] = bytes(100 * LEAF)
    extents = [Extent(0, 100 * LEAF, "zero"), Extent(100 * LEAF, len(disk()) - 100 * LEAF, "unchanged")]
    found, seen = checked(bytes(now), extents)
    assert found is None
    assert min(seen) >= 100


def test_an_empty_disk_has_nothing_to_look_at() -> None:
    check = SpotCheck(0, 32, 0.5)
    assert list(check.watching(iter(()))) == []
    assert check.compare(MemorySource(b""), ExtentMap([], 0)) is None


def test_a_disk_of_62_tib_is_set_up_at_once() -> None:
    """Its leaves are a billion, and nothing that runs for a minute without a pause could be stopped."""
    started = time.process_time()
    SpotCheck(62 << 40, 32, 0.5)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("leaves", [1, 15, 16, 17, 31, 32, 33])
def test_of_a_small_disk_every_end_is_looked_at(leaves: int) -> None:
    before = disk()[: leaves * LEAF]
    extents = [Extent(0, len(before), "unchanged")]
    found, seen = checked(before, extents, 0, before=before)
    assert found is None
    assert set(seen) == {n for n in range(leaves) if n < 16 or n >= leaves - 16}
