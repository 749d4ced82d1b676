# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad weather between an HTTP store and its server: lost answers, broken connections, bytes that changed in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part, PartReceipt, PartWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.limited import LimitedStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from rigs.fault_proxy import Fault, FaultProxy

from .dav_rig import NginxDavRig
from .patience import Meter, Patience
from .store_rigs import MIB

DATA = bytes(range(256)) * 8192  # 2 MiB
PARTS = [Part(1, 0, MIB), Part(2, MIB, len(DATA) - MIB)]


@pytest.fixture
def proxy(nginx_dav: NginxDavRig) -> FaultProxy:
    nginx_dav.proxy.reset()
    return nginx_dav.proxy


@pytest.fixture
def store(nginx_dav: NginxDavRig, proxy: FaultProxy) -> Store:
    return RetryingStore(nginx_dav.open(url=proxy.endpoint_url, read_timeout=2.0), Patience())


def written(store: Store, key: str = "vm/a") -> tuple[PartWriter, list[PartReceipt]]:
    writer = store.open_parts(key)
    receipts = []
    for part in PARTS:
        data = memoryview(DATA)[part.offset : part.offset + part.size]
        receipts.append(PartReceipt(part, b"", writer.write_part(part, data)))
    return writer, receipts


@pytest.mark.parametrize("method", ["PROPFIND", "MKCOL", "PUT", "MOVE", "HEAD"])
@pytest.mark.parametrize("if_absent", [False, True])
def test_a_put_whose_answer_is_lost_is_repeated_and_stands(
    nginx_dav: NginxDavRig, store: Store, proxy: FaultProxy, method: str, if_absent: bool
) -> None:
    proxy.fail_next(Fault(lose_answer=True, method=method))
    assert store.put("vm/a", b"data", if_absent=if_absent).size == 4
    assert store.get("vm/a") == b"data"
    assert nginx_dav.leftovers(store) == ["vm/a"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(reset_after=300_000, method="PUT"),
        Fault(lose_answer=True, method="PUT"),
        Fault(lose_answer=True, method="MOVE"),
        Fault(answer=503, method="MOVE"),
        Fault(answer_bytes=300_000, method="GET"),
        Fault(lose_answer=True, method="DELETE"),
        Fault(answer=423, method="MOVE"),
    ],
    ids=repr,
)
def test_an_object_is_joined_again_until_it_is_there_whole(
    nginx_dav: NginxDavRig, store: Store, proxy: FaultProxy, fault: Fault
) -> None:
    writer, receipts = written(store)
    proxy.fail_next(fault)
    assert writer.complete(receipts, len(DATA)).size == len(DATA)
    assert store.get("vm/a") == DATA
    assert nginx_dav.leftovers(store) == ["vm/a"]


@pytest.mark.parametrize("if_absent", [False, True])
def test_what_is_there_by_a_lost_answer_of_ours_is_no_reason_to_leave_it_out(
    nginx_dav: NginxDavRig, store: Store, proxy: FaultProxy, if_absent: bool
) -> None:
    writer, receipts = written(store)
    proxy.fail_next(Fault(lose_answer=True, method="MOVE"))
    assert writer.complete(receipts, len(DATA), if_absent=if_absent).size == len(DATA)
    assert nginx_dav.leftovers(store) == ["vm/a"]


def test_a_move_that_was_carried_out_and_never_answered_is_undone_by_an_abort(
    nginx_dav: NginxDavRig, proxy: FaultProxy
) -> None:
    store = nginx_dav.open(url=proxy.endpoint_url)
    writer, receipts = written(store)
    proxy.fail_next(Fault(lose_answer=True, method="MOVE"))
    with pytest.raises(VmferryError):
        writer.complete(receipts, len(DATA))
    writer.abort()
    assert nginx_dav.leftovers(store) == []


