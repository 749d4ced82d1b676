# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leaves that are stored are compressed side by side, and an export that was killed goes on all the same."""

from __future__ import annotations

import io
import random
from itertools import count
from threading import Event
from typing import Any

import pytest
from disk_strategies import SEEDS, random_extents
from disks_in_memory import MemoryParts, MemorySource, Rules, naive_root
from engine.searching import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_attempt import SMALL, Attempt

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.codecs import Codec, Zlib, codec_named
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.compressed import CompressedQcow2
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.reader import Qcow2Reader
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import journal
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digest_file import DigestReader, merged_leaves
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import DigestWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.pipeline import export_disk


@pytest.fixture(autouse=True)
def entries_as_often_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "STEP", LEAF)
    monkeypatch.setattr(journal, "SMALL", 0)


class Counting(Zlib):
    def __init__(self, level: int = 1) -> None:
        super().__init__(level)
        self.leaves: list[bytes] = []

    def pack(self, leaf: memoryview) -> bytes | None:
        self.leaves.append(bytes(leaf))
        return super().pack(leaf)


def half_noise(seed: int, leaves: int) -> bytes:
    """Some leaves shrink, some do not, some are zeros."""
    chance = random.Random(seed)
    found = b""
    for _unused in range(leaves):
        noise = chance.choice([0, 0, 1000, 30_000, LEAF])
        found += chance.randbytes(noise) + (b"x" if noise else b"\0") * (LEAF - noise)
    return found


def exported(disk: bytes, codec: Codec, digests: DigestWriter) -> bytes:
    store = MemoryParts()
    result = export_disk(
        MemorySource(disk),
        lambda output, bound: CompressedQcow2(len(disk), output, codec, data_bound=bound),
        store,
        digests,
        limits=SMALL,
        rules=Rules(),
        flow=Flow(),
    )
    store.complete(result.receipts, result.size)
    assert store.object is not None
    return store.object


def read(image: bytes, size: int) -> bytes:
    def read_at(offset: int, buffer: memoryview) -> None:
        buffer[:] = image[offset : offset + len(buffer)]

    found = bytearray(size)
    Qcow2Reader(read_at, len(image), size=size).read_into([(0, memoryview(found))])
    return bytes(found)


def test_two_workers_compress_at_the_same_time() -> None:
    met, inside = Event(), count(1)

    class Meeting(Zlib):
        def pack(self, leaf: memoryview) -> bytes | None:
            if next(inside) == 2:
                met.set()
            assert met.wait(20), "the first one was alone all the while"
            return super().pack(leaf)

    disk = half_noise(3, 64).replace(b"\0", b"y")
    assert read(exported(disk, Meeting(1), DigestWriter(len(disk), bytearray().extend)), len(disk)) == disk


def test_only_what_the_image_holds_is_compressed() -> None:
    before = random.Random(1).randbytes(8) * (20 * LEAF // 8)
    disk = bytearray(before)
    disk[3 * LEAF : 4 * LEAF] = bytes(LEAF)
    disk[9 * LEAF : 10 * LEAF] = b"n" * LEAF
    parent = bytearray()
    exported(before, Counting(), DigestWriter(len(before), parent.extend))
    counting = Counting()
    below = merged_leaves([DigestReader(io.BytesIO(bytes(parent)).read)])
    exported(bytes(disk), counting, DigestWriter(len(disk), bytearray().extend, below))
    assert counting.leaves == [b"n" * LEAF]


class CompressedAttempt(Attempt):
    codec = codec_named("zstd")

    def image(self, size: int, output: Any, data_bound: int, reads_runs: bool) -> Any:
        return CompressedQcow2(size, output, self.codec, data_bound=data_bound)


@given(seed=SEEDS, leaves=st.integers(1, 60), deaths=st.lists(st.integers(0, 12), min_size=1, max_size=3))
@settings(deadline=None, max_examples=examples(25))
def test_whenever_it_is_killed_it_ends_with_the_disk(seed: int, leaves: int, deaths: list[int]) -> None:
    disk = half_noise(seed, leaves)
    extents = random_extents(seed, disk)
    attempt = CompressedAttempt(any_offset=False)
    for death in deaths:
        attempt.die(MemorySource(disk, extents), death)
    result = attempt.run(MemorySource(disk, extents))
    assert result.digest_root == naive_root(disk)
    assert attempt.store.object is not None
    assert read(attempt.store.object, len(disk)) == disk


def test_what_was_sent_before_the_kill_is_not_sent_again() -> None:
    disk = half_noise(5, 200)
    extents = [Extent(0, len(disk), "data")]
    attempt = CompressedAttempt(any_offset=False)
    assert attempt.die(MemorySource(disk, extents), 6)
    result = attempt.run(MemorySource(disk, extents))
    assert result.bytes_kept > 0


def test_parts_that_were_compressed_in_another_way_are_not_kept() -> None:
    disk = half_noise(5, 200)
    extents = [Extent(0, len(disk), "data")]
    attempt = CompressedAttempt(any_offset=False)
    assert attempt.die(MemorySource(disk, extents), 6)
    attempt.codec = codec_named("zstd", 19)
    with pytest.raises(VmferryError) as told:
        attempt.run(MemorySource(disk, extents))
    assert isinstance(told.value, journal.UnfitJournal)
