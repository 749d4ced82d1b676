# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A port in front of a server's, and how many bytes came to it from clients: what arrived, whatever anybody says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_BUFFER = 1 << 20


class CountingProxy:
    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._received = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def received(self) -> int:
        """Bytes, with all headers."""
        return self._received

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _unused = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, target, counts in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._forward, args=(source, target, counts), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        memory = memoryview(bytearray(_BUFFER))
        with suppress(OSError):
            while size := source.recv_into(memory):
                if counts:
                    with self._lock:
                        self._received += size
                target.sendall(memory[:size])
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        if not counts:  # the server has nothing more to say, so nobody needs either end any more
            source.close()
            target.close()


@contextmanager
def counting_proxy(port: int) -> Iterator[CountingProxy]:
    proxy = CountingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