def test_a_part_that_changed_on_the_server_is_found_before_the_object_appears_and_sent_again_by_the_next_run(
    nginx_dav: NginxDavRig, store: Store
) -> None:
    writer, receipts = written(store)
    [spoiled] = nginx_dav.folder(store).glob("vm/a.*.part/00002-*")
    spoiled.write_bytes(spoiled.read_bytes()[:-1] + b"!")
    with pytest.raises(VmferryError) as raised:
        writer.complete(receipts, len(DATA))
    assert (raised.value.kind, raised.value.retryable) == ("checksum_mismatch", False)
    assert store.stat("vm/a") is None
    again = store.resume_parts("vm/a", writer.token, len(DATA))
    assert again is not None
    assert [again.confirms(receipt) for receipt in receipts] == [True, False]
    again.write_part(PARTS[1], memoryview(DATA)[MIB:])
    again.complete(receipts, len(DATA))
    assert store.get("vm/a") == DATA


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data + b"!", lambda data: b""])
def test_a_part_of_another_length_is_no_part_of_the_object(
    nginx_dav: NginxDavRig, store: Store, spoil: Callable[[bytes], bytes]
) -> None:
    writer, receipts = written(store)
    [spoiled] = nginx_dav.folder(store).glob("vm/a.*.part/00001-*")
    spoiled.write_bytes(spoil(spoiled.read_bytes()))
    resumed = store.resume_parts("vm/a", writer.token, len(DATA))
    assert resumed is not None
    assert [resumed.confirms(receipt) for receipt in receipts] == [False, True]
    with pytest.raises(VmferryError) as raised:
        writer.complete(receipts, len(DATA))
    assert raised.value.kind == "checksum_mismatch"


def test_another_object_of_the_same_size_is_not_taken_for_the_one_that_was_complete(store: Store) -> None:
    writer, receipts = written(store)
    writer.complete(receipts, len(DATA))
    store.put("vm/a", bytes(len(DATA)))
    resumed = store.resume_parts("vm/a", writer.token, len(DATA))
    assert resumed is not None
    proved = [PartReceipt(receipt.part, b"\1" * 32, receipt.etag) for receipt in receipts]
    assert not any(resumed.confirms(receipt) for receipt in proved)
    with pytest.raises(VmferryError) as raised:
        resumed.write_part(PARTS[0], memoryview(DATA)[:MIB])
    assert raised.value.kind == "conflict"


def test_folders_that_somebody_removed_are_made_again(nginx_dav: NginxDavRig, store: Store) -> None:
    store.put("vm/1/a", b"x")
    (nginx_dav.folder(store) / "vm/1/a").unlink()
    (nginx_dav.folder(store) / "vm/1").rmdir()
    (nginx_dav.folder(store) / "vm").rmdir()
    store.put("vm/1/a", b"y")
    assert store.get("vm/1/a") == b"y"


def test_a_root_that_is_not_there_yet_is_empty_until_somebody_writes_and_missing_for_whoever_only_reads(
    nginx_dav: NginxDavRig,
) -> None:
    url = f"{nginx_dav.open().url}/exports"
    store = open_store(url, nginx_dav.server.settings)
    with pytest.raises(VmferryError) as raised:
        store.require_root()
    assert raised.value.kind == "not_found"
    assert (store.stat("vm/a"), list(store.list("")), list(store.list_folders("vm/"))) == (None, [], [])
    store.put("vm/a", b"x")
    open_store(url, nginx_dav.server.settings).require_root()


@pytest.mark.parametrize("rig", ["nginx_dav", "rclone_dav"], indirect=True)
def test_the_name_of_a_folder_is_no_object_and_deletes_nothing_that_is_in_it(rig: NginxDavRig) -> None:
    store = rig.open()
    store.put("vm/1/a", b"x")
    assert (store.stat("vm/1"), store.read_whole("vm", 10)) == (None, None)
    store.delete("vm/1")
    store.delete("vm")
    assert store.get("vm/1/a") == b"x"


def test_a_join_that_fails_leaves_no_thread_behind(store: Store, proxy: FaultProxy) -> None:
    writer, receipts = written(store)
    proxy.fail_always(Fault(answer=507, method="PUT"))
    with pytest.raises(VmferryError) as raised:
        writer.complete(receipts, len(DATA))
    proxy.reset()
    assert raised.value.kind == "no_space"
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("http-")]


