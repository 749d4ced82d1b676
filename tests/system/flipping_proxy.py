# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy that changes one byte of what is stored, as a bad disk or a bad cable behind a careless server would."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from rigs.fault_proxy import Fault, FaultProxy, Request

ENOUGH = 100_000  # bytes into a body: past its head


class FlippingProxy(FaultProxy):
    def __init__(self, port: int) -> None:
        self._path, self.flipped = "", 0
        super().__init__(port)

    def flip(self, path: str) -> None:
        """In every body of some length that is sent to a target with this in it."""
        self._path = path

    def _exchange(
        self, client: socket.socket, server: socket.socket, head: bytes, request: Request, fault: Fault
    ) -> bool:
        # moto says "100 Continue" twice and ends the connection after each answer, so it is not asked for the first,
        # and each request gets a connection of its own.
        if b"100-continue" in head.lower():
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = re.sub(rb"(?i)expect: 100-continue\r\n", b"", head)
        with socket.create_connection(self._server) as own:
            if not self._path or self._path not in request.target or request.length <= ENOUGH:
                return super()._exchange(client, own, head, request, fault)
            self.flipped += 1
            return super()._exchange(client, _Flips(own), head, request, fault)  # type: ignore[arg-type]


class _Flips:
    """A connection to the server, of whose outgoing bytes one is changed."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._sent = connection, 0

    def sendall(self, data: bytes) -> None:
        at = ENOUGH - self._sent
        self._sent += len(data)
        if 0 <= at < len(data):
            data = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        self._connection.sendall(data)

    def recv(self, length: int) -> bytes:
        return self._connection.recv(length)


@contextmanager
def flipping_proxy(port: int) -> Iterator[FlippingProxy]:
    proxy = FlippingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
