# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloud Storage behind a bad wire: what passes is ridden out, what was lost is settled, nothing wrong is kept."""

from __future__ import annotations

import json
import random
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part, PartReceipt, PartWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.gcs import parts as gcs_parts
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.gcs.body import RelatedBody
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.gcs.bucket import Bucket
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.metadata import UPLOAD_TOKEN
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from rigs.fault_proxy import Fault, FaultProxy

from .gcs_rig import GcsRig, refusal
from .gcs_wire import kind_of, query_of
from .patience import Patience
from .store_rigs import MIB

SLOW_DOWN = Fault(answer=503, headers={"Retry-After": "7"})
DATA = random.Random(0).randbytes(3 * MIB)
PARTS = [Part(1, 0, 2 * MIB), Part(2, 2 * MIB, MIB)]
KEY = "vm/1/disk-0.qcow2"
LOST = Fault(method="POST", path="/compose", lose_answer=True)
LATE = Fault(method="POST", path="/compose", delay=1)  # carried out long after the client has given up


@pytest.fixture
def proxy(gcs: GcsRig) -> FaultProxy:
    gcs.proxy.reset()
    return gcs.proxy


@pytest.fixture(autouse=True)
def soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs_parts, "SETTLE", 0.6)


@pytest.fixture
def bare(gcs: GcsRig, proxy: FaultProxy) -> Store:
    return gcs.open(endpoint_url=proxy.endpoint_url, read_timeout=20)


@pytest.fixture
def hasty(gcs: GcsRig, proxy: FaultProxy) -> Store:
    return gcs.open(endpoint_url=proxy.endpoint_url, read_timeout=0.3)


@pytest.fixture
def store(bare: Store, patience: Patience) -> Store:
    return RetryingStore(bare, patience)


def send(writer: PartWriter, part: Part, data: bytes = DATA) -> PartReceipt:
    return PartReceipt(part, b"", writer.write_part(part, memoryview(data)[part.offset : part.offset + part.size]))


def write(store: Store) -> None:
    writer = store.open_parts(KEY)
    writer.complete([send(writer, part) for part in PARTS], len(DATA))
    assert store.get(KEY) == DATA


def sent(store: Store) -> tuple[PartWriter, list[PartReceipt]]:
    writer = store.open_parts(KEY)
    return writer, [send(writer, part) for part in PARTS]


def error_of(function: Any, *arguments: Any) -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        function(*arguments)
    return raised.value


def test_no_library_repeats_anything_by_itself(bare: Store, proxy: FaultProxy) -> None:
    for fault in (SLOW_DOWN, Fault(reset_after=0)):
        proxy.requests.clear()
        proxy.fail_always(fault)
        error_of(bare.put, "vm/a", b"x")
        assert len(proxy.requests) == 1


def test_a_part_whose_answer_was_lost_is_sent_again_onto_itself(
    gcs: GcsRig, store: Store, proxy: FaultProxy, patience: Patience
) -> None:
    proxy.fail_next(Fault(method="POST", lose_answer=True))
    writer, receipts = sent(store)
    assert len(gcs.leftovers(store)) == len(PARTS)
    writer.complete(receipts, len(DATA))
    assert (store.get(KEY), patience.kinds) == (DATA, ["network"])


@pytest.mark.parametrize("at", [50_000, 2 * MIB])
def test_an_answer_cut_short_is_read_again(store: Store, proxy: FaultProxy, patience: Patience, at: int) -> None:
    write(store)
    proxy.fail_next(*[Fault(method="GET", path="/download/", answer_bytes=at)] * 2)
    assert store.get(KEY) == DATA
    read = bytearray(len(DATA) - 5)
    proxy.fail_next(Fault(method="GET", path="/download/", answer_bytes=at))
    store.read_into(KEY, 5, memoryview(read))
    assert read == DATA[5:]
    assert patience.kinds == ["network"] * 3


def test_a_completion_whose_answer_was_lost_is_settled(
    gcs: GcsRig, store: Store, proxy: FaultProxy, patience: Patience
) -> None:
    proxy.fail_next(LOST)
    write(store)
    assert patience.kinds == []
    assert gcs.leftovers(store) == [KEY]


def test_what_is_there_by_a_lost_answer_of_ours_is_no_reason_to_leave_it_out(store: Store, proxy: FaultProxy) -> None:
    writer, receipts = sent(store)
    proxy.fail_next(LOST, *[Fault(method="GET", answer=500)] * 2)  # a look before, and one behind
    info = writer.complete(receipts, len(DATA), if_absent=True)
    assert (info.size, store.get(KEY)) == (len(DATA), DATA)


