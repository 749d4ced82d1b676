# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloud Storage behind the store contract: two emulators."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from secrets import token_hex
from typing import Any, ClassVar

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.gcs.bucket import Bucket
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.gcs.connection import Connection
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.gcs.settings import GcsSettings
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.gcs.store import GcsStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.fault_proxy import Fault, FaultProxy
from rigs.gcs import GcsServer
from rigs.ports import free_port

from .store_rigs import Declared, StoreRig

TOKEN = "this-access-token-must-never-show-up-anywhere"


def refusal(status: int, reason: str, message: str = "") -> Fault:
    """As the JSON API says no. The token in it is what a careless server would quote."""
    text = f"{message or reason} {TOKEN}"
    return Fault(
        answer=status,
        body=json.dumps(
            {"error": {"code": status, "message": text, "errors": [{"reason": reason, "message": text}]}}
        ).encode(),
        headers={"Content-Type": "application/json"},
    )


class GcsRig(StoreRig):
    name = "gcs"
    declared = Declared()
    troubles: ClassVar[Mapping[str, Kind]] = {
        "unreachable": "network",
        "missing_bucket": "not_found",
        "token_refused": "unauthenticated",
        "access_denied": "permission_denied",
        "billing_disabled": "permission_denied",
        "requester_pays": "invalid_config",
        "quota": "quota",
        "too_fast": "rate_limited",
        "always_503": "rate_limited",
        "always_500": "network",
        "connection_reset": "network",
        "too_slow": "timeout",
        "elsewhere": "unsupported",
        "not_gcs": "network",
        "unknown": "internal",
    }
    _faults: ClassVar[Mapping[str, Fault]] = {
        "token_refused": refusal(401, "authError"),
        "access_denied": refusal(403, "forbidden"),
        "billing_disabled": refusal(403, "accountDisabled"),
        "requester_pays": refusal(400, "required", "Bucket is a requester pays bucket but no user project provided."),
        "quota": refusal(403, "quotaExceeded"),
        "too_fast": refusal(403, "rateLimitExceeded"),
        "always_503": Fault(answer=503),
        "always_500": refusal(500, "backendError"),
        "connection_reset": Fault(reset_after=0),
        "too_slow": Fault(delay=2),
        "elsewhere": Fault(answer=307, headers={"Location": "http://127.0.0.1:1/"}),
        "not_gcs": Fault(answer=200, body=b"<html><p>welcome"),
        "unknown": refusal(400, "invalid"),
    }

    def __init__(self, server: GcsServer, proxy: FaultProxy) -> None:
        self.server, self.proxy = server, proxy
        self.bucket = f"exports-{token_hex(4)}"
        server.make_bucket(self.bucket)
        self._root = Bucket(Connection(GcsSettings.from_options(server.settings)), self.bucket, "")

    def fresh(self) -> Store:
        return GcsStore(replace(self._root, prefix=f"{token_hex(4)}/"))

    def open(self, alive: Callable[[], object] = lambda: None, **settings: Any) -> Store:
        return open_store(f"gs://{self.bucket}/{token_hex(4)}", {**self.server.settings, **settings}, alive)

    def open_at(self, url: str) -> Store:
        return open_store(url, self.server.settings)

    def leftovers(self, store: Store) -> list[str]:
        prefix = store.url.removeprefix(f"gs://{self.bucket}/") + "/"
        return sorted(item["name"].removeprefix(prefix) for item in self.server.objects(self.bucket, prefix))

    @contextmanager
    def trouble(self, name: str) -> Iterator[Store]:
        token = {"auth_kind": None, "access_token": TOKEN}
        if name == "unreachable":
            yield self.open(endpoint_url=f"http://127.0.0.1:{free_port()}", **token)
        elif name == "missing_bucket":
            yield open_store("gs://no-such-bucket/exports", self.server.settings)
        else:
            self.proxy.fail_always(self._faults[name])
            try:
                limits = {"connect_timeout": 0.5, "read_timeout": 0.5}  # of sending, and of an answer
                yield self.open(endpoint_url=self.proxy.endpoint_url, **limits, **token)
            finally:
                self.proxy.reset()

    @property
    def secrets(self) -> list[str]:
        return [TOKEN]


class GcsEmulatorRig(GcsRig):
    """Ignores every condition."""

    name = "gcs_emulator"
    declared = Declared(conditional_put=False, conditional_replace=False)
    troubles: ClassVar[Mapping[str, Kind]] = {"missing_bucket": "not_found"}
