# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An S3 server that compares some checksums, refuses others as unknown, and takes the rest without a look.

Just what a probe asks for: objects, and uploads that nobody completes.
"""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from zlib import crc32

_DIGESTS: Mapping[str, Callable[[bytes], bytes]] = {
    "x-amz-checksum-crc32": lambda data: crc32(data).to_bytes(4, "big"),
    "content-md5": lambda data: md5(data, usedforsecurity=False).digest(),
}


@dataclass
class ChoosyS3:
    endpoint_url: str = ""
    verified: frozenset[str] = frozenset()  # names of headers
    unknown: frozenset[str] = frozenset()
    part_headers: list[dict[str, str]] = field(default_factory=list)
    objects: set[str] = field(default_factory=set)
    uploads: set[str] = field(default_factory=set)

    def put(self, path: str, headers: dict[str, str], data: bytes, part: bool) -> tuple[int, str]:
        if part:
            self.part_headers.append(headers)
        for name in self.unknown & headers.keys():
            return 501, f"<Error><Code>NotImplemented</Code><Message>{name}</Message></Error>"
        for name in self.verified & headers.keys():
            if b64encode(_DIGESTS[name](data)).decode() != headers[name]:
                return 400, "<Error><Code>BadDigest</Code></Error>"
        if not part:
            self.objects.add(path)
        return 200, ""


@contextmanager
def choosy_s3() -> Iterator[ChoosyS3]:
    server = ChoosyS3()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            url = urlsplit(self.path)
            query = parse_qs(url.query, keep_blank_values=True)
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, body = self._answer(url.path, query, headers, data)
            self.send_response(status)
            self.send_header("ETag", '"0"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        def _answer(
            self, path: str, query: dict[str, list[str]], headers: dict[str, str], data: bytes
        ) -> tuple[int, str]:
            upload = query.get("uploadId", [""])[0]
            if self.command == "POST":
                name = f"upload-{len(server.part_headers)}"
                server.uploads.add(name)
                return (
                    200,
                    f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>",
                )
            if self.command == "PUT":
                return server.put(path, headers, data, part=bool(upload))
            if self.command == "DELETE":
                server.uploads.discard(upload)
                server.objects.discard("" if upload else path)
                return 204, ""
            there = upload in server.uploads if upload else path in server.objects
            return (200, "") if there else (404, "<Error><Code>NoSuchUpload</Code></Error>")

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        server.endpoint_url = f"http://127.0.0.1:{listener.server_address[1]}"
        threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            listener.shutdown()
