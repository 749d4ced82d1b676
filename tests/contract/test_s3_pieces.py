# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts put together by the server: the object is whole, and nothing of what it was made of is left."""

from __future__ import annotations

import random
from base64 import b64encode
from dataclasses import replace
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Part, PartReceipt
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.limited import LimitedStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3 import store as s3_store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from rigs.fault_proxy import Fault, FaultProxy

from .chains import Guest, export, restored
from .patience import Meter, Patience
from .store_rigs import S3Rig, StoreRig

MIB = 1024 * 1024
PIECE = 5 * MIB
PARTS = (Part(1, 0, 12 * MIB), Part(2, 12 * MIB, 11 * MIB))
KEY = "vm/disk-0.qcow2"
IN_PIECES = pytest.mark.parametrize("rig", ["s3", "sloppy_s3"], indirect=True)


@cache
def image() -> bytes:
    return random.Random(3).randbytes(23 * MIB)


def send(writer: Any, part: Part) -> PartReceipt:
    whole = memoryview(image())[part.offset : part.offset + part.size]
    for number in (3, 1, 2):  # in any order
        writer.write_piece(part, number, whole[(number - 1) * PIECE : number * PIECE])
    return PartReceipt(part, b"", writer.join_pieces(part))


def read(store: Store) -> bytes:
    data = bytearray(len(image()))
    store.read_into(KEY, 0, memoryview(data))
    return bytes(data)


@IN_PIECES
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_object_of_pieces_is_whole_and_leaves_nothing(rig: StoreRig, wrapped: bool) -> None:
    bare = rig.fresh()
    store: Store = RetryingStore(LimitedStore(bare, Meter()), Patience()) if wrapped else bare
    assert store.probe("probe").joins_pieces
    writer = store.open_parts(KEY, metadata={"vmferry-export": "x"})
    info = writer.complete([send(writer, part) for part in PARTS], len(image()))
    assert (info.size, info.metadata) == (len(image()), {"vmferry-export": "x"})
    assert read(store) == image()
    assert rig.leftovers(bare) == [KEY]


def test_a_customer_key_goes_along_with_the_copy(s3: S3Rig, s3_proxy: FaultProxy) -> None:
    key = b64encode(bytes(range(32))).decode()
    store = s3.open(endpoint_url=s3_proxy.endpoint_url, sse_customer_key=key)
    s3_proxy.reset()
    assert not store.probe("probe").joins_pieces, "SeaweedFS copies nothing that has such a key, and says so"
    copies = [request.headers for request in s3_proxy.requests if "x-amz-copy-source" in request.headers]
    customer = "server-side-encryption-customer-key"
    assert [(one.get(f"x-amz-{customer}"), one.get(f"x-amz-copy-source-{customer}")) for one in copies] == [(key, key)]


@IN_PIECES
def test_what_is_aborted_leaves_no_piece(rig: StoreRig) -> None:
    store = rig.fresh()
    store.probe("probe")
    writer: Any = store.open_parts(KEY)
    send(writer, PARTS[0])
    writer.write_piece(PARTS[1], 1, memoryview(image())[:PIECE])
    assert rig.leftovers(store) != []
    writer.abort()
    assert rig.leftovers(store) == []


@IN_PIECES
def test_who_goes_on_removes_the_pieces_of_the_dead_and_keeps_its_parts(rig: StoreRig) -> None:
    store = rig.fresh()
    store.probe("probe")
    writer: Any = store.open_parts(KEY)
    first = send(writer, PARTS[0])
    writer.write_piece(PARTS[1], 1, memoryview(image())[:PIECE])
    again = store.resume_parts(KEY, writer.token, 0)
    assert again is not None
    assert [name for name in rig.leftovers(store) if name != KEY] == []
    assert again.confirms(first)
    again.complete([first, send(again, PARTS[1])], len(image()))
    assert read(store) == image()
    assert rig.leftovers(store) == [KEY]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(lose_answer=True, method="PUT", path="?uploadId"),
        Fault(lose_answer=True, method="DELETE"),
        Fault(answer=503, method="DELETE"),
        Fault(lose_answer=True, method="POST", path=".pieces"),
        Fault(reset_after=MIB, method="PUT", path=".pieces"),
    ],
)
def test_a_lost_answer_or_a_fault_between_is_ridden_out(s3: S3Rig, s3_proxy: FaultProxy, fault: Fault) -> None:
    bare = s3.open(endpoint_url=s3_proxy.endpoint_url)
    bare.probe("probe")
    s3_proxy.reset()
    store = RetryingStore(bare, Patience())
    writer = store.open_parts(KEY)
    s3_proxy.fail_next(fault)
    try:
        writer.complete([send(writer, part) for part in PARTS], len(image()))
    finally:
        s3_proxy.reset()
    assert read(store) == image()
    assert [name for name in s3.leftovers(bare) if name != KEY] in ([], [f"{KEY}.pieces/00001"])


def test_a_server_that_copies_nothing_is_sent_whole_parts(s3: S3Rig, s3_proxy: FaultProxy) -> None:
    store = s3.open(endpoint_url=s3_proxy.endpoint_url)
    s3_proxy.reset()
    refusal = Fault(answer=501, body=b"<Error><Code>NotImplemented</Code></Error>", method="PUT", path="partNumber=1")
    s3_proxy.fail_next(*[refusal] * 9)
    try:
        assert not store.probe("probe").joins_pieces
    finally:
        s3_proxy.reset()
    assert s3.leftovers(store) == []


@pytest.mark.parametrize("format_", ["qcow2", "ova"])
def test_an_export_whose_parts_do_not_fit_into_memory_comes_back(
    format_: str, s3: S3Rig, s3_proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Limits(workers=2, window=16 * LEAF, part=PIECE, part_budget=12 * MIB)
    monkeypatch.setattr(Limits, "of_transfer", classmethod(lambda *_unused, **_named: small))
    monkeypatch.setattr(s3_store, "MAX_PARTS", 3)  # as few as the parts of an image of terabytes are large
    guest = Guest()
    guest.disks["disk-0"] = bytearray(image())
    guest.vm = guest.vm.with_disks(
        tuple(replace(disk, size=len(image())) if disk.id == "disk-0" else disk for disk in guest.vm.disks)
    )
    settings = {**s3.server.settings, "endpoint_url": s3_proxy.endpoint_url}
    spec = StoreSpec(f"s3://{s3.bucket}/{token_hex(4)}", settings)
    s3_proxy.reset()
    made = export(spec, guest, tmp_path, format=format_)["export"]["id"]
    assert max(request.length for request in s3_proxy.requests) < 7 * MIB
    copied = [request for request in s3_proxy.requests if "x-amz-copy-source" in request.headers]
    assert sum(f".{format_}" in request.target for request in copied) == 2
    store = open_store(spec.url, s3.server.settings)
    assert restored(store, made) == guest.now
    assert [name for name in s3.leftovers(store) if ".pieces" in name] == []
