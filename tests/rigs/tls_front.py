# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS in front of a server that speaks none, on loopback."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_BUFFER = 65536
_HANDSHAKE = 10.0  # seconds


class TlsFront:
    """Serves `server-cert.pem` and `server-key.pem` of a folder, and passes what comes in on to a port."""

    def __init__(self, port: int, pki: Path) -> None:
        self._server = ("127.0.0.1", port)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(pki / "server-cert.pem", pki / "server-key.pem")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in [self._listener, *self._open]:
            _hang_up(each)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _unused = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_HANDSHAKE)
        try:
            secured = self._context.wrap_socket(client, server_side=True)
        except OSError:  # the client does not like the certificate
            client.close()
            return
        secured.settimeout(None)
        with secured, socket.create_connection(self._server) as server:
            self._open |= {secured, server}
            back = threading.Thread(target=_pipe, args=(server, secured), daemon=True)
            back.start()
            _pipe(secured, server)
            back.join()
            self._open -= {secured, server}


@contextmanager
def tls_front(port: int, pki: Path) -> Iterator[TlsFront]:
    front = TlsFront(port, pki)
    try:
        yield front
    finally:
        front.close()


def _pipe(source: socket.socket, target: socket.socket) -> None:
    """Until either side hangs up; then neither has any more to say."""
    with suppress(OSError):
        while data := source.recv(_BUFFER):
            target.sendall(data)
    for each in (source, target):
        _hang_up(each)


def _hang_up(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
