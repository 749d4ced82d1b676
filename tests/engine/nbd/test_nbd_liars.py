# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that break the protocol: every lie is an error, and none of its bytes is taken for the disk's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.classification import ALLOCATION_DEPTH
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.connection import Connection
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.coverage import Coverage
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.protocol import BASE_ALLOCATION
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.source import NbdSource
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.transport import Address
from rigs.nbd_liar import DATA, ERROR, NONE, SIZE, Liar, lying

LENGTH = 4096
AT = 8192
BODY = b"\xaa" * LENGTH

Reply = Callable[[Liar, int], None]  # answers a read of LENGTH bytes at AT, by cookie

LIES: dict[str, Reply] = {
    "nothing at all": lambda liar, cookie: liar.chunk(NONE, cookie),
    "half of it": lambda liar, cookie: liar.data(cookie, AT, BODY[: LENGTH // 2]),
    "all but one byte in the middle": lambda liar, cookie: (
        liar.data(cookie, AT, BODY[:100], done=False),
        liar.data(cookie, AT + 101, BODY[101:]),
    ),
    "the right number of bytes, some twice": lambda liar, cookie: (
        liar.data(cookie, AT, BODY[:2048], done=False),
        liar.data(cookie, AT + 1024, BODY[:2048]),
    ),
    "a hole over bytes already sent": lambda liar, cookie: (
        liar.data(cookie, AT, BODY, done=False),
        liar.hole(cookie, AT + 1000, 1),
    ),
    "bytes before the range": lambda liar, cookie: liar.data(cookie, AT - 1, BODY),
    "bytes beyond the range": lambda liar, cookie: liar.data(cookie, AT + 1, BODY),
    "more bytes than asked for": lambda liar, cookie: liar.data(cookie, AT, BODY + b"x"),
    "bytes at an absurd offset": lambda liar, cookie: liar.data(cookie, 2**64 - 1, BODY),
    "a hole beyond the range": lambda liar, cookie: liar.hole(cookie, AT, LENGTH + 1),
    "a hole of no length": lambda liar, cookie: liar.hole(cookie, AT, 0),
    "data of no length": lambda liar, cookie: liar.data(cookie, AT, b""),
    "another's cookie": lambda liar, cookie: liar.data(cookie + 1, AT, BODY),
    "an unknown kind of chunk": lambda liar, cookie: liar.chunk(99, cookie, b"12345678"),
    "a simple reply": lambda liar, cookie: liar.raw(b"\x67\x44\x66\x98" + bytes(4) + cookie.to_bytes(8, "big") + BODY),
    "no magic": lambda liar, cookie: liar.raw(bytes(64)),
    "an endless error message": lambda liar, cookie: liar.raw(
        b"\x66\x8e\x33\xef\0\1" + ERROR.to_bytes(2, "big") + cookie.to_bytes(8, "big") + b"\xff\xff\xff\xff"
    ),
}


def answering(reply: Reply) -> Callable[[Liar], None]:
    def script(liar: Liar) -> None:
        while True:
            reply(liar, liar.request().cookie)

    return script


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_an_error_and_ends_the_connection(lie: str) -> None:
    with lying(answering(LIES[lie])) as path:
        connection = Connection(Address.unix(path), idle_timeout=5)
        with pytest.raises(VmferryError) as caught:
            connection.read_into([(AT, memoryview(bytearray(LENGTH)))])
        assert (caught.value.kind, caught.value.retryable) == ("internal", False)
        with pytest.raises(VmferryError, match="has ended"):
            connection.read_into([(AT, memoryview(bytearray(LENGTH)))])


def test_chunks_may_come_in_any_order_and_as_holes() -> None:
    def script(liar: Liar) -> None:
        first, second = liar.request(), liar.request()
        liar.data(second.cookie, second.offset + 1, b"\x22" * (second.length - 1), done=False)
        liar.hole(first.cookie, first.offset + 100, first.length - 100, done=False)
        liar.data(second.cookie, second.offset, b"\x33", done=False)
        liar.data(first.cookie, first.offset, b"\x11" * 100)
        liar.chunk(NONE, second.cookie)

    with lying(script) as path:
        connection = Connection(Address.unix(path))
        one, other = memoryview(bytearray(b"\xee" * 4096)), memoryview(bytearray(b"\xee" * 512))
        connection.read_into([(0, one), (65536, other)])
        assert one == b"\x11" * 100 + bytes(3996)
        assert other == b"\x33" + b"\x22" * 511


def test_an_error_of_one_read_never_reaches_another() -> None:
    """The second read's bytes come after the first one's error: they must not be taken for a later reply."""

    def script(liar: Liar) -> None:
        first, second = liar.request(), liar.request()
        liar.error(first.cookie, 5, "disk on fire", done=False)
        liar.data(second.cookie, second.offset, b"\x22" * second.length)
        liar.chunk(NONE, first.cookie)

    with lying(script) as path:
        connection = Connection(Address.unix(path))
        with pytest.raises(VmferryError, match="disk on fire"):
            connection.read_into([(0, memoryview(bytearray(512))), (512, memoryview(bytearray(512)))])
        assert not connection.usable


@pytest.mark.parametrize("cut", [1, 15, 16, 20, 27, 28, 29, 2000])
def test_hanging_up_within_a_reply_is_network_and_retried(cut: int) -> None:
    replies = []

    def script(liar: Liar) -> None:
        request = liar.request()
        reply = b"\x66\x8e\x33\xef\0\1" + DATA.to_bytes(2, "big") + request.cookie.to_bytes(8, "big")
        reply += (LENGTH + 8).to_bytes(4, "big") + request.offset.to_bytes(8, "big") + BODY
        replies.append(cut if not replies else len(reply))
        liar.raw(reply[: replies[-1]])

    with lying(script) as path:
        source = NbdSource(Address.unix(path), sleep=lambda seconds: None)
        buffer = memoryview(bytearray(LENGTH))
        source.read_into([(AT, buffer)])
        assert buffer == BODY
        assert len(replies) == 2
        source.close()


def test_a_trickle_is_no_timeout() -> None:
    def script(liar: Liar) -> None:
        request = liar.request()
        liar.raw(b"\x66\x8e\x33\xef\0\1" + DATA.to_bytes(2, "big") + request.cookie.to_bytes(8, "big"))
        liar.raw((8 + 8).to_bytes(4, "big") + request.offset.to_bytes(8, "big"))
        for number in range(8):
            time.sleep(0.1)
            liar.raw(bytes([number]))

    with lying(script) as path:
        connection = Connection(Address.unix(path), idle_timeout=0.4)
        buffer = memoryview(bytearray(8))
        connection.read_into([(0, buffer)])
        assert bytes(buffer) == bytes(range(8))


def test_simple_reply_with_a_wrong_cookie() -> None:
    def script(liar: Liar) -> None:
        cookie = liar.request().cookie + 7
        liar.raw(b"\x67\x44\x66\x98" + bytes(4) + cookie.to_bytes(8, "big") + BODY)

    with lying(script, structured=False) as path:
        connection = Connection(Address.unix(path))
        with pytest.raises(VmferryError) as caught:
            connection.read_into([(AT, memoryview(bytearray(LENGTH)))])
    assert caught.value.kind == "internal"


def test_contexts_that_reach_differently_far_are_cut_at_the_shortest() -> None:
    """And the last run may reach beyond the request, even beyond the disk."""

    def script(liar: Liar) -> None:
        while True:
            request = liar.request()
            if request.offset == 0:
                liar.status(request.cookie, 0, (1000, 0), (SIZE, 3), done=False)
                liar.status(request.cookie, 1, (500, 1), (1500, 2))
            else:
                liar.status(request.cookie, 0, (SIZE, 0), done=False)
                liar.status(request.cookie, 1, (2**32 - 1, 1))

    with lying(script) as path:
        contexts = (BASE_ALLOCATION, ALLOCATION_DEPTH)
        seen: list[dict[str, int]] = []

        def classify(flags: Mapping[str, int]) -> Kind:
            seen.append(dict(flags))
            return "data" if flags[ALLOCATION_DEPTH] == 1 else "unchanged"

        source = NbdSource(Address.unix(path), contexts=contexts, classify=classify)
        assert [(run.offset, run.length, run.kind) for run in source.extents()] == [
            (0, 500, "data"),
            (500, 1500, "unchanged"),
            (2000, SIZE - 2000, "data"),
        ]
        assert {BASE_ALLOCATION: 3, ALLOCATION_DEPTH: 2} in seen
        source.close()


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([(0, (0, 0))], id="a run of no length"),
        pytest.param([(7, (SIZE, 0))], id="a context that was not agreed on"),
        pytest.param([(0, (SIZE, 0)), (0, (SIZE, 0))], id="a context twice"),
        pytest.param([], id="no context"),
    ],
)
def test_lies_about_the_block_status(runs: list[tuple[int, tuple[int, int]]]) -> None:
    def script(liar: Liar) -> None:
        request = liar.request()
        for context, run in runs:
            liar.status(request.cookie, context, run, done=False)
        liar.chunk(NONE, request.cookie)

    with lying(script) as path:
        source = NbdSource(Address.unix(path), idle_timeout=5)
        with pytest.raises(VmferryError) as caught:
            list(source.extents())
        assert caught.value.kind == "internal"
        source.close()


@given(
    some.lists(some.tuples(some.integers(-3, 40), some.integers(0, 20)), max_size=12),
)
def test_coverage_takes_each_byte_once(runs: list[tuple[int, int]]) -> None:
    coverage, left = Coverage(32), set(range(32))
    for start, length in runs:
        run = set(range(start, start + length))
        fits = bool(run) and run <= left
        assert coverage.add(start, length) == fits
        left -= run if fits else set()
        assert coverage.missing == len(left)
