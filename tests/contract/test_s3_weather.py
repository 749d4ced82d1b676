# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An S3 store behind a bad wire: what passes is ridden out, what was lost is settled, nothing is done twice."""

from __future__ import annotations

import random
import time

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part, PartReceipt, PartWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores import completion
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from rigs.fault_proxy import Fault, FaultProxy

from .patience import Patience
from .store_rigs import MIB, S3Rig
from .uploading import upload

SLOW_DOWN = Fault(answer=503, body=b"<Error><Code>SlowDown</Code></Error>", headers={"Retry-After": "7"})
DATA = random.Random(0).randbytes(6 * MIB)
PARTS = [Part(1, 0, 5 * MIB), Part(2, 5 * MIB, MIB)]


@pytest.fixture
def proxy(s3_proxy: FaultProxy) -> FaultProxy:
    s3_proxy.reset()
    return s3_proxy


@pytest.fixture
def bare(s3: S3Rig, proxy: FaultProxy) -> Store:
    return s3.open(endpoint_url=proxy.endpoint_url, read_timeout=20)


@pytest.fixture
def store(bare: Store, patience: Patience) -> Store:
    return RetryingStore(bare, patience)


def write(store: Store, key: str = "vm/1/disk-0.qcow2") -> None:
    upload(store, key, DATA, PARTS)


def test_the_sdk_repeats_nothing_by_itself(bare: Store, proxy: FaultProxy) -> None:
    proxy.fail_always(SLOW_DOWN)
    with pytest.raises(VmferryError):
        bare.put("vm/a", b"x")
    assert len(proxy.requests) == 1


def test_an_answer_cut_short_is_read_again(s3: S3Rig, store: Store, proxy: FaultProxy, patience: Patience) -> None:
    write(store)
    proxy.fail_next(Fault(method="GET", answer_bytes=MIB))
    assert store.get("vm/1/disk-0.qcow2") == DATA
    assert patience.kinds == ["network"]


@pytest.mark.parametrize("fault", [Fault(method="POST", path="uploadId=", lose_answer=True)])
def test_a_completion_whose_answer_was_lost_is_settled(
    s3: S3Rig, store: Store, proxy: FaultProxy, patience: Patience, fault: Fault
) -> None:
    proxy.fail_next(fault)
    write(store)
    assert patience.kinds == []
    assert s3.leftovers(store) == ["vm/1/disk-0.qcow2"]


def test_what_is_there_by_a_lost_answer_of_ours_is_no_reason_to_leave_it_out(store: Store, proxy: FaultProxy) -> None:
    writer = store.open_parts("vm/a")
    receipt = PartReceipt(Part(1, 0, len(DATA)), b"", writer.write_part(Part(1, 0, len(DATA)), memoryview(DATA)))
    proxy.fail_next(Fault(method="POST", lose_answer=True), Fault(method="HEAD", answer=500))
    info = writer.complete([receipt], len(DATA), if_absent=True)
    assert (info.size, store.get("vm/a")) == (len(DATA), DATA)


def test_an_abort_after_an_unsettled_completion_removes_the_object(s3: S3Rig, bare: Store, proxy: FaultProxy) -> None:
    writer = bare.open_parts("vm/a")
    receipt = PartReceipt(Part(1, 0, len(DATA)), b"", writer.write_part(Part(1, 0, len(DATA)), memoryview(DATA)))
    proxy.fail_next(Fault(method="POST", lose_answer=True), Fault(method="HEAD", answer=500))
    with pytest.raises(VmferryError):
        writer.complete([receipt], len(DATA))
    writer.abort()
    assert s3.leftovers(bare) == []


LATE = Fault(method="POST", path="uploadId=", delay=3)  # carried out long after the client has given up
UNKNOWN = b"<Error><Code>NoSuchUpload</Code></Error>"


@pytest.fixture
def hasty(s3: S3Rig, proxy: FaultProxy) -> Store:
    return s3.open(endpoint_url=proxy.endpoint_url, read_timeout=1)


def sent(store: Store) -> tuple[PartWriter, PartReceipt]:
    writer = store.open_parts("vm/a")
    return writer, PartReceipt(Part(1, 0, len(DATA)), b"", writer.write_part(Part(1, 0, len(DATA)), memoryview(DATA)))


def test_an_object_that_appears_after_its_upload_was_given_up_is_removed(
    s3: S3Rig, hasty: Store, proxy: FaultProxy
) -> None:
    writer, receipt = sent(hasty)
    proxy.fail_next(LATE, Fault(method="DELETE", path="uploadId=", answer=404, body=UNKNOWN))
    with pytest.raises(VmferryError):
        writer.complete([receipt], len(DATA))
    writer.abort()
    assert [request.method for request in proxy.requests[-2:]] == ["HEAD", "DELETE"]
    time.sleep(1)
    assert s3.leftovers(hasty) == []


def test_an_object_that_appears_while_its_upload_is_completed_again_is_taken(
    s3: S3Rig, hasty: Store, proxy: FaultProxy, patience: Patience
) -> None:
    writer, receipt = sent(RetryingStore(hasty, patience))
    proxy.fail_next(LATE, Fault(method="POST", path="uploadId=", answer=404, body=UNKNOWN))
    assert writer.complete([receipt], len(DATA)).size == len(DATA)
    assert patience.kinds == ["timeout"]


