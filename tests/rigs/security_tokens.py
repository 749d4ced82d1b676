# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The security token service of AWS: a new access key for each request, which lasts as long as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

_ANSWER = """<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>
<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/r/s</Arn><AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
<SessionToken>{token}</SessionToken><Expiration>{expiration}</Expiration></Credentials>
</{action}Result></{action}Response>"""
_REFUSAL = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"""


@dataclass
class SecurityTokens:
    endpoint_url: str = ""
    lifetime: float = 3600.0  # seconds
    refusal: tuple[str, str] | None = None  # code and message
    requests: list[dict[str, str]] = field(default_factory=list)  # with `authorization`, '' where it was not signed

    def answer(self, request: dict[str, str]) -> tuple[int, str]:
        self.requests.append(request)
        if self.refusal is not None:
            return 403, _REFUSAL.format(code=self.refusal[0], message=self.refusal[1])
        expiration = datetime.now(timezone.utc) + timedelta(seconds=self.lifetime)
        number = len(self.requests)
        return 200, _ANSWER.format(
            action=request["Action"],
            key=f"ASIAROLE{number}",
            secret=f"secret-of-the-role-{number}",
            token=f"token-{number}",
            expiration=expiration.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )


@contextmanager
def security_tokens() -> Iterator[SecurityTokens]:
    service = SecurityTokens()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            status, body = service.answer({**form, "authorization": self.headers.get("Authorization", "")})
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield service
        finally:
            server.shutdown()
