# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leaves are encrypted once they have their place, also over parts and pieces, and when an export was killed."""

from __future__ import annotations

import random
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from disk_strategies import SEEDS, random_extents
from disks_in_memory import MemorySource, Rules
from engine.searching import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_attempt import SMALL, Attempt

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.encrypted import EncryptedQcow2
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.reader import Qcow2Reader
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import journal
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.pipeline import DiskResult

KEYS = [random.Random(seed).randbytes(64) for seed in range(2)]


@pytest.fixture(autouse=True)
def entries_as_often_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "STEP", LEAF)
    monkeypatch.setattr(journal, "SMALL", 0)


class EncryptedAttempt(Attempt):
    key = KEYS[0]

    def image(self, size: int, output: Any, data_bound: int, reads_runs: bool) -> Any:
        return EncryptedQcow2(size, output, self.key, b"word", data_bound=data_bound, iterations=1000)


def disk_of(seed: int, leaves: int) -> bytes:
    chance = random.Random(seed)
    return b"".join(chance.choice([bytes(LEAF), chance.randbytes(LEAF)]) for _unused in range(leaves)) + b"end"


def read(image: bytes, size: int) -> bytes:
    def read_at(offset: int, buffer: memoryview) -> None:
        buffer[:] = image[offset : offset + len(buffer)]

    found = bytearray(size)
    Qcow2Reader(read_at, len(image), size=size, key=KEYS[0]).read_into([(0, memoryview(found))])
    return bytes(found)


def stored(attempt: Attempt) -> bytes:
    assert attempt.store.object is not None
    return bytes(attempt.store.object)


def assert_proved(image: bytes, result: DiskResult) -> None:
    """By what was stored, and not by what was read."""
    for receipt in result.receipts:
        data = image[receipt.part.offset : receipt.part.offset + receipt.part.size]
        blocks = b"".join(sha256(data[at : at + LEAF]).digest() for at in range(0, len(data), LEAF))
        assert sha256(blocks).digest() == receipt.proof


@pytest.mark.parametrize("rules", [Rules(), Rules(max_parts=5, joins_pieces=True)])
@pytest.mark.parametrize("any_offset", [False, True])
def test_an_encrypted_image_is_the_disk_and_its_parts_are_proved_as_stored(any_offset: bool, rules: Rules) -> None:
    disk = disk_of(1, 300)
    attempt = EncryptedAttempt(any_offset, rules=rules)
    result = attempt.run(MemorySource(disk, [Extent(0, len(disk), "data")]))
    assert read(stored(attempt), len(disk)) == disk
    assert_proved(stored(attempt), result)


@pytest.mark.parametrize("any_offset", [False, True])
@given(seed=SEEDS, leaves=st.integers(1, 60), deaths=st.lists(st.integers(0, 12), min_size=1, max_size=3))
@settings(deadline=None, max_examples=examples(8))
def test_whenever_it_is_killed_it_ends_with_the_same_image(
    any_offset: bool, seed: int, leaves: int, deaths: list[int]
) -> None:
    disk = disk_of(seed, leaves)
    extents = random_extents(seed, disk)
    whole, attempt = EncryptedAttempt(any_offset), EncryptedAttempt(any_offset)
    whole.run(MemorySource(disk, extents))
    for death in deaths:
        attempt.die(MemorySource(disk, extents), death)
    result = attempt.run(MemorySource(disk, extents))
    assert stored(attempt) == stored(whole)
    assert read(stored(attempt), len(disk)) == disk
    assert_proved(stored(attempt), result)


def test_what_was_sent_before_the_kill_is_not_sent_again() -> None:
    disk = disk_of(5, 200)
    extents = [Extent(0, len(disk), "data")]
    attempt = EncryptedAttempt(any_offset=False)
    alone = replace(SMALL, workers=1)
    assert attempt.die(MemorySource(disk, extents), 6, limits=alone)
    assert attempt.run(MemorySource(disk, extents), limits=alone).bytes_kept > 0


@pytest.mark.parametrize("any_offset", [False, True])
def test_parts_that_were_encrypted_with_another_key_are_not_kept(any_offset: bool) -> None:
    disk = disk_of(5, 200)
    extents = [Extent(0, len(disk), "data")]
    attempt = EncryptedAttempt(any_offset)
    alone = replace(SMALL, workers=1)  # so that what the journal knows is the same each time
    assert attempt.die(MemorySource(disk, extents), 8, limits=alone)
    attempt.key = KEYS[1]
    with pytest.raises(VmferryError) as told:
        attempt.run(MemorySource(disk, extents), limits=alone)
    assert isinstance(told.value, journal.UnfitJournal)
