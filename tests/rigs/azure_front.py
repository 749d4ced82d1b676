# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Azurite with the one request that it lacks: Put Block From URL, whose bytes it takes from another object itself.

The source is read by the address that the request names, so that what it grants is checked by Azurite. Everything else
is handed on as it is.

with azure_front(server) as front:
    front.endpoint_url, front.proxy
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .azurite import AzuriteServer
from .fault_proxy import FaultProxy, fault_proxy

_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class AzureFront:
    endpoint_url: str
    proxy: FaultProxy  # before the front


@contextmanager
def azure_front(server: AzuriteServer) -> Iterator[AzureFront]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_what: Any) -> None: ...

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "comp=block&" in self.path and "x-ms-copy-source" in self.headers:
                status, headers, data = _taken(server, self.path, self.headers)
            else:
                status, headers, data = _asked(server.port, self.command, self.path, dict(self.headers), body)
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            if "content-length" not in {name.lower() for name in headers} and status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_DELETE = _serve

    front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=front.serve_forever, args=(0.05,), daemon=True).start()
    try:
        with fault_proxy(front.server_port) as proxy:
            yield AzureFront(f"{proxy.endpoint_url}/{server.account}", proxy)
    finally:
        front.shutdown()
        front.server_close()


def _asked(
    port: int, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def _taken(server: AzuriteServer, path: str, headers: Any) -> tuple[int, dict[str, str], bytes]:
    source = urlsplit(headers["x-ms-copy-source"])
    wanted = {"x-ms-range": headers["x-ms-source-range"], "If-Match": headers.get("x-ms-source-if-match", "*")}
    status, _unused, data = _asked(server.port, "GET", f"{source.path}?{source.query}", wanted, b"")
    if status == 412:
        return status, {"x-ms-error-code": "SourceConditionNotMet"}, b""
    if status != 206:
        return 403, {"x-ms-error-code": "CannotVerifyCopySource"}, b""
    target = urlsplit(path)
    container, _slash, blob = unquote(target.path).removeprefix(f"/{server.account}/").partition("/")
    name = parse_qs(target.query)["blockid"][0]
    client = server.client().get_blob_client(container, blob)
    client._client.block_blob.stage_block(name, len(data), body=data)
    return 201, {"Date": formatdate(usegmt=True)}, b""
