# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object with gaps is the bytes that were written and filled in, whichever came first and from whichever thread."""

from __future__ import annotations

import tracemalloc
from threading import Thread

import pytest
from disks_in_memory import MemoryParts, Rules, naive_proof
from engine.searching import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Part
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.gapped_object import GappedObject
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.member_stream import MemberStream

FEW = settings(max_examples=examples(25), deadline=None, derandomize=True, database=None)
BOUND = 64 * LEAF
MIB = 1 << 20
PART = 6 * MIB


WHOLE = Rules()
IN_PIECES = Rules(max_parts=7, joins_pieces=True)  # parts of eleven leaves, in pieces of one


def gapped(parts: MemoryParts, bound: int = BOUND, rules: Rules = WHOLE) -> GappedObject:
    return GappedObject(parts, bound, LEAF, rules, Flow())


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 3 * LEAF)), max_size=20),
    st.sampled_from([(True, WHOLE), (False, WHOLE), (False, IN_PIECES)]),
)
@FEW
def test_an_object_is_what_was_written_and_filled_in(steps: list[tuple[bool, int]], how: tuple[bool, Rules]) -> None:
    """One gap at a time, besides a first one that is filled last."""
    parts = MemoryParts(how[0])
    whole, expected = gapped(parts, rules=how[1]), bytearray(b"f" * 700)
    first, last = whole.reserve(700), None
    for number, (is_gap, size) in enumerate(steps):
        data = bytes([number + 1]) * (700 if is_gap else size)
        if is_gap:
            if last is not None:
                whole.fill(*last)
            last = (whole.reserve(700), data)
        else:
            whole.write(memoryview(data))
        whole.send(whole.take_ready())
        expected += data
    if last is not None:
        whole.fill(*last)
    whole.fill(first, b"f" * 700)
    whole.send(whole.take_ready())
    info = whole.finish()
    assert parts.object == bytes(expected)
    assert (info.size, whole.size) == (len(expected), len(expected))
    assert parts.pieces == {}
    assert sum(receipt.part.size for receipt in parts.receipts) == len(expected)
    for receipt in parts.receipts:
        assert receipt.proof == naive_proof(bytes(expected[receipt.part.offset :][: receipt.part.size]))


@pytest.mark.parametrize("count", [1, 10, 11, 12, 21, 22, 23, 33])
def test_pieces_end_where_the_object_does(count: int) -> None:
    """Also at the very end of a piece, or of a part."""
    parts = MemoryParts()
    whole = gapped(parts, rules=IN_PIECES)
    gap = whole.reserve(LEAF)
    for number in range(1, count):
        whole.write(bytes([number]) * LEAF)
        whole.send(whole.take_ready())
    whole.fill(gap, bytes(LEAF))
    whole.finish()
    assert parts.object == b"".join(bytes([number]) * LEAF for number in range(count))
    assert parts.pieces == {}
    assert len(parts.receipts) == -(-count // 11)
    assert parts.sent_at_once <= {LEAF}


class Forgetful(MemoryParts):
    """Takes whatever comes, and keeps nothing of it."""

    def write_piece(self, part: Part, number: int, data: memoryview) -> None:
        self.sent_at_once.add(len(data))

    def join_pieces(self, part: Part) -> str:
        return ""


@pytest.mark.parametrize("bound", [1 << 40, 5 << 40, 45 << 40])
def test_an_object_of_terabytes_takes_no_more_memory_than_one_of_gibibytes(bound: int) -> None:
    """Its parts have from 105 MiB to 4.5 GiB. The first part waits for its gap all the while."""
    parts, rules = Forgetful(), Rules(min_part=5 * MIB, max_object=50 << 40, joins_pieces=True)
    tracemalloc.start()
    try:
        whole = GappedObject(parts, bound, PART, rules, Flow())
        whole.reserve(PART)
        block = bytes(MIB)
        for _unused in range(100):
            whole.write(block)
            whole.send(whole.take_ready())
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * PART
    assert max(parts.sent_at_once) == PART


def test_only_what_has_a_gap_waits() -> None:
    parts = MemoryParts()
    whole = gapped(parts)
    gap = whole.reserve(10)
    for _unused in range(5):
        whole.write(bytes(LEAF))
        whole.send(whole.take_ready())
    assert set(parts.parts) == {2, 3, 4, 5}
    whole.fill(gap, b"0123456789")
    whole.send(whole.take_ready())
    assert set(parts.parts) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("any_offset", [True, False])
def test_a_gap_that_was_forgotten_or_filled_wrongly_makes_no_object(any_offset: bool) -> None:
    parts = MemoryParts(any_offset)
    whole = gapped(parts)
    gap = whole.reserve(10)
    with pytest.raises(VmferryError, match="do not belong"):
        whole.fill(gap, b"123")
    with pytest.raises(VmferryError, match="never filled"):
        whole.finish()
    assert parts.object is None
    whole.fill(gap, bytes(10))
    with pytest.raises(VmferryError, match="do not belong"):
        whole.fill(gap, bytes(10))


def test_what_may_get_too_large_for_the_store_is_refused_before_the_first_byte() -> None:
    with pytest.raises(VmferryError, match="takes at most") as raised:
        GappedObject(MemoryParts(), BOUND, LEAF, Rules(max_object=BOUND - 1), Flow())
    assert raised.value.kind == "unsupported"


@pytest.mark.parametrize("pieces", [False, True])
def test_parts_from_any_thread_are_appended_in_their_order(pieces: bool) -> None:
    parts, flow = MemoryParts(), Flow()
    whole = GappedObject(parts, BOUND, LEAF, Rules(), flow)
    stream = MemberStream(whole, flow, LEAF)
    blocks = [bytes([number]) * LEAF for number in range(20)]

    def bring(number: int) -> None:
        data = memoryview(blocks[number])
        if pieces:
            stream.write_piece(Part(number // 5 + 1, number // 5 * 5 * LEAF, 5 * LEAF), number % 5 + 1, data)
        else:
            stream.write_part(Part(number + 1, number * LEAF, LEAF), data)

    threads = [Thread(target=bring, args=(number,)) for number in reversed(range(20))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    whole.send(whole.take_ready())
    whole.finish()
    assert parts.object == b"".join(blocks)
    assert stream.size == len(parts.object)