def test_an_abort_after_an_unsettled_completion_removes_the_object(gcs: GcsRig, bare: Store, proxy: FaultProxy) -> None:
    writer, receipts = sent(bare)
    proxy.fail_next(LOST, Fault(method="GET", answer=500))
    error_of(writer.complete, receipts, len(DATA))
    assert KEY in gcs.leftovers(bare)
    writer.abort()
    assert gcs.leftovers(bare) == []


def test_a_completion_that_comes_after_its_upload_was_given_up_makes_nothing(
    gcs: GcsRig, hasty: Store, proxy: FaultProxy
) -> None:
    writer, receipts = sent(hasty)
    proxy.fail_next(LATE)
    error_of(writer.complete, receipts, len(DATA))
    writer.abort()
    time.sleep(0.5)
    assert gcs.leftovers(hasty) == []


def test_a_part_that_lands_after_its_upload_was_given_up_is_removed(
    gcs: GcsRig, hasty: Store, proxy: FaultProxy
) -> None:
    writer = hasty.open_parts(KEY)
    proxy.fail_next(Fault(method="POST", delay=0.6))
    error_of(writer.write_part, Part(1, 0, 1000), memoryview(DATA)[:1000])
    writer.abort()
    time.sleep(0.6)
    assert gcs.leftovers(hasty) == []


class Flipped(RelatedBody):
    """Changes a bit on the way, `left` times."""

    left = 0

    def read(self, size: int = -1) -> memoryview:
        found = super().read(size)
        if len(found) < 1000 or not Flipped.left:
            return found
        Flipped.left -= 1
        other = bytearray(found)
        other[500] ^= 1
        return memoryview(other)


@pytest.fixture
def bad_wire(monkeypatch: pytest.MonkeyPatch) -> type[Flipped]:
    module = "ansible_collections.vmferry.migrate.plugins.module_utils._stores.gcs.bucket"
    monkeypatch.setattr(f"{module}.RelatedBody", Flipped)
    monkeypatch.setattr(Flipped, "left", 1)
    return Flipped


@pytest.mark.usefixtures("bad_wire")
@pytest.mark.parametrize("rig", ["gcs", "gcs_emulator"], indirect=True)  # one believes what is claimed, one compares
def test_what_arrives_changed_is_noticed_and_sent_again(rig: GcsRig, patience: Patience) -> None:
    store = RetryingStore(rig.open(), patience)
    write(store)
    Flipped.left = 1
    store.put("vm/note", DATA, if_absent=rig.declared.conditional_put)
    assert store.get("vm/note") == DATA
    assert patience.kinds == ["checksum_mismatch"] * 2
    assert rig.leftovers(store) == [KEY, "vm/note"]


@pytest.mark.usefixtures("bad_wire")
def test_what_arrived_changed_is_not_left_to_be_read(gcs: GcsRig, bare: Store) -> None:
    error = error_of(bare.put, "vm/note", DATA)
    assert (error.kind, error.retryable) == ("checksum_mismatch", True)
    assert gcs.leftovers(bare) == []


def test_what_the_server_says_it_joined_is_compared(gcs: GcsRig, bare: Store, proxy: FaultProxy) -> None:
    writer, receipts = sent(bare)
    mark = {UPLOAD_TOKEN: writer.token}
    other = {"crc32c": "AAAAAA==", "size": str(len(DATA)), "generation": "1", "metadata": mark}
    proxy.fail_next(Fault(method="GET", path="disk-0.qcow2", answer=200, body=json.dumps(other).encode()))
    assert error_of(writer.complete, receipts, len(DATA)).kind == "checksum_mismatch"
    writer.abort()
    assert gcs.leftovers(bare) == []


def test_a_server_that_tells_no_checksum_is_not_trusted(bare: Store, proxy: FaultProxy) -> None:
    proxy.fail_next(Fault(method="POST", answer=200, body=b'{"size": "1"}'))
    error = error_of(bare.put, "vm/a", b"x")
    assert (error.kind, "CRC32C" in error.message) == ("unsupported", True)


def test_a_small_object_that_arrives_changed_is_read_again(store: Store, proxy: FaultProxy, patience: Patience) -> None:
    store.put("vm/a", b"right")
    proxy.fail_next(Fault(method="GET", answer=200, body=b"wrong", headers={"X-Goog-Hash": "crc32c=AAAAAA==,md5=x"}))
    assert store.get("vm/a") == b"right"
    assert patience.kinds == ["checksum_mismatch"]


