# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where objects are cut, and that their proofs are those of the bytes stored."""

from __future__ import annotations

import random

import pytest
from disks_in_memory import MemoryParts, Rules, naive_proof
from engine.searching import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import (
    PATH_BUDGET,
    STORE_BUDGET,
    Limits,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.object_stream import (
    SequentialObject,
    SequentialReader,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.part_sizes import PartSizes

MIB = 1 << 20
S3 = Rules(10_000, 5 * MIB, 5 << 30, 10_000 * (5 << 30))


@given(st.integers(1, 40 << 40), st.integers(0, 64).map(lambda leaves: leaves * LEAF), st.sampled_from([MIB, 8 * MIB]))
def test_parts_follow_each_other_within_the_stores_limits(bound: int, head: int, preferred: int) -> None:
    sizes = PartSizes.for_object(max(bound, head), head, preferred, S3)
    count = sizes.count(max(bound, head))
    assert count <= S3.max_parts
    near = [1, 2, 3, max(1, count - 1), count]
    for number in near:
        part, following = sizes.part(number), sizes.part(number + 1)
        assert following.offset == part.offset + part.size
        assert S3.min_part <= part.size <= S3.max_part
        assert part.size % LEAF == 0
    last = sizes.part(count)
    assert last.offset < max(bound, head) <= last.offset + last.size
    if head:
        assert sizes.first - head >= S3.min_part


def test_the_same_object_is_always_cut_in_the_same_places() -> None:
    assert PartSizes.for_object(1 << 40, LEAF, MIB, S3) == PartSizes.for_object(1 << 40, LEAF, MIB, S3)


@pytest.mark.parametrize(
    "rules",
    [Rules(max_object=(1 << 40) - 1), Rules(max_parts=100, max_part=1 << 30), Rules(max_part=MIB, min_part=MIB)],
    ids=["object too large", "parts too large", "head and least data over a part"],
)
def test_what_a_store_cannot_hold_is_refused(rules: Rules) -> None:
    with pytest.raises(VmferryError) as caught:
        PartSizes.for_object(1 << 40, LEAF, MIB, rules)
    assert caught.value.kind == "unsupported"
    assert str(1 << 40) in caught.value.message


@given(st.integers(1, 48 << 30), st.integers(5, 512).map(lambda size: size * MIB))
def test_a_part_size_that_is_asked_for_is_taken_as_it_is(bound: int, part: int) -> None:
    sizes = PartSizes.for_object(bound, LEAF, part, S3, asked=True)
    assert sizes.other == part
    assert sizes.count(bound) <= 10_000


@pytest.mark.parametrize(("part", "bound"), [(4 * MIB, MIB), (6 << 30, MIB), (8 * MIB, 1 << 40)])
def test_a_part_size_that_the_store_cannot_take_is_refused(part: int, bound: int) -> None:
    with pytest.raises(VmferryError, match=f"part_size is {part} bytes") as caught:
        PartSizes.for_object(bound, 0, part, S3, asked=True)
    assert caught.value.kind == "invalid_config"


@pytest.mark.parametrize("any_offset", [False, True])
def test_a_part_size_brings_its_memory_along(any_offset: bool) -> None:
    usual = Limits.of_transfer(any_offset, 4)
    limits = usual.cut_in(64 * MIB - 1)
    assert (limits.part, limits.asked, limits.workers, limits.window) == (64 * MIB, True, 4, usual.window)
    assert limits.part_budget == (0 if any_offset else 192 * MIB)
    assert usual.cut_in(5 * MIB).part_budget == usual.part_budget
    assert limits.allow(usual.window, 64 * MIB)
    assert not usual.allow(usual.window, 64 * MIB), "what was begun with more memory than there is now"
    assert not limits.like(usual.window, 8 * MIB).asked


@given(st.integers(1, 256), st.booleans())
def test_limits_divide_the_budget_and_never_exceed_it(workers: int, any_offset: bool) -> None:
    budget = PATH_BUDGET if any_offset else STORE_BUDGET
    limits = Limits.of_transfer(any_offset, workers)
    assert 1 <= limits.workers <= workers
    assert limits.window % LEAF == 0
    assert limits.workers * limits.window + limits.part_budget <= budget
    assert 5 * MIB <= limits.part <= 8 * MIB
    if not any_offset:
        assert limits.part_budget >= 3 * limits.part


@pytest.mark.parametrize("any_offset", [False, True])
@given(seed=st.integers(0, 10_000), total=st.sampled_from([0, 1, LEAF, 5 * LEAF, 9 * LEAF + 17]))
@settings(deadline=None, max_examples=examples(25))
def test_a_stream_becomes_an_object_with_its_proof(any_offset: bool, seed: int, total: int) -> None:
    pick = random.Random(seed)
    content = pick.randbytes(total)
    store = MemoryParts(any_offset)
    stream = SequentialObject(store, 10 * LEAF, Rules(max_parts=4))
    at = 0
    while at < total:
        step = pick.choice([1, 100, LEAF, 3 * LEAF + 1])
        stream.write(content[at : at + step])
        at += step
    info = stream.finish()
    assert (store.object, info.size) == (content, total)
    if not any_offset:
        assert [one.proof for one in store.receipts] == [naive_proof(store.parts[n][1]) for n in sorted(store.parts)]
        assert len(store.parts) <= 4


def test_a_stream_is_read_in_order_to_its_end() -> None:
    content = random.Random(1).randbytes(2 * MIB + 5)

    def read_into(offset: int, buffer: memoryview) -> None:
        buffer[:] = content[offset : offset + len(buffer)]

    reader = SequentialReader(read_into, len(content))
    found = bytearray()
    while piece := reader.read(300_000):
        found += piece
    assert bytes(found) == content
