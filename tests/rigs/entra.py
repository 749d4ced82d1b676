# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Microsoft Entra ID, as far as a token of it goes: its token endpoint, and the one of a machine's managed identity.

Azurite reads the tokens, and looks at all of them but the signature: audience, issuer and time.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TENANT = "5f0f2a60-0000-4000-8000-2b1d6f0a9c11"
CLIENT = "9b7c1f3e-0000-4000-8000-5d8e2a4c6b70"
SECRET = "the-secret-of-the-service-principal"
AUDIENCE = "https://storage.azure.com"
_LIFETIME = 3600  # seconds


@dataclass
class Entra:
    port: int
    asked: list[dict[str, str]] = field(default_factory=list)  # by form or query, and under `path` where

    @property
    def environment(self) -> dict[str, str]:
        """For the authority. Its certificate has to be trusted."""
        return {"AZURE_AUTHORITY_HOST": f"https://localhost:{self.port}"}


def token() -> str:
    now = int(time.time())
    claims = {"aud": AUDIENCE, "iss": f"https://sts.windows.net/{TENANT}/", "tid": TENANT, "nbf": now - 60, "iat": now}
    parts = [{"alg": "RS256", "typ": "JWT"}, {**claims, "exp": now + _LIFETIME}]
    return ".".join([*(_encoded(json.dumps(part).encode()) for part in parts), _encoded(b"not looked at")])


def _encoded(text: bytes) -> str:
    return urlsafe_b64encode(text).decode().rstrip("=")


@contextmanager
def entra(pki: Path | None) -> Iterator[Entra]:
    """With `pki`, over TLS, as an authority is; without, as the service of a machine is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    if pki is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pki / "server-cert.pem", pki / "server-key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    service = Entra(server.server_address[1])
    vars(server)["service"] = service
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path.endswith("/openid-configuration"):
            service: Entra = vars(self.server)["service"]
            root = f"https://localhost:{service.port}/{TENANT}"
            endpoints = {name: f"{root}/oauth2/v2.0/{name.partition('_')[0]}" for name in _ENDPOINTS}
            self._answer(200, {**endpoints, "issuer": f"{root}/v2.0"})
        else:
            self._note(parse_qs(parts.query))
            self._answer(200, {"access_token": token(), "token_type": "Bearer", "expires_on": time.time() + _LIFETIME})

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._note(form)
        if form.get("client_secret") == [SECRET] and form.get("client_id") == [CLIENT]:
            self._answer(200, {"access_token": token(), "token_type": "Bearer", "expires_in": _LIFETIME})
        else:
            self._answer(401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret."})

    def _note(self, said: dict[str, list[str]]) -> None:
        service: Entra = vars(self.server)["service"]
        service.asked.append({**{name: values[0] for name, values in said.items()}, "path": urlsplit(self.path).path})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_unused: object) -> None:
        """Nothing on the terminal."""


_ENDPOINTS = ("authorize_endpoint", "authorization_endpoint", "token_endpoint")
