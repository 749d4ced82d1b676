# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranges over HTTP: into the buffer, on one connection, and never taken for whole where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from socket import create_server, socket
from threading import Thread

import pytest
import urllib3

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.ranges import READ_CHUNK, fill, promised_bytes

DATA = Random(11).randbytes(3 * READ_CHUNK + 77)
URL = "https://store/x"


class Server:
    """Answers every request with the same head and bytes; `connections` were made to it."""

    def __init__(self, listener: socket) -> None:
        self.listener, self.connections = listener, 0
        self.head, self.body, self.breaks = f"Content-Length: {len(DATA)}", DATA, False
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _unused = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket) -> None:
        with connection, connection.makefile("rb") as asked:
            while asked.readline():
                while asked.readline().strip():
                    pass
                connection.sendall(f"HTTP/1.1 206 Partial Content\r\n{self.head}\r\n\r\n".encode() + self.body)
                if self.breaks:
                    return


@pytest.fixture
def server() -> Iterator[Server]:
    with create_server(("127.0.0.1", 0)) as listener:
        yield Server(listener)


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(maxsize=1, retries=False, timeout=0.5) as manager:
        yield manager


def read(pool: urllib3.PoolManager, server: Server, buffer: memoryview, promised: int) -> list[None]:
    signs: list[None] = []
    answer = pool.request("GET", server.url, preload_content=False, decode_content=False)
    try:
        fill(answer, buffer, promised, URL, lambda: signs.append(None))
    finally:
        answer.close()
    return signs


def test_many_ranges_are_read_on_one_connection(pool: urllib3.PoolManager, server: Server) -> None:
    for _unused in range(3):
        buffer = memoryview(bytearray(len(DATA)))
        assert len(read(pool, server, buffer, len(DATA))) == 4  # signs of life
        assert buffer == DATA
    assert server.connections == 1


def test_an_answer_in_chunks_is_read_too(pool: urllib3.PoolManager, server: Server) -> None:
    server.head, server.body = "Transfer-Encoding: chunked", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    buffer = memoryview(bytearray(11))
    read(pool, server, buffer, 11)
    assert buffer == b"hello world"


def test_a_body_that_is_encoded_arrives_as_it_is_stored(pool: urllib3.PoolManager, server: Server) -> None:
    server.head, server.body = "Content-Encoding: gzip\r\nContent-Length: 5", b"\x1f\x8bxyz"
    buffer = memoryview(bytearray(5))
    read(pool, server, buffer, 5)
    assert buffer == b"\x1f\x8bxyz"


def test_a_connection_that_breaks_is_no_end(pool: urllib3.PoolManager, server: Server) -> None:
    server.body, server.breaks = DATA[:-1], True
    with pytest.raises(VmferryError, match=f"ended after {len(DATA) - 1} of {len(DATA)} bytes") as raised:
        read(pool, server, memoryview(bytearray(len(DATA))), len(DATA))
    assert raised.value.kind == "network"


def test_silence_is_a_timeout_of_urllib3(pool: urllib3.PoolManager, server: Server) -> None:
    server.body = DATA[:-1]
    with pytest.raises(urllib3.exceptions.TimeoutError):
        read(pool, server, memoryview(bytearray(len(DATA))), len(DATA))


def test_an_object_that_ends_early_is_not_what_it_was_said_to_be(pool: urllib3.PoolManager, server: Server) -> None:
    with pytest.raises(VmferryError, match="ends 5 bytes before") as raised:
        read(pool, server, memoryview(bytearray(len(DATA) + 5)), len(DATA))
    assert raised.value.kind == "checksum_mismatch"


@pytest.mark.parametrize(
    ("status", "range_told", "length", "promised"),
    [
        (206, "bytes 10-19/100", "10", 10),
        (206, "bytes 10-19/*", "", 10),
        (206, "bytes 10-14/15", "5", 5),
        (206, "bytes 10-8/9", "0", 0),
    ],
)
def test_what_is_promised_is_what_the_answer_says(status: int, range_told: str, length: str, promised: int) -> None:
    headers = {"Content-Range": range_told, "Content-Length": length}
    assert promised_bytes(status, headers, URL, 10, 20) == promised


def test_a_whole_object_is_its_first_range() -> None:
    assert promised_bytes(200, {"Content-Length": "20"}, URL, 0, 20) == 20


@pytest.mark.parametrize(
    ("status", "range_told", "length"),
    [
        (206, "bytes 0-9/100", "10"),
        (206, "bytes 10-20/100", "11"),
        (206, "bytes 10-19/100", "9"),
        (206, "", "10"),
        (200, "", "100"),
        (200, "", "20"),
        (200, "bytes 10-19/100", "10"),
    ],
)
def test_other_bytes_than_were_asked_for_are_refused(status: int, range_told: str, length: str) -> None:
    headers = {"Content-Range": range_told, "Content-Length": length}
    with pytest.raises(VmferryError, match="the server gave others") as raised:
        promised_bytes(status, headers, URL, 10, 20)
    assert raised.value.kind == "unsupported"
