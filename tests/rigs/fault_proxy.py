# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy in front of an HTTP server that answers, delays, throttles or breaks requests as told."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random

_BUFFER = 65536
_SEGMENT = 1400  # bytes


@dataclass(frozen=True)
class Fault:
    """What befalls one request. The first that applies to its method and path is used up by it."""

    answer: int = 0  # HTTP status given instead of asking the server
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds before the request goes on
    reset_after: int | None = None  # bytes of the request's body that arrive before the connection is reset
    lose_answer: bool = False  # the server carries the request out, the client never hears of it
    answer_bytes: int | None = None  # bytes of the answer that arrive before the connection is reset
    flip_sent: int | None = None  # the byte of the request's body that arrives as another
    flip_answered: int | None = None  # the byte of the answer's body that arrives as another
    twice: bool = False  # the server gets the request a second time, and the client that second answer
    method: str = ""  # empty: any
    path: str = ""  # part of the path and query; empty: any
    length: int = 0  # bytes that the request's body has at least


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    length: int
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case


class FaultProxy:
    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._faults: list[Fault] = []
        self._forever: Fault | None = None
        self._share, self._random = 1.0, Random(1)
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.bytes_per_second = 0.0  # towards the server; 0: unlimited
        self._listener = socket.create_server(("127.0.0.1", 0))
        # As on a network: loopback else takes megabytes at once, whatever the rate behind it.
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self.port: int = self._listener.getsockname()[1]
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._silent, self._closed = False, threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def fail_next(self, *faults: Fault) -> None:
        with self._lock:
            self._faults.extend(faults)

    def fail_always(self, fault: Fault | None) -> None:
        self._forever, self._share = fault, 1.0

    def fail_some(self, share: float, fault: Fault) -> None:
        """So many of the requests that it applies to, for ever, in no rhythm that a client could fall into."""
        self._forever, self._share, self._random = fault, share, Random(1)

    def fall_silent(self) -> None:
        """Nothing moves any more, on connections there are and on new ones, and none is closed: as behind a firewall
        that drops everything. Those connections stay dead; after `reset`, new ones are served."""
        self._silent = True

    def reset(self) -> None:
        """As new."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()
        self._forever, self.bytes_per_second, self._silent = None, 0.0, False
        self._share, self._random = 1.0, Random(1)

    def close(self) -> None:
        self._closed.set()
        for each in [self._listener, *self._open]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _unused = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        _send_at_once(client)
        self._open.add(client)
        try:
            while head := _read_head(client):
                self._hang_if_silent()
                request = _parse(head)
                fault = self._pick(request)
                time.sleep(fault.delay)
                if fault.answer:
                    _answer(client, fault)
                    return
                if server is None:
                    server = socket.create_connection(self._server)
                    _send_at_once(server)
                    self._open.add(server)
                if not self._exchange(client, server, head, request, fault):
                    _reset(client)
                    return
        except OSError:
            return  # either side has gone: that ends this connection
        finally:
            for each in (client, server):
                if each is not None:
                    self._open.discard(each)
                    each.close()

    def _hang_if_silent(self) -> None:
        if self._silent:
            self._closed.wait()

    def _pick(self, request: Request) -> Fault:
        with self._lock:
            self.requests.append(request)
            for fault in self._faults:
                if _applies(fault, request):
                    self._faults.remove(fault)
                    return fault
            due = self._random.random() < self._share
            if due and self._forever is not None and _applies(self._forever, request):
                return self._forever
        return Fault()

    def _exchange(
        self, client: socket.socket, server: socket.socket, head: bytes, request: Request, fault: Fault
    ) -> bool:
        """One request and its answer; False when the client's connection is to be reset."""
        if fault.twice:
            return self._exchange_twice(client, server, head, request)
        server.sendall(head)
        if b"100-continue" in head.lower():
            interim = _read_head(server)
            if not interim.startswith(b"HTTP/1.1 100"):  # the server declined the body
                client.sendall(interim)
                return self._pipe(server, client, _length(interim), None)
            client.sendall(interim)
        if not self._pipe(
            client, server, request.length, fault.reset_after, self.bytes_per_second, flip=fault.flip_sent
        ):
            return False
        answer = _final_head(server)
        self._hang_if_silent()
        if fault.lose_answer:
            return False
        client.sendall(answer)
        bodiless = request.method == "HEAD" or answer.split()[1] in (b"204", b"304")
        if not bodiless and b"transfer-encoding: chunked" in answer.lower():
            return self._pipe_chunked(server, client)
        return bodiless or self._pipe(server, client, _length(answer), fault.answer_bytes, flip=fault.flip_answered)

    def _exchange_twice(self, client: socket.socket, server: socket.socket, head: bytes, request: Request) -> bool:
        lines = head.split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(b"expect:")]
        if len(kept) < len(lines):
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = _read_exactly(client, request.length)
        server.settimeout(10)  # some answer a request once only
        for turn in range(2):
            server.sendall(b"\r\n".join(kept) + body)
            answer = _final_head(server)
            bodiless = request.method == "HEAD" or answer.split()[1] in (b"204", b"304")
            if turn:
                client.sendall(answer)
            target = client if turn else None
            if bodiless:
                continue
            if b"transfer-encoding: chunked" in answer.lower():
                self._pipe_chunked(server, target)
            else:
                self._pipe(server, target, _length(answer), None)
        return True

    def _pipe(
        self,
        source: socket.socket,
        target: socket.socket | None,
        length: int,
        limit: int | None,
        rate: float = 0.0,
        flip: int | None = None,
    ) -> bool:
        moved, started = 0, time.monotonic()
        while moved < length:
            if limit is not None and moved >= limit:
                return False
            data = source.recv(min(_BUFFER, length - moved))
            self._hang_if_silent()
            if not data:
                return False
            if flip is not None and moved <= flip < moved + len(data):
                at = flip - moved
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            if target is not None:
                target.sendall(data if limit is None else data[: limit - moved])
            moved += len(data)
            if rate:
                time.sleep(max(0.0, moved / rate - (time.monotonic() - started)))
        return limit is None or length <= limit

    def _pipe_chunked(self, source: socket.socket, target: socket.socket | None) -> bool:
        while True:
            line = _read_until(source, b"\r\n")
            size = int(line.split(b";")[0], 16)
            if target is not None:
                target.sendall(line)
            if not self._pipe(source, target, size + 2, None):
                return False
            if size == 0:
                return True


