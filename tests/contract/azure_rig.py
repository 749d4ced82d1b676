# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container of Azure Blob Storage, as Azurite has it, directly and through a proxy that makes bad days."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from secrets import token_hex
from typing import Any, ClassVar

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.azure.account import AzureSettings, locate
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.azure.client import connect
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.azure.container import Container
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.azure.store import AzureStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.azurite import AzuriteServer
from rigs.fault_proxy import Fault, FaultProxy
from rigs.ports import free_port

from .store_rigs import Declared, StoreRig

ANOTHER_KEY = b64encode(b"another-key-of-the-same-length-or-so").decode()


def answer(status: int, code: str) -> Fault:
    """As Azure answers; HEAD has the code in the header only."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return Fault(
        answer=status, body=body.encode(), headers={"x-ms-error-code": code, "Content-Type": "application/xml"}
    )


class AzureRig(StoreRig):
    name = "azure"
    declared = Declared()
    troubles: ClassVar[Mapping[str, Kind]] = {
        "unreachable": "network",
        "missing_bucket": "not_found",
        # For what does not match its signature, Azurite has the code that Azure has for a firewall's.
        "wrong_key": "permission_denied",
        "wrong_account": "not_found",
        "read_only_sas": "permission_denied",
        "forged_sas": "permission_denied",
        "not_authenticated": "unauthenticated",
        "access_denied": "permission_denied",
        "always_503": "rate_limited",
        "always_500": "network",
        "operation_timed_out": "timeout",
        "connection_reset": "network",
        "too_slow": "timeout",
        "not_azure": "network",
    }
    _faults: ClassVar[Mapping[str, Fault]] = {
        "not_authenticated": answer(403, "AuthenticationFailed"),
        "access_denied": answer(403, "AuthorizationPermissionMismatch"),
        "always_503": answer(503, "ServerBusy"),
        "always_500": answer(500, "InternalError"),
        "operation_timed_out": answer(500, "OperationTimedOut"),
        "connection_reset": Fault(reset_after=0),
        "too_slow": Fault(delay=2),
        "not_azure": Fault(answer=200, body=b"<html><p>welcome"),
    }

    def __init__(self, server: AzuriteServer, proxy: FaultProxy) -> None:
        self.server, self.proxy = server, proxy
        self.container = f"exports-{token_hex(4)}"
        self.client = server.client().create_container(self.container)
        self.sas = {name: server.sas(self.container, name) for name in ("rl", "rcwdl")}
        # One client for all tests: making one costs more than most of them.
        options = AzureSettings.from_options(server.settings)
        location = locate(f"azblob://{self.container}", options)
        client, session = connect(options, location, lambda: None)
        self._root = Container(client, session, location.url, "", options.secrets)

    @property
    def endpoint_url(self) -> str:
        """Through the proxy."""
        return f"{self.proxy.endpoint_url}/{self.server.account}"

    def fresh(self) -> Store:
        prefix = token_hex(4)
        return AzureStore(replace(self._root, prefix=f"{prefix}/", url=f"{self._root.url}/{prefix}"))

    def open(self, alive: Callable[[], object] = lambda: None, **settings: Any) -> Store:
        """Below a root of its own. A setting that is None is left out."""
        chosen = {**self.server.settings, **settings}
        given = {name: value for name, value in chosen.items() if value is not None}
        return open_store(f"azblob://{self.container}/{token_hex(4)}", given, alive)

    def leftovers(self, store: Store) -> list[str]:
        prefix = store.url.partition(f"{self.container}/")[2] + "/"
        found = []
        for blob in self.client.list_blobs(name_starts_with=prefix, include=["uncommittedblobs"]):
            found.append(blob.name.removeprefix(prefix))
            # Blocks beside an object that is there are in no listing.
            if not blob.size or blob.blob_type == "PageBlob":
                continue
            unfinished = self.client.get_blob_client(blob.name).get_block_list("uncommitted")[1]
            found += [f"{blob.name.removeprefix(prefix)} (unfinished)"] if unfinished else []
        return sorted(found)

    @contextmanager
    def trouble(self, name: str) -> Iterator[Store]:
        if name == "unreachable":
            yield self.open(endpoint_url=f"http://127.0.0.1:{free_port()}/{self.server.account}")
        elif name == "missing_bucket":
            yield open_store("azblob://no-such-container/exports", self.server.settings)
        elif name == "wrong_key":
            yield self.open(account_key=ANOTHER_KEY)
        elif name == "wrong_account":
            yield self.open(endpoint_url=f"http://127.0.0.1:{self.server.port}/nobody")
        elif name == "read_only_sas":
            yield self.open(account_key=None, sas_token=self.sas["rl"])
        elif name == "forged_sas":
            yield self.open(account_key=None, sas_token=self.sas["rl"].replace("sp=rl", "sp=rcwdl"))
        else:
            self.proxy.fail_always(self._faults[name])
            try:
                hasty = {"read_timeout": 0.5, "connect_timeout": 0.5}
                yield self.open(endpoint_url=self.endpoint_url, account_key=None, sas_token=self.sas["rcwdl"], **hasty)
            finally:
                self.proxy.reset()

    @property
    def secrets(self) -> list[str]:
        return [self.server.key, ANOTHER_KEY, *(sas.partition("sig=")[2] for sas in self.sas.values())]
