# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The metadata service of a virtual machine at AWS, version 2: hands out a role's credentials for a session's token."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_ROLES = "/latest/meta-data/iam/security-credentials/"
_ROLE = "vmferry-role"
_SESSION = "a-session-of-the-metadata-service"


@dataclass
class InstanceMetadata:
    access_key: str
    secret_key: str
    token: str
    endpoint_url: str = ""
    requests: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, session: str | None) -> tuple[int, str]:
        self.requests.append(f"{method} {path}")
        if (method, path) == ("PUT", "/latest/api/token"):
            return 200, _SESSION
        if session != _SESSION:
            return 401, ""
        return {_ROLES: (200, _ROLE), _ROLES + _ROLE: (200, self._credentials())}.get(path, (404, ""))

    def _credentials(self) -> str:
        stamp, now = "%Y-%m-%dT%H:%M:%SZ", datetime.now(timezone.utc)
        credentials = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": now.strftime(stamp),
            "Expiration": (now + timedelta(hours=6)).strftime(stamp),
            "AccessKeyId": self.access_key,
            "SecretAccessKey": self.secret_key,
            "Token": self.token,
        }
        return json.dumps(credentials)


@contextmanager
def instance_metadata(access_key: str, secret_key: str, token: str) -> Iterator[InstanceMetadata]:
    service = InstanceMetadata(access_key, secret_key, token)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            status, body = service.answer(self.command, self.path, self.headers["x-aws-ec2-metadata-token"])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_PUT = _answer

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield service
        finally:
            server.shutdown()