def test_an_upload_that_may_still_become_an_object_is_not_called_removed(
    hasty: Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "SETTLE", 0.5)
    writer, receipt = sent(hasty)
    proxy.fail_next(Fault(method="POST", path="uploadId=", delay=1.5, answer=404, body=UNKNOWN))
    with pytest.raises(VmferryError):
        writer.complete([receipt], len(DATA))
    with pytest.raises(VmferryError) as raised:
        writer.abort()
    assert (raised.value.kind, raised.value.retryable) == ("timeout", False)
    assert "may still appear" in raised.value.message


def test_a_repeated_conditional_put_does_not_take_anothers_object(store: Store, proxy: FaultProxy) -> None:
    store.put("vm/lease", b"owner 1")
    proxy.fail_next(Fault(method="PUT", answer=503))
    with pytest.raises(VmferryError) as raised:
        store.put("vm/lease", b"owner 2", if_absent=True)
    assert raised.value.kind == "conflict"


def test_a_wrong_checksum_on_the_wire_may_be_sent_again(bare: Store, proxy: FaultProxy) -> None:
    proxy.fail_next(Fault(answer=400, body=b"<Error><Code>BadDigest</Code></Error>"))
    with pytest.raises(VmferryError) as raised:
        bare.put("vm/a", b"x")
    assert (raised.value.kind, raised.value.retryable) == ("checksum_mismatch", True)


def test_a_slow_server_is_only_slow(store: Store, proxy: FaultProxy, patience: Patience) -> None:
    proxy.bytes_per_second = 8 * MIB
    write(store)
    assert patience.kinds == []


def test_bytes_that_move_slowly_within_a_part_and_within_a_read_are_signs_of_life(s3: S3Rig, proxy: FaultProxy) -> None:
    signs: list[float] = []
    store = s3.open(
        endpoint_url=proxy.endpoint_url, payload_signing=False, alive=lambda: signs.append(time.monotonic())
    )
    writer = store.open_parts("vm/a")
    signs.clear()
    receipt = PartReceipt(Part(1, 0, len(DATA)), b"", writer.write_part(Part(1, 0, len(DATA)), memoryview(DATA)))
    assert len(signs) >= len(DATA) // MIB
    writer.complete([receipt], len(DATA))
    signs.clear()
    assert store.get("vm/a") == DATA
    assert len(signs) >= len(DATA) // MIB


@pytest.mark.parametrize(
    "answer",
    [
        Fault(method="GET", answer=200, body=b"0123456789"),
        Fault(method="GET", answer=206, body=b"01234", headers={"Content-Range": "bytes 0-4/10"}),
        Fault(method="GET", answer=206, body=b"456789", headers={"Content-Range": "bytes 4-9/10"}),
        Fault(method="GET", answer=206, body=b"45678"),
    ],
)
def test_an_answer_that_is_not_of_the_range_that_was_asked_for_is_refused(
    bare: Store, proxy: FaultProxy, answer: Fault
) -> None:
    bare.put("vm/a", b"0123456789")
    proxy.fail_next(answer)
    with pytest.raises(VmferryError) as raised:
        bare.read_into("vm/a", 4, memoryview(bytearray(5)))
    assert (raised.value.kind, raised.value.retryable) == ("unsupported", False)
    assert "for bytes 4 to 9 of" in raised.value.message
    assert raised.value.hint


def test_who_may_not_list_uploads_is_told_which_permission_that_takes(bare: Store, proxy: FaultProxy) -> None:
    denied = Fault(method="GET", path="uploads", answer=403, body=b"<Error><Code>AccessDenied</Code></Error>")
    proxy.fail_next(denied)
    with pytest.raises(VmferryError) as raised:
        bare.abort_uploads("vm/")
    assert (raised.value.kind, raised.value.retryable) == ("permission_denied", False)
    assert "s3:ListBucketMultipartUploads" in raised.value.hint


def test_a_whole_object_may_be_answered_as_a_whole_one(bare: Store, proxy: FaultProxy) -> None:
    bare.put("vm/a", b"0123456789")
    proxy.fail_next(Fault(method="GET", answer=200, body=b"0123456789"))
    read = bytearray(10)
    bare.read_into("vm/a", 0, memoryview(read))
    assert read == b"0123456789"


def test_a_small_object_whose_answer_breaks_off_is_asked_for_again(
    store: Store, proxy: FaultProxy, patience: Patience
) -> None:
    store.put("vm/a", b"0" * 100_000)
    proxy.fail_next(Fault(method="GET", answer_bytes=50_000))
    assert store.get("vm/a") == b"0" * 100_000
    assert patience.kinds == ["network"]


def test_an_unsigned_payload_is_still_checked_by_the_server(s3: S3Rig, store: Store) -> None:
    unsigned = s3.open(payload_signing=False)
    assert unsigned.probe("vm/.probe").verifies_checksums
    write(unsigned)
