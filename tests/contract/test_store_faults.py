# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every store, while many a call or request goes wrong: what was asked for is done, once, and nothing is left."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Part, PartReceipt
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.download_object import download_object
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.storage_requests import (
    DownloadRequest,
    ObjectSpec,
    UploadRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.upload_files import upload_files
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.partial_file import PartialFile
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from rigs.fault_proxy import Fault, FaultProxy

from .chains import Guest, export
from .faulty_store import TROUBLES, Trouble, faulty
from .objects_rig import opened
from .patience import Patience
from .store_rigs import MIB, RIGS, StoreRig

PART = 5 * MIB
DATA = Random(9).randbytes(PART + 100_000)
PARTS = (Part(1, 0, PART), Part(2, PART, 100_000))
OVER_HTTP = [each.name for each in RIGS if "proxy" in each.__init__.__annotations__]
BUCKETS = ["s3", "azure", "gcs"]  # the other servers end the connection, or find nothing to move any more
FOLDERS = ["filesystem", "nfs"]
TIMEOUT = 1.0  # seconds; a busy machine answers within that
FAULTS = {
    "error": Fault(answer=503),
    "reset": Fault(reset_after=50),
    "lost answer": Fault(lose_answer=True),
    "answer cut short": Fault(answer_bytes=20),
    "too late": Fault(delay=1.5 * TIMEOUT),
}


def exercise(store: Store, conditional: bool) -> None:
    """All that a store is asked for."""
    claim = store.put("vm/1/intent.json", b"{}", if_absent=conditional)
    writer = store.open_parts("vm/1/disk-0.qcow2")
    receipts = []
    for part in reversed(PARTS):
        data = memoryview(DATA)[part.offset : part.offset + part.size]
        leaves = b"".join(sha256(data[at : at + LEAF]).digest() for at in range(0, part.size, LEAF))
        receipts.append(PartReceipt(part, sha256(leaves).digest(), writer.write_part(part, data)))
    assert store.stat("vm/1/disk-0.qcow2") is None
    info = writer.complete(receipts[::-1], len(DATA))
    assert (info.size, store.stat("vm/1/disk-0.qcow2")) == (len(DATA), info)
    buffer = bytearray(200_000)
    store.read_into("vm/1/disk-0.qcow2", PART - 100_000, memoryview(buffer))
    assert buffer == DATA[PART - 100_000 :]
    assert store.get("vm/1/disk-0.qcow2") == DATA
    assert store.get("vm/1/intent.json") == b"{}"
    assert [info.key for info in store.list("vm/")] == ["vm/1/disk-0.qcow2", "vm/1/intent.json"]
    assert list(store.list_folders("")) == ["vm"]
    store.delete("vm/1/intent.json", if_match=claim.etag if conditional else None)
    given_up = store.open_parts("vm/1/other")
    given_up.write_part(Part(1, 0, 100_000), memoryview(DATA)[:100_000])
    given_up.abort()
    store.abort_uploads("vm/")
    store.delete("vm/1/disk-0.qcow2")
    assert list(store.list("")) == []


@pytest.mark.parametrize("rig", [each.name for each in RIGS if each.name != "wrapped"], indirect=True)
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_store_does_what_it_is_asked_while_calls_of_it_go_wrong(rig: StoreRig, trouble: Trouble) -> None:
    bare = rig.fresh()
    conditional = rig.declared.conditional_put and trouble != "twice"  # whoever asks twice is told that it is there
    store, troubles = faulty(bare, trouble)
    exercise(RetryingStore(store, Patience()), conditional)
    assert len(set(troubles.hit)) > 3
    assert [name for name in rig.leftovers(bare) if name not in ("vm", "vm/1")] == []


def through_proxy(rig: Any, **settings: Any) -> StoreSpec:
    """As a task names it; the proxy is as new."""
    proxy: FaultProxy = rig.proxy
    proxy.reset()
    url, own = rig.fresh().url, rig.server.settings
    if rig.name.endswith("_dav"):
        return StoreSpec(f"{proxy.endpoint_url}/{url.rpartition('/')[2]}", {**own, **settings})
    endpoint = rig.endpoint_url if rig.name == "azure" else proxy.endpoint_url
    return StoreSpec(url, {**own, "endpoint_url": endpoint, **settings})


@pytest.mark.parametrize("rig", OVER_HTTP, indirect=True)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_does_what_it_is_asked_while_requests_go_wrong(rig: Any, fault: str) -> None:
    late = fault == "too late"
    spec = through_proxy(rig, **({"read_timeout": TIMEOUT} if late else {}))
    bare = open_store(spec.url, spec.settings)
    rig.proxy.fail_some(0.06 if late else 0.2, FAULTS[fault])
    # A lock whose answer was lost holds for half a minute, which this patience does not have.
    conditional = rig.declared.conditional_put and not rig.name.endswith("_dav")
    exercise(RetryingStore(bare, Patience(30)), conditional)
    rig.proxy.reset()
    bare.abort_uploads("")  # of what could not be removed
    assert [name for name in rig.leftovers(bare) if name not in ("vm", "vm/1")] == []


@pytest.mark.parametrize("rig", BUCKETS, indirect=True)
def test_a_request_that_reaches_a_server_twice_does_what_it_was_to_do_once(rig: Any) -> None:
    """The answer is the second one: that there is no such upload any more, for instance."""
    spec = through_proxy(rig)
    bare = open_store(spec.url, spec.settings)
    rig.proxy.fail_some(0.5, Fault(twice=True))
    exercise(RetryingStore(bare, Patience()), conditional=False)
    rig.proxy.reset()
    assert rig.leftovers(bare) == []


@pytest.fixture
def transfer(tmp_path: Path) -> TransferOptions:
    return TransferOptions(state_dir=str(tmp_path / "state"), max_retries=0, parallel=2)


def sent(spec: StoreSpec, transfer: TransferOptions, folder: Path, size: int) -> Any:
    source = folder / "disk.img"
    source.write_bytes(DATA[:size])
    request = UploadRequest(spec, (str(source),), metadata={"of": "web"}, transfer=transfer, resume_window=0)
    return upload_files(request, False)


@pytest.mark.parametrize("rig", OVER_HTTP, indirect=True)
@pytest.mark.parametrize("size", [len(DATA), 200_000])
def test_a_byte_that_changes_on_its_way_to_the_store_is_noticed_and_is_no_object(
    rig: Any, transfer: TransferOptions, tmp_path: Path, size: int
) -> None:
    spec = through_proxy(rig)
    rig.proxy.fail_next(Fault(length=100_000, flip_sent=90_000))
    with pytest.raises(VmferryError) as raised:
        sent(spec, transfer, tmp_path, size)
    assert raised.value.kind == "checksum_mismatch", raised.value
    rig.proxy.reset()
    with opened(spec) as store:
        assert store.stat("disk.img") is None
    assert sent(spec, transfer, tmp_path, size)["changed"]
    with opened(spec) as store:
        assert store.get("disk.img") == DATA[:size]


@pytest.mark.parametrize("rig", OVER_HTTP, indirect=True)
def test_a_byte_that_changes_on_its_way_from_the_store_is_noticed_and_is_in_no_file(
    rig: Any, transfer: TransferOptions, tmp_path: Path
) -> None:
    spec = through_proxy(rig)
    sent(spec, transfer, tmp_path, len(DATA))
    there = tmp_path / "there"
    request = DownloadRequest(ObjectSpec(spec, "disk.img"), str(there), transfer=transfer, resume_window=0)
    rig.proxy.fail_always(Fault(method="GET", path="disk.img", flip_answered=90_000))
    with pytest.raises(VmferryError) as raised:
        download_object(request, False)
    assert raised.value.kind == "checksum_mismatch", raised.value
    assert not there.exists()
    rig.proxy.reset()
    assert download_object(request, False)["verified"]
    assert there.read_bytes() == DATA


@pytest.mark.parametrize("rig", FOLDERS, indirect=True)
def test_a_byte_that_changes_in_a_folder_is_noticed_and_is_in_no_file(
    rig: StoreRig, transfer: TransferOptions, tmp_path: Path
) -> None:
    spec = StoreSpec(rig.fresh().url)
    sent(spec, transfer, tmp_path, len(DATA))
    with opened(spec) as store, Path(store.location("disk.img")).open("r+b") as file:
        file.seek(90_000)
        file.write(bytes([DATA[90_000] ^ 1]))
    there, digest = tmp_path / "there", sha256(DATA).hexdigest()
    request = DownloadRequest(ObjectSpec(spec, "disk.img"), str(there), digest, transfer=transfer)
    with pytest.raises(VmferryError) as raised:
        download_object(request, False)
    assert raised.value.kind == "checksum_mismatch", raised.value
    assert not there.exists()


@pytest.mark.parametrize("rig", FOLDERS, indirect=True)
@pytest.mark.parametrize("verify", ["none", "stored", "content"])
def test_a_byte_that_changes_on_its_way_into_a_folder_is_found_by_what_reads_it(
    rig: StoreRig, verify: str, transfer: TransferOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder has no checksums to refuse it by. An export reads a sample of its parts again, or all that it is of."""
    spec, write, flipped = StoreSpec(rig.fresh().url), PartialFile.write, []

    def flip(file: PartialFile, offset: int, data: memoryview) -> None:
        if len(data) >= LEAF and not flipped:
            flipped.append(offset)
            data = memoryview(bytes([*data[:-1], data[-1] ^ 1]))
        write(file, offset, data)

    with monkeypatch.context() as patched:
        patched.setattr(PartialFile, "write", flip)
        if verify == "none":
            assert export(spec, Guest(), tmp_path / "state", verify=verify)["changed"]
        else:
            with pytest.raises(VmferryError) as raised:
                export(spec, Guest(), tmp_path / "state", verify=verify, on_failure="undo")
            assert raised.value.kind == "checksum_mismatch", raised.value
    assert flipped
    with opened(spec) as store:
        assert [info.key for info in store.list("") if verify != "none"] == []
    if verify == "none":
        for level in ("stored", "content"):
            asked = VerifyRequest(spec, level, transfer=transfer)  # type: ignore[arg-type]
            with pytest.raises(VmferryError) as raised:
                verify_export(asked, False)
            assert raised.value.kind == "checksum_mismatch", raised.value
