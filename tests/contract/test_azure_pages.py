# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Page blobs for VHDs: of the exact size, without their zeros, and under their name only when they are whole."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent, Part, PartReceipt, PartWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.copy_objects import copy_objects
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.download_object import download_object
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.storage_requests import (
    CopyRequest,
    DownloadRequest,
    ObjectSpec,
    UploadRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.upload_files import upload_files
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.azure import page_copy as azure_page_copy
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.server_copy import CopyOrder
from rigs.fault_proxy import Fault, FaultProxy, Request

from .azure_rig import AzureRig
from .patience import Patience
from .store_rigs import MIB

KEY = "disks/web 1.VHD"
SOME = random.Random(3).randbytes(MIB)
# Data at both ends and in the middle, off every boundary but that of a page; a footer of 512 bytes.
DISK = b"".join([SOME[: MIB // 2], bytes(5 * MIB + 512), SOME[:3584], bytes(6 * MIB), SOME[-512:]])
STEP = 4 * MIB
PARTS = [Part(n + 1, at, min(STEP, len(DISK) - at)) for n, at in enumerate(range(0, len(DISK), STEP))]


@pytest.fixture
def proxy(azure: AzureRig) -> FaultProxy:
    azure.proxy.reset()
    return azure.proxy


@pytest.fixture
def store(azure: AzureRig, proxy: FaultProxy) -> Store:
    return azure.open(endpoint_url=azure.endpoint_url, read_timeout=20)


def send(writer: PartWriter, part: Part, data: bytes = DISK) -> PartReceipt:
    return PartReceipt(part, b"", writer.write_part(part, memoryview(data)[part.offset : part.offset + part.size]))


def write(store: Store, key: str = KEY, data: bytes = DISK) -> None:
    writer = store.open_parts(key, metadata={"os": "debian"})
    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(lambda part: send(writer, part, data), reversed(PARTS)))
    writer.complete(receipts[::-1], len(data))


def properties(azure: AzureRig, store: Store, key: str = KEY) -> Any:
    return azure.client.get_blob_client(f"{store.url.rpartition('/')[2]}/{key}").get_blob_properties()


def error_of(function: Any) -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        function()
    return raised.value


def test_a_vhd_is_a_page_blob_of_its_size_of_which_zeros_are_neither_sent_nor_stored(
    azure: AzureRig, store: Store, proxy: FaultProxy
) -> None:
    write(store)
    sent = sum(request.length for request in proxy.requests)
    found, info = properties(azure, store), store.stat(KEY)
    assert (found.blob_type.value, found.size, len(DISK) % 512) == ("PageBlob", len(DISK), 0)
    assert sent < MIB
    assert info is not None
    assert (info.size, info.metadata) == (len(DISK), {"os": "debian"})
    assert store.get(KEY) == DISK
    assert azure.leftovers(store) == [KEY]
    kinds = list(store.extents(KEY, len(DISK)))
    assert kinds == [
        Extent(0, MIB // 2, "data"),
        Extent(MIB // 2, 5 * MIB, "zero"),
        Extent(5 * MIB + MIB // 2, 65536, "data"),
        Extent(5 * MIB + MIB // 2 + 65536, 6 * MIB - 65536, "zero"),
        Extent(11 * MIB + MIB // 2, 4608, "data"),
    ]


def test_nothing_of_it_is_seen_before_it_is_whole_and_what_it_replaces_stays_until_then(
    azure: AzureRig, store: Store
) -> None:
    write(store)
    writer = store.open_parts(KEY)
    for part in PARTS:
        send(writer, part, DISK[::-1])
    assert [info.key for info in store.list("")] == [KEY]
    assert store.get(KEY) == DISK
    writer.complete([], len(DISK))
    assert store.get(KEY) == DISK[::-1]
    assert azure.leftovers(store) == [KEY]


def test_a_part_that_is_sent_again_leaves_nothing_of_what_it_was(store: Store) -> None:
    writer = store.open_parts(KEY)
    for part in PARTS:
        send(writer, part, SOME * 12)
    receipts = [send(writer, part) for part in PARTS]
    writer.complete(receipts, len(DISK))
    assert store.get(KEY) == DISK


def test_what_a_killed_process_began_another_goes_on_with_and_believes_only_what_is_there(
    azure: AzureRig, store: Store
) -> None:
    killed = store.open_parts(KEY, metadata={"attempt": "1"})
    sent = [send(killed, part) for part in PARTS[:2]]
    killed.leave()
    writer = store.resume_parts(KEY, killed.token, len(DISK), metadata={"attempt": "1"})
    assert writer is not None
    others = store.open_parts("other.vhd")
    assert [writer.confirms(receipt) for receipt in sent] == [True, True]
    assert not writer.confirms(replace(sent[0], part=PARTS[2]))
    assert not writer.confirms(send(others, PARTS[0]))
    others.abort()
    sent += [send(writer, part) for part in PARTS[2:]]
    assert store.stat(KEY) is None
    writer.complete(sent, len(DISK))
    assert store.get(KEY) == DISK
    again = store.resume_parts(KEY, killed.token, len(DISK))
    assert again is not None
    assert again.complete(sent, len(DISK)) == store.stat(KEY)
    assert store.resume_parts(KEY, killed.token, len(DISK) - 512) is None
    again.abort()
    assert azure.leftovers(store) == [KEY]


def test_an_abort_and_a_cleanup_leave_nothing_and_spare_what_is_whole(azure: AzureRig, store: Store) -> None:
    write(store)
    writer = store.open_parts(KEY)
    send(writer, PARTS[0])
    writer.abort()
    writer.abort()
    assert azure.leftovers(store) == [KEY]
    send(store.open_parts("disks/a.vhd"), PARTS[0])
    send(store.open_parts("other/a.vhd"), PARTS[0])
    seen: list[Any] = []
    assert store.abort_uploads("disks/", lambda info: bool(seen.append(info))) == 0
    assert [info.key for info in seen] == ["disks/a.vhd"]
    assert abs(seen[0].modified - properties(azure, store).last_modified.timestamp()) < 60
    assert store.abort_uploads("disks/") == 1
    assert store.abort_uploads("") == 1
    assert azure.leftovers(store) == [KEY]


@pytest.mark.parametrize("path", ["comp=page", "comp=properties", "x.vhd"])
def test_an_answer_that_is_lost_is_asked_for_again(store: Store, proxy: FaultProxy, path: str) -> None:
    patience = Patience()
    asked = RetryingStore(store, patience)
    proxy.fail_next(Fault(method="PUT", path=path, lose_answer=True))
    write(asked, "x.vhd")
    assert store.get("x.vhd") == DISK
    store.abort_uploads("")
    assert {error.kind for error in patience.errors} == {"network"}


def test_a_page_that_changes_on_the_wire_is_refused_and_sent_again(store: Store, proxy: FaultProxy) -> None:
    patience = Patience()
    asked = RetryingStore(store, patience)
    proxy.fail_next(Fault(method="PUT", path="comp=page", flip_sent=1000))
    write(asked)
    assert store.get(KEY) == DISK
    assert [error.kind for error in patience.errors] == ["checksum_mismatch"]


def test_what_is_no_whole_number_of_pages_is_refused_and_leaves_nothing(azure: AzureRig, store: Store) -> None:
    writer = store.open_parts(KEY)
    error = error_of(lambda: writer.write_part(Part(1, 0, 1000), memoryview(bytes(1000))))
    assert (error.kind, "blob_type: block" in error.hint) == ("invalid_config", True)
    writer.abort()
    assert error_of(lambda: store.put("b.vhd", bytes(513))).kind == "invalid_config"
    assert azure.leftovers(store) == []


def test_an_object_of_another_type_is_not_replaced(azure: AzureRig, store: Store) -> None:
    blocks = azure.open(blob_type="block")
    same = open_store(blocks.url, azure.server.settings)
    blocks.put(KEY, b"blocks")
    error = error_of(lambda: same.open_parts(KEY))
    assert (error.kind, "Delete it" in error.hint) == ("conflict", True)
    assert blocks.get(KEY) == b"blocks"


def test_conditions_hold_for_small_ones_too(store: Store) -> None:
    first = store.put(KEY, SOME[:512], if_absent=True)
    assert error_of(lambda: store.put(KEY, SOME[512:1024], if_absent=True)).kind == "conflict"
    second = store.put(KEY, SOME[512:1024], if_match=first.etag)
    assert error_of(lambda: store.put(KEY, SOME[:512], if_match=first.etag)).kind == "conflict"
    assert store.stat(KEY) == second
    assert store.get(KEY) == SOME[512:1024]


@pytest.mark.parametrize(
    ("blob_type", "key", "kind"),
    [
        ("auto", "a.vhd", "PageBlob"),
        ("auto", "a.vhdx", "BlockBlob"),
        ("block", "a.vhd", "BlockBlob"),
        ("page", "a.img", "PageBlob"),
    ],
)
def test_the_type_is_the_one_that_was_asked_for(azure: AzureRig, blob_type: str, key: str, kind: str) -> None:
    store = azure.open(blob_type=blob_type)
    store.put(f"put/{key}", SOME[:1024])
    write(store, key)
    found = [properties(azure, store, each).blob_type.value for each in (key, f"put/{key}")]
    assert found == [kind, kind]


def test_what_is_still_being_copied_is_no_object_yet(store: Store, proxy: FaultProxy) -> None:
    write(store)
    pending = {"x-ms-blob-type": "PageBlob", "x-ms-copy-id": "1", "Last-Modified": "Mon, 23 Nov 2026 00:00:00 GMT"}
    for status in ("pending", "failed", "aborted"):
        proxy.fail_next(Fault(method="HEAD", answer=200, headers={**pending, "x-ms-copy-status": status}))
        assert store.stat(KEY) is None
    assert store.stat(KEY) is not None


def test_a_copy_that_azure_makes_by_and_by_is_waited_for(
    azure: AzureRig, store: Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_page_copy, "_PAUSE", 0.0)
    told: list[str] = []

    class Started(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            told.append(name)
            return "pending" if name == "copy_status" else super().__getitem__(name)

    from azure.storage.blob import BlobClient

    begin = BlobClient.start_copy_from_url
    monkeypatch.setattr(
        BlobClient, "start_copy_from_url", lambda self, *what, **how: Started(begin(self, *what, **how))
    )
    write(store)
    assert "copy_id" in told
    assert store.get(KEY) == DISK


def test_a_page_blob_is_copied_by_azure_with_its_holes(azure: AzureRig, store: Store, proxy: FaultProxy) -> None:
    write(store)
    info = store.stat(KEY)
    assert info is not None
    other, moved = azure.open(endpoint_url=azure.endpoint_url), []
    proxy.requests.clear()
    copied = other.copy_within(store, CopyOrder(info, "copy.vhd", {"of": "web"}, moved.append))
    assert copied == other.stat("copy.vhd")
    assert copied is not None
    assert (copied.metadata, moved) == ({"of": "web"}, [len(DISK)])
    assert sum(request.length for request in proxy.requests) < 10_000
    assert other.get("copy.vhd") == DISK
    assert list(other.extents("copy.vhd", len(DISK))) == list(store.extents(KEY, len(DISK)))
    assert other.copy_within(store, CopyOrder(info, "copy.img", {})) is None, "of another type, by way of this host"
    store.put(KEY, bytes(512))
    assert error_of(lambda: other.copy_within(store, CopyOrder(info, "copy.vhd", {}))).kind == "conflict"


def test_vhds_go_up_and_down_without_their_zeros(azure: AzureRig, proxy: FaultProxy, tmp_path: Path) -> None:
    settings = {**azure.server.settings, "endpoint_url": azure.endpoint_url}
    target = StoreSpec(f"azblob://{azure.container}/{tmp_path.name.replace('_', '-')}", settings)
    transfer = TransferOptions(state_dir=str(tmp_path / "state"), max_retries=0)
    source = tmp_path / "web.vhd"
    source.write_bytes(DISK)
    (row,) = upload_files(UploadRequest(target, (str(source),), transfer=transfer), False)["files"]
    assert row["checksum"] == sha256(DISK).hexdigest()
    assert not upload_files(UploadRequest(target, (str(source),), transfer=transfer), False)["changed"]
    copy = replace(target, url=f"{target.url}-copy")
    (copied,) = copy_objects(CopyRequest(target, copy, key="web.vhd", transfer=transfer), False)["objects"]
    assert copied["by_server"]
    proxy.requests.clear()
    there = tmp_path / "there" / "web.vhd"
    there.parent.mkdir()
    done = download_object(DownloadRequest(ObjectSpec(copy, "web.vhd"), dest=str(there), transfer=transfer), False)
    assert done["changed"]
    assert there.read_bytes() == DISK
    assert sum(length_asked(request.headers) for request in proxy.requests if is_read(request)) < 2 * MIB
    assert there.stat().st_blocks * 512 < 2 * MIB


def is_read(request: Request) -> bool:
    return request.method == "GET" and "comp=" not in request.target


def length_asked(headers: Any) -> int:
    first, _dash, last = headers.get("x-ms-range", "bytes=0-0").partition("=")[2].partition("-")
    return int(last) - int(first) + 1