@pytest.mark.parametrize(
    "answer",
    [
        Fault(method="GET", answer=200, body=b"0123456789"),
        Fault(method="GET", answer=206, body=b"01234", headers={"Content-Range": "bytes 0-4/10"}),
        Fault(method="GET", answer=206, body=b"456789", headers={"Content-Range": "bytes 4-9/10"}),
        Fault(method="GET", answer=206, body=b"45678"),
        Fault(method="GET", answer=206, body=b"456", headers={"Content-Range": "bytes 4-8/10"}),
    ],
)
def test_an_answer_that_is_not_of_the_range_that_was_asked_for_is_refused(
    bare: Store, proxy: FaultProxy, answer: Fault
) -> None:
    bare.put("vm/a", b"0123456789")
    proxy.fail_next(answer)
    error = error_of(bare.read_into, "vm/a", 4, memoryview(bytearray(5)))
    assert (error.kind, error.retryable, bool(error.hint)) == ("unsupported", False, True)
    assert "for bytes 4 to 9 of" in error.message


def test_a_listing_goes_on_after_a_failure_and_over_pages(store: Store, proxy: FaultProxy, patience: Patience) -> None:
    for name in "abc":
        store.put(f"vm/{name}", b"x")
    item = {"name": f"{store.url.split('/', 3)[3]}/vm/0", "size": "1", "generation": "1"}
    page = {"items": [item], "nextPageToken": "0"}  # before all names
    proxy.fail_next(SLOW_DOWN, Fault(method="GET", answer=200, body=json.dumps(page).encode()))
    assert [info.key for info in store.list("")] == ["vm/0", "vm/a", "vm/b", "vm/c"]
    assert patience.kinds == ["rate_limited"]
    assert [query_of(request).get("pageToken") for request in proxy.requests[-2:]] == [None, "0"]


def test_who_may_not_list_is_told_which_permissions_it_takes(bare: Store, proxy: FaultProxy) -> None:
    proxy.fail_next(refusal(403, "forbidden"))
    error = error_of(bare.abort_uploads, "vm/")
    assert (error.kind, "storage.objects.list" in error.hint) == ("permission_denied", True)


@pytest.mark.parametrize("reason", ["retentionPolicyNotMet", "objectUnderActiveHold"])
def test_what_is_held_cannot_be_deleted_and_the_hint_says_why(bare: Store, proxy: FaultProxy, reason: str) -> None:
    bare.put("vm/a", b"x")
    proxy.fail_next(refusal(403, reason))
    error = error_of(bare.delete, "vm/a")
    assert (error.kind, "retention policy" in error.hint) == ("permission_denied", True)


def test_the_probe_refuses_a_bucket_in_which_nothing_can_be_deleted(bare: Store, proxy: FaultProxy) -> None:
    proxy.fail_always(Fault(method="DELETE", answer=204))
    assert error_of(bare.probe, "vm/.probe").kind == "unsupported"
    proxy.fail_always(refusal(403, "retentionPolicyNotMet"))
    assert error_of(bare.probe, "vm/.probe").kind == "permission_denied"


