# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies that Azure makes itself, within an account: nothing passes this host, and what was looked at is copied."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.azure import copy as azure_copy
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.server_copy import CopyOrder
from rigs.azure_front import AzureFront, azure_front
from rigs.fault_proxy import Fault, FaultProxy

from .azure_rig import AzureRig, answer
from .patience import KeptNotes, Patience
from .store_rigs import MIB

DATA = random.Random(5).randbytes(3 * MIB + 5)
NOTED = {"vm-name": "Büro", "attempt": "1"}
SOURCE = "vm/a b#1"
KEYS = ["account_key", "sas_token", "connection_string"]


@pytest.fixture
def proxy(azure: AzureRig) -> FaultProxy:
    azure.proxy.reset()
    return azure.proxy


@pytest.fixture
def front(azure: AzureRig) -> Iterator[AzureFront]:
    with azure_front(azure.server) as front:
        yield front


@pytest.fixture(params=["at once", "in blocks"])
def endpoint(
    request: pytest.FixtureRequest, azure: AzureRig, proxy: FaultProxy, front: AzureFront, monkeypatch: Any
) -> str:
    """Where to copy so; the emulator itself takes no blocks from a URL."""
    if request.param == "at once":
        return azure.endpoint_url
    monkeypatch.setattr(azure_copy, "AT_ONCE", MIB)
    monkeypatch.setattr(azure_copy, "STEP", MIB)
    return front.endpoint_url


def opened(azure: AzureRig, endpoint: str, by: str = "account_key") -> Store:
    if by == "sas_token":
        return azure.open(endpoint_url=endpoint, account_key=None, sas_token=azure.sas["rcwdl"])
    if by == "connection_string":
        text = f"BlobEndpoint={endpoint};SharedAccessSignature={azure.sas['rcwdl']}"
        return azure.open(endpoint_url=None, account_key=None, connection_string=text)
    return azure.open(endpoint_url=endpoint)


def filled(azure: AzureRig, endpoint: str, by: str = "account_key") -> Store:
    store = opened(azure, endpoint, by)
    store.put(SOURCE, DATA, metadata={"of": "the source"})
    return store


@pytest.mark.parametrize("by", KEYS)
def test_a_copy_has_the_bytes_of_the_source_and_metadata_of_its_own(
    azure: AzureRig, endpoint: str, front: AzureFront, proxy: FaultProxy, by: str
) -> None:
    source, target, counts = filled(azure, endpoint, by), opened(azure, endpoint, by), []
    info = source.stat(SOURCE)
    assert info is not None
    proxy.requests.clear()
    front.proxy.requests.clear()
    copied = target.copy_within(source, CopyOrder(info, "vm/ü", NOTED, counts.append))
    assert max(request.length for request in [*proxy.requests, *front.proxy.requests]) < 2000
    assert copied is not None, "by the server"
    assert copied == target.stat("vm/ü")
    assert (copied.metadata, sum(counts)) == (NOTED, len(DATA))
    assert target.get("vm/ü") == DATA
    assert azure.leftovers(target) == ["vm/ü"]


