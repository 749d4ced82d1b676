# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unfinished uploads in Azure, where blocks belong to a name: what is discarded, what is spared, what is as it was."""

from __future__ import annotations

import random
from typing import Any

import pytest
from azure.storage.blob import BlobBlock, ContentSettings, StandardBlobTier

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part, PartReceipt, PartWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store

from .azure_rig import AzureRig
from .store_rigs import MIB

DATA = random.Random(0).randbytes(MIB)
OTHER = random.Random(1).randbytes(MIB)


@pytest.fixture
def store(azure: AzureRig) -> Store:
    return azure.fresh()


def blob(azure: AzureRig, store: Store, key: str) -> Any:
    return azure.client.get_blob_client(f"{store.url.rpartition('/')[2]}/{key}")


def send(writer: PartWriter, data: bytes, number: int = 1) -> PartReceipt:
    part = Part(number, 0, len(data))
    return PartReceipt(part, b"", writer.write_part(part, memoryview(data)))


def in_blocks(store: Store) -> None:
    writer = store.open_parts("vm/a", metadata={"attempt": "1"})
    writer.complete([send(writer, DATA)], len(DATA))


def whole(store: Store) -> None:
    store.put("vm/a", DATA, metadata={"attempt": "1"})


@pytest.mark.parametrize("written", [in_blocks, whole])
@pytest.mark.parametrize("by", ["its own abort", "a cleanup"])
def test_an_object_that_was_being_replaced_is_as_it_was_and_nothing_lies_beside_it(
    azure: AzureRig, store: Store, written: Any, by: str
) -> None:
    written(store)
    there = blob(azure, store, "vm/a")
    there.set_http_headers(ContentSettings(content_type="application/x-qemu-disk"))
    there.set_standard_blob_tier(StandardBlobTier.COOL)
    writer = store.open_parts("vm/a")
    send(writer, OTHER)
    beside = f"vm/a.{writer.token[8:24]}.part"
    assert azure.leftovers(store) == ["vm/a", "vm/a (unfinished)", beside]
    assert [info.key for info in store.list("")] == ["vm/a"]
    if by == "a cleanup":
        assert store.abort_uploads("vm/") == 1
    else:
        writer.abort()
    assert azure.leftovers(store) == ["vm/a"]
    info, found = store.stat("vm/a"), there.get_blob_properties()
    assert info is not None
    assert (store.get("vm/a"), info.metadata) == (DATA, {"attempt": "1"})
    assert (found.content_settings.content_type, found.blob_tier) == ("application/x-qemu-disk", "Cool")


def test_blocks_that_have_the_names_of_committed_ones_do_not_take_their_place(azure: AzureRig, store: Store) -> None:
    """As other programs name them, which count from zero for each upload."""
    there = blob(azure, store, "vm/a")
    there.stage_block("00000001", DATA, length=len(DATA))
    there.commit_block_list([BlobBlock("00000001")])
    there.stage_block("00000001", OTHER, length=len(OTHER))
    beside = blob(azure, store, "vm/a.0123456789abcdef.part")
    beside.upload_blob(b"")
    assert store.abort_uploads("vm/") == 0
    assert store.get("vm/a") == DATA
    left = ["vm/a", "vm/a (unfinished)", "vm/a.0123456789abcdef.part"]
    assert azure.leftovers(store) == left, "until Azure forgets it"
    there.commit_block_list([BlobBlock("00000001")])
    assert store.abort_uploads("vm/") == 1
    assert azure.leftovers(store) == ["vm/a"]


def test_an_object_that_was_replaced_has_nothing_beside_it(azure: AzureRig, store: Store) -> None:
    for written in (whole, in_blocks, in_blocks):
        written(store)
        assert azure.leftovers(store) == ["vm/a"]


def test_nothing_is_asked_of_objects_that_nobody_replaces(azure: AzureRig) -> None:
    azure.proxy.reset()
    store = azure.open(endpoint_url=azure.endpoint_url)
    for key in ("vm/a", "vm/b"):
        writer = store.open_parts(key)
        writer.complete([send(writer, DATA)], len(DATA))
    azure.proxy.requests.clear()
    assert store.abort_uploads("") == 0
    assert len(azure.proxy.requests) == 1


