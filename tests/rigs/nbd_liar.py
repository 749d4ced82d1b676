# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An NBD server that breaks the protocol on purpose, because no real one does: a greeting, an export, then a script.

The scripts get the connected socket and the requests they are to answer, and may send whatever they like.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from rigs.nbd import socket_path

SIZE = 1024 * 1024
ACK, INFO, META_CONTEXT, UNSUP = 1, 3, 4, 2**31 + 1
NONE, DATA, HOLE, STATUS, ERROR = 0, 1, 2, 5, 2**15 + 1


class Request(NamedTuple):
    command: int
    cookie: int
    offset: int
    length: int


Script = Callable[["Liar"], None]


class Liar:
    """One connection, past the handshake."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected

    def request(self) -> Request:
        """The next request; a write's data is left in the stream."""
        _unused, _unused, command, cookie, offset, length = struct.unpack(">IHHQQI", self.receive(28))
        return Request(command, cookie, offset, length)

    def receive(self, length: int) -> bytes:
        data = self.socket.recv(length, socket.MSG_WAITALL)
        if len(data) < length:
            raise ConnectionError("the client is gone")
        return data

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def chunk(self, kind: int, cookie: int, payload: bytes = b"", *, done: bool = True) -> None:
        self.raw(struct.pack(">IHHQI", 0x668E33EF, done, kind, cookie, len(payload)) + payload)

    def data(self, cookie: int, offset: int, content: bytes, *, done: bool = True) -> None:
        self.chunk(DATA, cookie, struct.pack(">Q", offset) + content, done=done)

    def hole(self, cookie: int, offset: int, length: int, *, done: bool = True) -> None:
        self.chunk(HOLE, cookie, struct.pack(">QI", offset, length), done=done)

    def status(self, cookie: int, context: int, *runs: tuple[int, int], done: bool = True) -> None:
        payload = struct.pack(">I", context) + b"".join(struct.pack(">II", *run) for run in runs)
        self.chunk(STATUS, cookie, payload, done=done)

    def error(self, cookie: int, errno: int, message: str, *, done: bool = True) -> None:
        payload = struct.pack(">IH", errno, len(message)) + message.encode()
        self.chunk(ERROR, cookie, payload, done=done)


@contextmanager
def lying(script: Script, *, structured: bool = True) -> Iterator[Path]:
    """Runs `script` on every connection, then hangs up. Yields the socket."""
    with socket_path() as path, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(16)
        server = threading.Thread(target=_accept, args=(listener, script, structured), daemon=True)
        server.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        server.join(5)


def _accept(listener: socket.socket, script: Script, structured: bool) -> None:
    while True:
        try:
            connected = listener.accept()[0]
        except OSError:
            return  # the test is over
        threading.Thread(target=_serve, args=(connected, script, structured), daemon=True).start()


def _serve(connected: socket.socket, script: Script, structured: bool) -> None:
    with connected, suppress(ConnectionError):
        liar = Liar(connected)
        _handshake(liar, structured)
        script(liar)


def _handshake(liar: Liar, structured: bool) -> None:
    liar.raw(struct.pack(">8s8sH", b"NBDMAGIC", b"IHAVEOPT", 3))
    liar.receive(4)
    while True:
        _unused, option, length = struct.unpack(">8sII", liar.receive(16))
        data = liar.receive(length) if length else b""
        if option == 8:
            _reply(liar, option, ACK if structured else UNSUP)
        elif option == 10:
            name = struct.unpack_from(">I", data)[0]
            at = 4 + name
            for number in range(struct.unpack_from(">I", data, at)[0]):
                size = struct.unpack_from(">I", data, at + 4)[0]
                _reply(liar, option, META_CONTEXT, struct.pack(">I", number) + data[at + 8 : at + 8 + size])
                at += 4 + size
            _reply(liar, option, ACK)
        elif option == 7:
            _reply(liar, option, INFO, struct.pack(">HQH", 0, SIZE, 1 | 4 | 32 | 64))
            _reply(liar, option, ACK)
            return
        else:
            _reply(liar, option, UNSUP)


def _reply(liar: Liar, option: int, kind: int, data: bytes = b"") -> None:
    liar.raw(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)