def test_what_has_changed_is_not_copied(azure: AzureRig, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = filled(azure, endpoint), opened(azure, endpoint)
    info = source.stat(SOURCE)
    assert info is not None
    source.put(SOURCE, DATA[::-1])
    with pytest.raises(VmferryError) as raised:
        target.copy_within(source, CopyOrder(info, "vm/b", {}))
    assert raised.value.kind == "conflict"
    monkeypatch.setattr(azure_copy, "quoted", lambda etag: info.etag)  # it changes behind the look at it
    with pytest.raises(VmferryError) as raised:
        target.copy_within(source, CopyOrder(info, "vm/b", {}))
    assert raised.value.kind == "conflict"
    assert azure.leftovers(target) == []


def test_a_block_that_fails_is_copied_again_and_no_other(
    azure: AzureRig, front: AzureFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_copy, "AT_ONCE", MIB)
    monkeypatch.setattr(azure_copy, "STEP", MIB)
    source, patience = filled(azure, front.endpoint_url), Patience()
    target = RetryingStore(opened(azure, front.endpoint_url), patience)
    info = source.stat(SOURCE)
    assert info is not None
    front.proxy.requests.clear()
    busy = answer(503, "ServerBusy")
    front.proxy.fail_next(
        Fault(method="PUT", path="comp=block&", lose_answer=True),
        Fault(method="PUT", path="comp=block&", answer=503, body=busy.body, headers=busy.headers),
        Fault(method="PUT", path="comp=blocklist", lose_answer=True),
    )
    counts: list[int] = []
    assert target.copy_within(source, CopyOrder(info, "vm/b", NOTED, counts.append)) is not None
    assert target.get("vm/b") == DATA
    assert (counts, len(patience.errors)) == ([MIB, MIB, MIB, 5], 2), "the completion is settled by itself"
    asked = [request for request in front.proxy.requests if "comp=block&" in request.target]
    assert len(asked) == 4 + 2


def test_whoever_is_told_how_far_it_is_may_end_it_and_nothing_is_left(
    azure: AzureRig, front: AzureFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_copy, "AT_ONCE", MIB)
    monkeypatch.setattr(azure_copy, "STEP", MIB)
    source, target = filled(azure, front.endpoint_url), opened(azure, front.endpoint_url)
    info = source.stat(SOURCE)
    assert info is not None

    def stop(count: int) -> None:
        raise VmferryError("cancelled", f"Stopped after {count}.")

    with pytest.raises(VmferryError, match="Stopped after"):
        target.copy_within(source, CopyOrder(info, "vm/b", {}, stop))
    assert azure.leftovers(target) == []


def test_a_copy_that_was_ended_is_gone_on_with_by_the_blocks_that_are_there(
    azure: AzureRig, front: AzureFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_copy, "AT_ONCE", MIB)
    monkeypatch.setattr(azure_copy, "STEP", MIB)
    source, target, notes = filled(azure, front.endpoint_url), opened(azure, front.endpoint_url), KeptNotes()
    info = source.stat(SOURCE)
    assert info is not None

    def stop(count: int) -> None:
        if len(notes.receipts) == 2:
            raise VmferryError("cancelled", f"Stopped after {count}.")

    with pytest.raises(VmferryError, match="Stopped after"):
        target.copy_within(source, CopyOrder(info, "vm/b", NOTED, stop, notes=notes))
    counts: list[int] = []
    front.proxy.requests.clear()
    copied = target.copy_within(source, CopyOrder(info, "vm/b", NOTED, counts.append, notes=notes))
    assert copied == target.stat("vm/b")
    assert target.get("vm/b") == DATA
    assert (notes.bytes_kept, sum(counts)) == (2 * MIB, len(DATA))
    assert len([request for request in front.proxy.requests if "comp=block&" in request.target]) == 2
    assert azure.leftovers(target) == ["vm/b"]


def test_a_server_that_does_not_copy_leaves_it_to_this_host(
    azure: AzureRig, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = filled(azure, azure.endpoint_url), opened(azure, azure.endpoint_url)
    info = source.stat(SOURCE)
    assert info is not None
    denied = answer(403, "CannotVerifyCopySource")
    proxy.fail_next(Fault(method="PUT", answer=403, body=denied.body, headers=denied.headers))
    assert target.copy_within(source, CopyOrder(info, "vm/b", {})) is None
    monkeypatch.setattr(azure_copy, "AT_ONCE", MIB)
    assert target.copy_within(source, CopyOrder(info, "vm/b", {})) is None, "the emulator takes no blocks from a URL"
    assert azure.leftovers(target) == []


def test_credentials_are_told_to_the_server_only_that_they_are_for(azure: AzureRig, proxy: FaultProxy) -> None:
    source = filled(azure, azure.server.endpoint_url)
    target = opened(azure, azure.server.endpoint_url.replace("127.0.0.1", "localhost"))
    info = source.stat(SOURCE)
    assert info is not None
    assert target.copy_within(source, CopyOrder(info, "vm/b", {})) is None


def test_the_server_is_let_read_this_one_object_and_is_told_no_key(azure: AzureRig, proxy: FaultProxy) -> None:
    source, target = filled(azure, azure.endpoint_url), opened(azure, azure.endpoint_url)
    info = source.stat(SOURCE)
    assert info is not None
    proxy.requests.clear()
    target.copy_within(source, CopyOrder(info, "vm/b", {}))
    grants = [
        request.headers["x-ms-copy-source"] for request in proxy.requests if "x-ms-copy-source" in request.headers
    ]
    assert grants
    assert all(azure.server.key not in grant and "sp=r&" in f"{grant}&" for grant in grants), "to read this object only"
