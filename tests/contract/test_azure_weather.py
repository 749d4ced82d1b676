# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Azure store behind a bad wire: what passes is ridden out, what was lost is settled, nothing is done twice."""

from __future__ import annotations

import random
import time

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import (
    ObjectInfo,
    Part,
    PartReceipt,
    PartWriter,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.azure.store import AzureStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from rigs.fault_proxy import Fault, FaultProxy

from .azure_rig import answer
from .patience import Patience
from .store_rigs import MIB, AzureRig
from .uploading import upload

BUSY = answer(503, "ServerBusy")
SLOW_DOWN = Fault(answer=503, body=BUSY.body, headers={**BUSY.headers, "Retry-After": "7"})
DATA = random.Random(0).randbytes(6 * MIB)
PARTS = [Part(1, 0, 5 * MIB), Part(2, 5 * MIB, MIB)]
COMMIT = "comp=blocklist"


@pytest.fixture
def proxy(azure_proxy: FaultProxy) -> FaultProxy:
    azure_proxy.reset()
    return azure_proxy


@pytest.fixture
def bare(azure: AzureRig, proxy: FaultProxy) -> Store:
    return azure.open(endpoint_url=azure.endpoint_url, read_timeout=20)


@pytest.fixture
def store(bare: Store, patience: Patience) -> Store:
    return RetryingStore(bare, patience)


def write(store: Store, key: str = "vm/1/disk-0.qcow2") -> None:
    upload(store, key, DATA, PARTS)


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_the_sdk_repeats_nothing_by_itself(bare: Store, proxy: FaultProxy, method: str) -> None:
    proxy.fail_always(SLOW_DOWN)
    with pytest.raises(VmferryError):
        bare.put("vm/a", b"x") if method == "PUT" else bare.get("vm/a")
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("size", [100_000, len(DATA)])
def test_an_answer_cut_short_is_read_again(store: Store, proxy: FaultProxy, patience: Patience, size: int) -> None:
    store.put("vm/a", DATA[:size])
    proxy.fail_next(Fault(method="GET", answer_bytes=50_000))
    assert store.get("vm/a") == DATA[:size]
    proxy.fail_next(Fault(method="GET", answer_bytes=50_000))
    read = bytearray(size)
    store.read_into("vm/a", 0, memoryview(read))
    assert read == DATA[:size]
    assert patience.kinds == ["network"] * 2


@pytest.mark.parametrize("again", [Fault(), Fault(method="HEAD", answer=500)])
def test_a_completion_whose_answer_was_lost_is_settled(
    azure: AzureRig, store: Store, proxy: FaultProxy, again: Fault
) -> None:
    proxy.fail_next(Fault(method="PUT", path=COMMIT, lose_answer=True), again)
    write(store)
    assert azure.leftovers(store) == ["vm/1/disk-0.qcow2"]


def sent(store: Store) -> tuple[PartWriter, PartReceipt]:
    writer = store.open_parts("vm/a")
    return writer, PartReceipt(Part(1, 0, len(DATA)), b"", writer.write_part(Part(1, 0, len(DATA)), memoryview(DATA)))


def test_what_is_there_by_a_lost_answer_of_ours_is_no_reason_to_leave_it_out(store: Store, proxy: FaultProxy) -> None:
    writer, receipt = sent(store)
    proxy.fail_next(Fault(method="PUT", path=COMMIT, lose_answer=True), Fault(method="HEAD", answer=500))
    info = writer.complete([receipt], len(DATA), if_absent=True)
    assert (info.size, store.get("vm/a")) == (len(DATA), DATA)


def test_an_abort_after_an_unsettled_completion_removes_the_object(
    azure: AzureRig, bare: Store, proxy: FaultProxy
) -> None:
    writer, receipt = sent(bare)
    proxy.fail_next(Fault(method="PUT", path=COMMIT, lose_answer=True), Fault(method="HEAD", answer=500))
    with pytest.raises(VmferryError):
        writer.complete([receipt], len(DATA))
    writer.abort()
    assert azure.leftovers(bare) == []


@pytest.mark.parametrize(
    "lost", [Fault(method="PUT", path=COMMIT, lose_answer=True), Fault(method="DELETE", answer=500)]
)
@pytest.mark.parametrize("again", ["by the one who aborts", "by a cleanup"])
def test_an_abort_whose_answer_was_lost_leaves_no_empty_object(
    azure: AzureRig, bare: Store, store: Store, proxy: FaultProxy, lost: Fault, again: str
) -> None:
    if again == "by the one who aborts":
        writer, _receipt = sent(store)
        proxy.fail_next(lost)
        writer.abort()
    else:
        writer, _receipt = sent(bare)
        proxy.fail_next(lost)
        with pytest.raises(VmferryError):
            writer.abort()
        told: list[ObjectInfo] = []
        assert bare.abort_uploads("", lambda info: bool(told.append(info))) == 0
        assert [(info.key, abs(info.modified - time.time()) < 60) for info in told] == [("vm/a", True)]
        assert bare.abort_uploads("") == 1
    assert azure.leftovers(bare) == []


def test_an_empty_object_is_no_unfinished_upload(azure: AzureRig, bare: Store) -> None:
    bare.open_parts("vm/a").complete([], 0)
    bare.put("vm/b", b"")
    assert bare.abort_uploads("") == 0
    assert azure.leftovers(bare) == ["vm/a", "vm/b"]


def test_a_completion_that_comes_after_its_upload_was_given_up_finds_nothing_to_complete(
    azure: AzureRig, proxy: FaultProxy
) -> None:
    hasty = azure.open(endpoint_url=azure.endpoint_url, read_timeout=1)
    writer, receipt = sent(hasty)
    proxy.fail_next(Fault(method="PUT", path=COMMIT, delay=2))  # carried out after the client has given up
    with pytest.raises(VmferryError):
        writer.complete([receipt], len(DATA))
    writer.abort()
    time.sleep(1.5)
    assert azure.leftovers(hasty) == []


@pytest.mark.parametrize("code", ["Md5Mismatch", "Crc64Mismatch"])
def test_a_wrong_checksum_on_the_wire_may_be_sent_again(bare: Store, proxy: FaultProxy, code: str) -> None:
    proxy.fail_next(answer(400, code))
    with pytest.raises(VmferryError) as raised:
        bare.put("vm/a", b"x")
    assert (raised.value.kind, raised.value.retryable) == ("checksum_mismatch", True)


def test_bytes_that_change_on_the_wire_are_refused_by_the_server(azure: AzureRig, bare: Store) -> None:
    """The signature does not cover the body, but the checksum does, and the signature covers that."""
    store, data = azure.open(), bytearray(DATA)
    checksum = store._checksum  # type: ignore[attr-defined]

    class BeforeItChanged:
        name = checksum.name

        def of(self, found: memoryview) -> bytes:
            digest: bytes = checksum.of(found)
            data[1000] ^= 1
            return digest

        def headers(self, digest: bytes) -> dict[str, str]:
            sent: dict[str, str] = checksum.headers(digest)
            return sent

    store._checksum = BeforeItChanged()  # type: ignore[attr-defined]
    writer = store.open_parts("vm/a")
    with pytest.raises(VmferryError) as raised:
        writer.write_part(Part(1, 0, len(data)), memoryview(data))
    assert (raised.value.kind, raised.value.retryable) == ("checksum_mismatch", True)
    writer.abort()
    assert azure.leftovers(store) == []


def test_bytes_that_move_slowly_within_a_part_and_within_a_read_are_signs_of_life(azure: AzureRig) -> None:
    signs: list[float] = []
    store = azure.open(alive=lambda: signs.append(time.monotonic()))
    for call in (lambda: sent(store), lambda: store.put("vm/a", DATA), lambda: store.get("vm/a")):
        signs.clear()
        call()
        assert len(signs) >= len(DATA) // MIB
    signs.clear()
    store.read_into("vm/a", 0, memoryview(bytearray(len(DATA))))
    assert len(signs) >= len(DATA) // MIB


@pytest.mark.parametrize(
    "fault",
    [
        Fault(method="GET", answer=200, body=b"0123456789"),
        Fault(method="GET", answer=206, body=b"01234", headers={"Content-Range": "bytes 0-4/10"}),
        Fault(method="GET", answer=206, body=b"456789", headers={"Content-Range": "bytes 4-9/10"}),
        Fault(method="GET", answer=206, body=b"45678"),
    ],
)
def test_an_answer_that_is_not_of_the_range_that_was_asked_for_is_refused(
    bare: Store, proxy: FaultProxy, fault: Fault
) -> None:
    bare.put("vm/a", b"0123456789")
    proxy.fail_next(fault)
    with pytest.raises(VmferryError) as raised:
        bare.read_into("vm/a", 4, memoryview(bytearray(5)))
    assert (raised.value.kind, raised.value.retryable) == ("unsupported", False)
    assert "for bytes 4 to 9 of" in raised.value.message


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (409, "BlobArchived", "unsupported", "archive tier"),
        (403, "KeyBasedAuthenticationNotPermitted", "unauthenticated", "no account key"),
        (409, "BlobImmutableDueToPolicy", "permission_denied", "immutability policy"),
        (400, "SomethingNew", "internal", "SomethingNew"),
    ],
)
def test_a_refusal_is_told_in_words(
    bare: Store, proxy: FaultProxy, status: int, code: str, kind: str, words: str
) -> None:
    proxy.fail_next(answer(status, code))
    with pytest.raises(VmferryError) as raised:
        bare.get("vm/a")
    assert (raised.value.kind, raised.value.retryable) == (kind, False)
    assert words in raised.value.message
    assert raised.value.hint


def test_nobody_is_sent_elsewhere(bare: Store, proxy: FaultProxy) -> None:
    proxy.fail_always(Fault(answer=307, headers={"Location": f"{proxy.endpoint_url}/elsewhere"}))
    with pytest.raises(VmferryError) as raised:
        bare.get("vm/a")
    assert raised.value.kind == "network"
    assert "elsewhere" not in "".join(request.target for request in proxy.requests)


def test_a_listing_of_many_pages_is_read_to_its_end(azure: AzureRig) -> None:
    store = azure.fresh()
    assert isinstance(store, AzureStore)
    names = [f"vm/{number:02}" for number in range(7)]
    for name in names:
        store.put(name, b"")
    pages = list(store._pages("vm/", results_per_page=3))
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [info.key for info in store.list("")] == names
