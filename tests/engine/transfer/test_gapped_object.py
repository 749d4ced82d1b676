# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object with gaps is the bytes that were written and filled in, whichever came first and from whichever thread."""

from __future__ import annotations

from threading import Thread

import pytest
from disks_in_memory import MemoryParts, Rules, naive_proof
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Part
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.gapped_object import GappedObject
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.member_stream import MemberStream

FEW = settings(max_examples=25, deadline=None, derandomize=True, database=None)
BOUND = 64 * LEAF


def gapped(parts: MemoryParts, bound: int = BOUND) -> GappedObject:
    return GappedObject(parts, bound, LEAF, Rules(), Flow())


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3 * LEAF)), max_size=12), st.booleans())
@FEW
def test_an_object_is_what_was_written_and_filled_in(steps: list[tuple[bool, int]], any_offset: bool) -> None:
    """One gap at a time, besides a first one that is filled last."""
    parts = MemoryParts(any_offset)
    whole, expected = gapped(parts), bytearray(b"f" * 700)
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
    for receipt in parts.receipts:
        assert receipt.proof == naive_proof(bytes(expected[receipt.part.offset :][: receipt.part.size]))


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