def test_an_upload_that_another_process_goes_on_with_leaves_nothing_beside_what_it_replaces(
    azure: AzureRig, store: Store
) -> None:
    whole(store)
    receipt = send(killed := store.open_parts("vm/a"), OTHER)
    writer = store.resume_parts("vm/a", killed.token, len(OTHER))
    assert writer is not None
    writer.complete([receipt], len(OTHER))
    assert (store.get("vm/a"), azure.leftovers(store)) == (OTHER, ["vm/a"])


def test_of_two_uploads_of_one_object_neither_gets_into_the_other(store: Store) -> None:
    first, second = store.open_parts("vm/a"), store.open_parts("vm/a")
    mine, other = send(first, DATA), send(second, OTHER)
    second.complete([other], len(OTHER))
    with pytest.raises(VmferryError) as raised:
        first.complete([mine], len(DATA))
    assert (raised.value.kind, raised.value.retryable) == ("conflict", False)
    assert "not there any more" in raised.value.message
    first.abort()
    assert store.get("vm/a") == OTHER


def test_an_abort_spares_another_upload_of_the_same_object(azure: AzureRig, store: Store) -> None:
    first, second = store.open_parts("vm/a"), store.open_parts("vm/a")
    other = send(second, OTHER)
    send(first, DATA)
    first.abort()
    second.complete([other], len(OTHER))
    assert store.get("vm/a") == OTHER
    assert azure.leftovers(store) == ["vm/a"]


def test_blocks_of_another_program_are_told_of_and_count_as_new(azure: AzureRig, store: Store) -> None:
    blob(azure, store, "vm/a").stage_block("1", b"of another program", length=18)
    with pytest.raises(VmferryError) as raised:
        send(store.open_parts("vm/a"), DATA)
    assert raised.value.kind == "conflict"
    assert "another program's unfinished upload" in raised.value.message
    now, seen = store.put("vm/now", b"").modified, []
    store.abort_uploads("vm/", lambda info: bool(seen.append(info)))
    assert [(info.key, info.size, abs(info.modified - now) < 10) for info in seen] == [("vm/a", 18, True)]
    assert store.abort_uploads("vm/") == 1
    assert azure.leftovers(store) == ["vm/now"]


def test_when_an_upload_began_is_known_by_its_blocks(azure: AzureRig, store: Store) -> None:
    writer = store.open_parts("vm/a")
    old = f"{1_700_000_000:08x}{writer.token[8:]}"
    assert store.resume_parts("vm/a", old, 0) is None, "nothing of it is there"
    blob(azure, store, "vm/a").stage_block(f"{old.partition(':')[0]}{1:06d}{'0' * 32}", b"x", length=1)
    seen: list[float] = []
    store.abort_uploads("vm/", lambda info: bool(seen.append(info.modified)))
    assert seen == [1_700_000_000]


def test_a_part_is_known_by_its_content_and_not_by_its_number_alone(store: Store) -> None:
    writer = store.open_parts("vm/a")
    was, now = send(writer, DATA), send(writer, OTHER)
    assert was.etag != now.etag
    assert len(was.etag) == len(now.etag) <= 64
    resumed = store.resume_parts("vm/a", writer.token, MIB)
    assert resumed is not None
    assert resumed.confirms(was)
    assert resumed.confirms(now)
    assert not resumed.confirms(PartReceipt(Part(1, 0, MIB - 1), b"", now.etag))
    assert not resumed.confirms(PartReceipt(Part(2, 0, MIB), b"", now.etag))
    resumed.complete([now], MIB)
    assert store.get("vm/a") == OTHER


def test_blocks_that_another_checksum_names_are_not_gone_on_with(store: Store) -> None:
    writer = store.open_parts("vm/a")
    send(writer, DATA)
    assert store.resume_parts("vm/a", writer.token.replace("md5", "crc64"), MIB) is None


def test_an_upload_of_which_nothing_was_sent_asks_nothing_to_be_removed(azure: AzureRig) -> None:
    azure.proxy.reset()
    store = azure.open(endpoint_url=azure.endpoint_url)
    store.open_parts("vm/a").abort()
    assert azure.proxy.requests == []


@pytest.mark.parametrize("key", ["vm/a.", "vm./a", "a..."])
def test_a_name_that_azure_would_change_is_refused(store: Store, key: str) -> None:
    for write in (lambda: store.put(key, b""), lambda: store.open_parts(key), lambda: store.probe(key)):
        with pytest.raises(VmferryError) as raised:
            write()
        assert raised.value.kind == "invalid_config"
        assert "dot" in raised.value.message