def test_the_bytes_that_joining_moves_wait_for_the_limiter_too(nginx_dav: NginxDavRig) -> None:
    meter = Meter()
    writer, receipts = written(LimitedStore(nginx_dav.open(), meter))
    before = meter.taken
    writer.complete(receipts, len(DATA))
    assert (before, meter.taken) == (len(DATA), 3 * len(DATA))


def test_a_slow_body_is_not_a_dead_one(nginx_dav: NginxDavRig, proxy: FaultProxy) -> None:
    """As long as bytes move, nothing is counted as a timeout, however long all of it takes."""
    proxy.bytes_per_second = 2 * MIB
    calls: list[None] = []
    store = nginx_dav.open(lambda: calls.append(None), proxy.endpoint_url, connect_timeout=0.5, read_timeout=2.5)
    started = time.monotonic()
    assert store.put("vm/a", 3 * DATA).size == 3 * len(DATA)
    assert time.monotonic() - started > 2.8
    assert len(calls) >= 24


@pytest.mark.parametrize("rig", ["nginx_dav", "rclone_dav"], indirect=True)
def test_a_move_whose_answer_was_lost_is_not_done_twice_since_that_removes_the_object(rig: NginxDavRig) -> None:
    rig.proxy.reset()
    bare = rig.open(url=rig.proxy.endpoint_url)
    store = RetryingStore(bare, Patience())
    writer = store.open_parts("vm/a")
    receipt = PartReceipt(Part(1, 0, 4), b"", writer.write_part(Part(1, 0, 4), memoryview(b"data")))
    rig.proxy.fail_next(Fault(method="MOVE", lose_answer=True), Fault(method="MOVE", answer=503))
    assert writer.complete([receipt], 4).size == 4
    assert store.get("vm/a") == b"data"


def put_if_absent(store: Store) -> None:
    store.put("vm/a", b"data", if_absent=True)


def put_over(store: Store) -> None:
    store.put("vm/a", b"data")


def put_if_same(store: Store) -> None:
    info = store.stat("vm/a")
    assert info is not None
    store.put("vm/a", b"data", if_match=info.etag)


def streamed(store: Store) -> None:
    stream = store.open_stream("vm/a", 4)
    assert stream is not None
    in_one_part(stream)


def in_parts(store: Store) -> None:
    in_one_part(store.open_parts("vm/a"))


def in_one_part(writer: PartWriter) -> None:
    part = Part(1, 0, 4)
    try:
        writer.complete([PartReceipt(part, b"", writer.write_part(part, memoryview(b"data")))], 4)
    except VmferryError:
        writer.abort()
        raise


@pytest.mark.parametrize("rig", ["nginx_dav", "rclone_dav"], indirect=True)
@pytest.mark.parametrize("doubled", ["by the client", "by the network"])
@pytest.mark.parametrize("write", [put_if_absent, put_over, put_if_same, streamed, in_parts])
def test_a_move_that_is_asked_for_twice_never_passes_for_done_where_the_object_is_gone(
    rig: NginxDavRig, write: Callable[[Store], None], doubled: str
) -> None:
    """By the client, since it was not answered. What a network doubles is answered as a move of nothing, before which
    some servers remove the object: whoever asked is told, and can ask again."""
    rig.proxy.reset()
    store = RetryingStore(rig.open(url=rig.proxy.endpoint_url), Patience())
    if write is not put_if_absent:
        store.put("vm/a", b"older than that")
    rig.proxy.fail_next(
        Fault(method="MOVE", lose_answer=True) if doubled == "by the client" else Fault(method="MOVE", twice=True)
    )
    if doubled == "by the network":
        with pytest.raises(VmferryError):
            write(store)
        store.delete("vm/a")
        write = put_if_absent
    write(store)
    assert store.get("vm/a") == b"data"
    assert rig.leftovers(store)[-1:] == ["vm/a"]
