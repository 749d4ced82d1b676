# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hands out Google's access tokens: the OAuth service, for a signed request, and a virtual machine's metadata."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_ACCOUNT = "/computeMetadata/v1/instance/service-accounts/default/"


@dataclass
class GoogleTokens:
    address: str = ""  # host and port
    refusing: str = ""  # what the OAuth service answers instead of a token
    requests: list[str] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str) -> tuple[int, str]:
        self.requests.append(f"{method} {path}")
        if (method, path) == ("POST", "/token"):
            return (400, self.refusing) if self.refusing else (200, self._token())
        found = {
            "/": "",
            "/computeMetadata/v1/project/project-id": "the-project",
            _ACCOUNT: json.dumps({"email": "machine@the-project", "scopes": ["all"], "aliases": ["default"]}),
        }
        if path == f"{_ACCOUNT}token":
            return 200, self._token()
        return (200, found[path]) if path in found else (404, "")

    def _token(self) -> str:
        self.issued.append(f"the-secret-token-{len(self.issued)}")
        return json.dumps({"access_token": self.issued[-1], "expires_in": 3600, "token_type": "Bearer"})

    def key_of_an_account(self) -> str:
        """A service account's JSON key, as it is downloaded."""
        command = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
        private = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        described = {
            "type": "service_account",
            "project_id": "the-project",
            "private_key_id": "0123456789abcdef0123456789abcdef01234567",
            "private_key": private,
            "client_email": "ferry@the-project.iam.gserviceaccount.com",
            "token_uri": f"http://{self.address}/token",
        }
        return json.dumps(described)


@contextmanager
def google_tokens() -> Iterator[GoogleTokens]:
    service = GoogleTokens()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, body = service.answer(self.command, urlsplit(self.path).path)
            self.send_response(status)
            self.send_header("Metadata-Flavor", "Google")
            self.send_header("Content-Type", "application/json" if body.startswith("{") else "application/text")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.address = f"127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield service
        finally:
            server.shutdown()