def when(days: int) -> str:
    return (datetime.now(timezone.utc) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.mark.parametrize(
    ("said", "locked"),
    [
        ({}, False),
        ({"temporaryHold": False, "eventBasedHold": False}, False),
        ({"temporaryHold": True}, True),
        ({"eventBasedHold": True}, True),
        ({"retentionExpirationTime": when(1)}, True),
        ({"retentionExpirationTime": when(-1)}, False),
        ({"retention": {"mode": "Locked", "retainUntilTime": when(1)}}, True),
        ({"retention": {"mode": "Unlocked", "retainUntilTime": when(-1)}}, False),
    ],
)
def test_what_a_hold_or_a_retention_keeps_is_locked(
    bare: Store, proxy: FaultProxy, said: dict[str, Any], locked: bool
) -> None:
    body = {"size": "1", "generation": "7", "timeCreated": when(-2), **said}
    proxy.fail_next(Fault(method="GET", answer=200, body=json.dumps(body).encode()))
    info = bare.stat("vm/a")
    assert info is not None
    assert (info.locked, info.etag, info.size) == (locked, "7", 1)
    assert abs(info.modified - (time.time() - 2 * 86400)) < 60


def test_a_slow_server_is_only_slow(store: Store, proxy: FaultProxy, patience: Patience) -> None:
    proxy.bytes_per_second = 4 * MIB
    write(store)
    assert patience.kinds == []


def test_bytes_that_move_slowly_within_a_part_and_within_a_read_are_signs_of_life(
    gcs: GcsRig, proxy: FaultProxy
) -> None:
    signs: list[float] = []
    store = gcs.open(endpoint_url=proxy.endpoint_url, alive=lambda: signs.append(time.monotonic()))
    writer = store.open_parts("vm/a")
    receipt = send(writer, Part(1, 0, len(DATA)))
    assert len(signs) >= len(DATA) // MIB
    writer.complete([receipt], len(DATA))
    signs.clear()
    assert store.get("vm/a") == DATA
    assert len(signs) >= len(DATA) // MIB


SMALL = 100
MANY = 70  # parts: three groups, then one object


def many(writer: PartWriter, data: bytes) -> list[PartReceipt]:
    parts = [Part(number + 1, number * SMALL, SMALL) for number in range(MANY)]
    return [send(writer, part, data) for part in parts]


@pytest.fixture
def removing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the service itself, which removes what it joined; neither emulator does."""
    compose = Bucket.compose

    def compose_and_remove(self: Bucket, doing: str, key: str, sources: Any, *rest: Any) -> Any:
        names = list(sources)
        found = compose(self, doing, key, names, *rest)
        for name in names:
            self.remove(name)
        return found

    monkeypatch.setattr(Bucket, "compose", compose_and_remove)


def test_many_parts_become_one_object_and_leave_nothing(gcs: GcsRig, bare: Store, proxy: FaultProxy) -> None:
    data = DATA[: MANY * SMALL]
    writer = bare.open_parts(KEY, metadata={"attempt": "1"})
    receipts = many(writer, data)
    info = writer.complete(receipts, len(data))
    assert bare.get(KEY) == data
    assert (gcs.leftovers(bare), info.metadata) == ([KEY], {"attempt": "1"})
    assert [kind_of(request) for request in proxy.requests].count("compose") == 4


@pytest.mark.usefixtures("removing")
@pytest.mark.parametrize("fails", [1, 3, 4])
def test_joining_that_broke_off_is_gone_on_with_though_what_was_joined_is_gone(
    gcs: GcsRig, bare: Store, proxy: FaultProxy, fails: int
) -> None:
    data = DATA[: MANY * SMALL]
    killed = bare.open_parts(KEY)
    receipts = many(killed, data)
    proxy.fail_next(*[Fault(path="/compose", delay=0.01)] * (fails - 1), refusal(503, "backendError"))
    with pytest.raises(VmferryError):
        killed.complete(receipts, len(data))
    killed.leave()
    writer = bare.resume_parts(KEY, killed.token, len(data))
    assert writer is not None
    assert all(writer.confirms(receipt) for receipt in receipts)
    writer.complete(receipts, len(data))
    assert bare.get(KEY) == data
    assert gcs.leftovers(bare) == [KEY]


@pytest.mark.usefixtures("removing")
def test_joining_whose_answer_was_lost_is_not_done_twice(
    gcs: GcsRig, store: Store, proxy: FaultProxy, patience: Patience
) -> None:
    data = DATA[: MANY * SMALL]
    writer = store.open_parts(KEY)
    receipts = many(writer, data)
    proxy.fail_next(Fault(path="/compose", lose_answer=True))
    writer.complete(receipts, len(data))
    assert store.get(KEY) == data
    assert patience.kinds == ["network"]
    assert gcs.leftovers(store) == [KEY]


def test_an_abort_while_parts_were_being_joined_leaves_nothing(gcs: GcsRig, bare: Store, proxy: FaultProxy) -> None:
    data = DATA[: MANY * SMALL]
    writer = bare.open_parts(KEY)
    receipts = many(writer, data)
    proxy.fail_next(Fault(path="/compose", delay=0.01), Fault(path="/compose", answer=403))
    error_of(writer.complete, receipts, len(data))
    writer.abort()
    assert gcs.leftovers(bare) == []


def test_a_cleanup_takes_what_was_being_joined_along(gcs: GcsRig, bare: Store, proxy: FaultProxy) -> None:
    data = DATA[: MANY * SMALL]
    writer = bare.open_parts(KEY)
    receipts = many(writer, data)
    proxy.fail_next(Fault(path="/compose", delay=0.01), Fault(path="/compose", answer=403))
    error_of(writer.complete, receipts, len(data))
    assert bare.abort_uploads("vm/2/") == 0
    assert bare.abort_uploads("vm/1/") == 1
    assert gcs.leftovers(bare) == []


def test_an_upload_that_another_process_still_feeds_is_not_called_removed(
    bare: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_parts, "_SETTLE_PAUSE", 0.01)
    writer = bare.open_parts(KEY)
    remove = gcs_parts.remove_temporary

    def remove_and_send(bucket: Bucket, item: Any) -> None:
        remove(bucket, item)
        send(writer, PARTS[1])

    monkeypatch.setattr(gcs_parts, "remove_temporary", remove_and_send)
    send(writer, PARTS[1])
    error = error_of(writer.abort)
    assert (error.kind, error.retryable) == ("conflict", True)