@contextmanager
def fault_proxy(port: int) -> Iterator[FaultProxy]:
    proxy = FaultProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


def _applies(fault: Fault, request: Request) -> bool:
    return fault.method in ("", request.method) and fault.path in request.target and request.length >= fault.length


def _read_until(source: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        byte = source.recv(1)  # never a byte too many: the rest is piped
        if not byte:
            return b""
        data += byte
    return data


def _read_exactly(source: socket.socket, length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        data = source.recv(min(_BUFFER, length - len(found)))
        if not data:
            raise OSError("the other side has gone")
        found += data
    return bytes(found)


def _read_head(source: socket.socket) -> bytes:
    return _read_until(source, b"\r\n\r\n")


def _final_head(source: socket.socket) -> bytes:
    while (head := _read_head(source)).startswith(b"HTTP/1.1 100"):
        pass  # werkzeug, below moto, says it twice
    return head


def _parse(head: bytes) -> Request:
    method, target, _unused = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
    return Request(method, target, _length(head), _headers(head))


def _length(head: bytes) -> int:
    return int(_headers(head).get("content-length", "0"))


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:] if line)
    return {name.strip().lower(): value.strip() for name, _unused, value in lines}


def _answer(client: socket.socket, fault: Fault) -> None:
    headers = {"Content-Length": str(len(fault.body)), "Connection": "close", **fault.headers}
    lines = [f"HTTP/1.1 {fault.answer} Fault", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    client.sendall("\r\n".join(lines).encode() + fault.body)
    client.shutdown(socket.SHUT_WR)
    client.settimeout(1)
    with suppress(OSError):  # closing with unread bytes would reset the connection before the answer is read
        while client.recv(_BUFFER):
            pass


def _send_at_once(connection: socket.socket) -> None:
    """Small pieces, too: waiting for an acknowledgement costs 40 ms each."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
