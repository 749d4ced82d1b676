# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which account is asked, through which proxy, how long a connection may take, and what it is asked to store in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.azurite import ACCOUNT, KEY
from rigs.fault_proxy import Fault, FaultProxy

from .azure_wire import EVERY_KIND, exercise, sent_with, upload
from .store_rigs import AzureRig

OF_ACCOUNT = {"account_name": ACCOUNT, "account_key": KEY}


@pytest.fixture
def proxy(azure_proxy: FaultProxy) -> FaultProxy:
    azure_proxy.reset()
    return azure_proxy


@pytest.mark.parametrize(
    ("url", "settings", "host"),
    [
        ("azblob://exports", {}, f"{ACCOUNT}.blob.core.windows.net"),
        ("azblob://exports", {"cloud_environment": "AzureChinaCloud"}, f"{ACCOUNT}.blob.core.chinacloudapi.cn"),
        ("azblob://exports", {"cloud_environment": "AzureUSGovernment"}, f"{ACCOUNT}.blob.core.usgovcloudapi.net"),
        ("https://backups.blob.core.windows.net/exports", {"account_name": None}, "backups.blob.core.windows.net"),
        ("https://b.z19.blob.storage.azure.net/exports", {"account_name": None}, "b.z19.blob.storage.azure.net"),
        ("azblob://exports", {"endpoint_url": "https://blob.example.com"}, "blob.example.com"),
    ],
)
def test_the_account_that_is_meant_is_asked_through_the_proxy_of_the_environment(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, url: str, settings: dict[str, Any], host: str
) -> None:
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint_url)
    proxy.fail_always(Fault(answer=403))  # as far as a request gets that must not leave this machine
    given = {name: value for name, value in {**OF_ACCOUNT, **settings}.items() if value is not None}
    with pytest.raises(VmferryError):
        open_store(url, given).put("vm/a", b"x")
    assert [(request.method, request.target) for request in proxy.requests] == [("CONNECT", f"{host}:443")]


def test_an_answer_that_does_not_come_is_given_up_after_read_timeout(azure: AzureRig, proxy: FaultProxy) -> None:
    store = azure.open(endpoint_url=azure.endpoint_url, read_timeout=0.5)
    store.put("vm/a", b"x")
    proxy.fail_always(Fault(delay=2))
    with pytest.raises(VmferryError) as raised:
        store.get("vm/a")
    assert raised.value.kind == "timeout"


def test_a_tier_is_asked_for_where_an_object_begins_and_not_for_what_is_replaced_soon(
    azure: AzureRig, proxy: FaultProxy
) -> None:
    store = azure.open(endpoint_url=azure.endpoint_url, access_tier="cool")
    exercise(store)
    wanted = {kind: {"Cool"} if kind in ("put", "complete") else {""} for kind in EVERY_KIND}
    assert sent_with(proxy.requests, "x-ms-access-tier") == wanted
    store.put_volatile("vm/lease", b"{}")
    prefix = store.url.rpartition("/")[2]
    tiers = {blob.name.rpartition("/")[2]: blob.blob_tier for blob in azure.client.list_blobs(f"{prefix}/")}
    assert tiers == {"disk-0.qcow2": "Cool", "lease": "Hot"}


def test_without_a_tier_the_accounts_own_is_taken(azure: AzureRig, proxy: FaultProxy) -> None:
    exercise(azure.open(endpoint_url=azure.endpoint_url))
    assert sent_with(proxy.requests, "x-ms-access-tier") == {kind: {""} for kind in EVERY_KIND}


@pytest.mark.parametrize("parallel", [1, 6])
def test_as_many_connections_are_kept_as_there_are_workers(azure: AzureRig, proxy: FaultProxy, parallel: int) -> None:
    store = azure.open(endpoint_url=azure.endpoint_url, parallel=parallel)
    adapter: Any = store._container.session.get_adapter("http://")  # type: ignore[attr-defined]
    upload(store)
    assert adapter._pool_maxsize == parallel + 2


def test_what_netrc_has_for_the_host_does_not_replace_the_signature(
    azure: AzureRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    exercise(azure.open())
