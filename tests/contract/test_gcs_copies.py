# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies that Cloud Storage makes itself: nothing passes this host, and what arrives is what was looked at."""

from __future__ import annotations

import json
import random

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.gcs.store import GcsStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.server_copy import CopyOrder
from rigs.fault_proxy import Fault, FaultProxy

from .gcs_wire import asked_with, query_of
from .patience import KeptNotes
from .store_rigs import MIB, GcsRig

DATA = random.Random(5).randbytes(3 * MIB)
NOTED = {"vm-name": "Büro", "attempt": "1"}


@pytest.fixture
def proxy(gcs: GcsRig) -> FaultProxy:
    gcs.proxy.reset()
    return gcs.proxy


@pytest.fixture
def source(gcs: GcsRig, proxy: FaultProxy) -> Store:
    store = gcs.open(endpoint_url=proxy.endpoint_url)
    store.put("vm/a b", DATA, metadata={"of": "the source"})
    return store


@pytest.fixture
def target(gcs: GcsRig, proxy: FaultProxy) -> GcsStore:
    store = gcs.open(endpoint_url=proxy.endpoint_url)
    assert isinstance(store, GcsStore)
    return store


def test_a_copy_has_the_bytes_of_the_source_and_metadata_of_its_own(
    source: Store, target: GcsStore, proxy: FaultProxy
) -> None:
    info, counts = source.stat("vm/a b"), []
    assert info is not None
    proxy.requests.clear()
    copied = target.copy_within(source, CopyOrder(info, "vm/ü", NOTED, counts.append))
    assert not [request for request in proxy.requests if request.length > 1000 or "alt=media" in request.target]
    assert copied == target.stat("vm/ü")
    assert copied is not None
    assert (copied.metadata, sum(counts)) == (NOTED, len(DATA))
    assert target.get("vm/ü") == DATA


def test_a_copy_that_takes_several_calls_is_gone_on_with_by_its_token(
    source: Store, target: GcsStore, proxy: FaultProxy
) -> None:
    info, counts = source.stat("vm/a b"), []
    assert info is not None
    first = {"done": False, "rewriteToken": "the-token", "totalBytesRewritten": "1000"}
    proxy.requests.clear()
    proxy.fail_next(Fault(method="POST", answer=200, body=json.dumps(first).encode()))
    assert target.copy_within(source, CopyOrder(info, "vm/b", NOTED, counts.append)) is not None
    assert counts == [1000, len(DATA) - 1000]
    calls = [query_of(request) for request in proxy.requests if request.method == "POST"]
    assert [call.get("rewriteToken") for call in calls] == [None, "the-token"]
    assert {call["ifSourceGenerationMatch"] for call in calls} == {info.etag}


@pytest.mark.parametrize("remembers", [True, False])
def test_a_copy_that_was_ended_is_gone_on_with_by_its_token(
    source: Store, target: GcsStore, proxy: FaultProxy, remembers: bool
) -> None:
    info, notes, counts = source.stat("vm/a b"), KeptNotes(), []
    assert info is not None
    first = {"done": False, "rewriteToken": "a:token", "totalBytesRewritten": "1000"}
    proxy.fail_next(Fault(method="POST", answer=200, body=json.dumps(first).encode()), Fault(method="POST", answer=503))
    with pytest.raises(VmferryError):
        target.copy_within(source, CopyOrder(info, "vm/b", NOTED, notes=notes))
    proxy.requests.clear()
    if not remembers:
        proxy.fail_next(Fault(method="POST", answer=400))
    assert target.copy_within(source, CopyOrder(info, "vm/b", NOTED, counts.append, notes=notes)) is not None
    calls = [query_of(request).get("rewriteToken") for request in proxy.requests if request.method == "POST"]
    assert calls == (["a:token"] if remembers else ["a:token", None])
    assert (notes.bytes_kept, sum(counts)) == (1000 if remembers else 0, len(DATA))
    assert target.get("vm/b") == DATA


def test_whoever_is_told_how_far_it_is_may_end_it(source: Store, target: GcsStore) -> None:
    info = source.stat("vm/a b")
    assert info is not None

    def stop(count: int) -> None:
        raise VmferryError("cancelled", f"Stopped after {count}.")

    with pytest.raises(VmferryError, match="Stopped after"):
        target.copy_within(source, CopyOrder(info, "vm/b", {}, stop))


def test_what_has_changed_is_not_copied(source: Store, target: GcsStore) -> None:
    info = source.stat("vm/a b")
    assert info is not None
    source.put("vm/a b", b"another")
    with pytest.raises(VmferryError) as raised:
        target.copy_within(source, CopyOrder(info, "vm/b", {}))
    assert raised.value.kind == "conflict"
    assert target.stat("vm/b") is None


def test_a_copy_that_is_not_its_source_is_refused(source: Store, target: GcsStore, proxy: FaultProxy) -> None:
    info = source.stat("vm/a b")
    assert info is not None
    other = {"done": True, "resource": {"crc32c": "AAAAAA==", "size": str(len(DATA)), "generation": "1"}}
    proxy.fail_next(Fault(method="POST", answer=200, body=json.dumps(other).encode()))
    with pytest.raises(VmferryError) as raised:
        target.copy_within(source, CopyOrder(info, "vm/b", {}))
    assert raised.value.kind == "checksum_mismatch"


def test_the_key_of_the_target_goes_with_it(gcs: GcsRig, source: Store, proxy: FaultProxy) -> None:
    target, info = gcs.open(endpoint_url=proxy.endpoint_url, kms_key_name="projects/p/k"), source.stat("vm/a b")
    assert info is not None
    assert isinstance(target, GcsStore)
    proxy.requests.clear()
    target.copy_within(source, CopyOrder(info, "vm/b", {}))
    assert asked_with(proxy.requests, "destinationKmsKeyName")["compose"] == {"projects/p/k"}


@pytest.mark.parametrize("status", [403, 501])
def test_what_the_server_does_not_copy_is_left_to_this_host(
    source: Store, target: GcsStore, proxy: FaultProxy, status: int
) -> None:
    info = source.stat("vm/a b")
    assert info is not None
    proxy.fail_next(Fault(method="POST", answer=status))
    assert target.copy_within(source, CopyOrder(info, "vm/b", {})) is None


def test_other_callers_and_other_stores_are_left_to_this_host(gcs: GcsRig, filesystem: GcsRig, source: Store) -> None:
    info = source.stat("vm/a b")
    assert info is not None
    for other in (gcs.open(auth_kind=None, access_token="x"), gcs.open(user_project="payer"), gcs.open()):
        assert isinstance(other, GcsStore)
        assert other.copy_within(source, CopyOrder(info, "vm/b", {})) is None
        assert other.copy_within(filesystem.fresh(), CopyOrder(info, "vm/b", {})) is None


def test_a_server_that_keeps_the_metadata_of_the_source_is_not_relied_on(gcs_emulator: GcsRig) -> None:
    store = gcs_emulator.open()
    assert isinstance(store, GcsStore)
    info = store.put("vm/a", DATA, metadata={"of": "the source"})
    assert store.copy_within(store, CopyOrder(info, "vm/b", NOTED)) is None
