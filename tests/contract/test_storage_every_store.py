# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tasks do with files and objects, they do with every store."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

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
    LookRequest,
    ObjectSpec,
    RemoveRequest,
    UploadRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.look_at_objects import look_at_objects
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.objects.byte_sources import LocalFile
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.remove_object import remove_object
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.upload_files import upload_files
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingParts
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import move_bytes

from .objects_rig import opened
from .store_rigs import RIGS, StoreRig

MIB = 1024 * 1024
DATA = Random(8).randbytes(10 * MIB + 12345)
SMALL = DATA[:1000]
NOTED = {"os": "debian ä", "built-by": "me"}
each_store = pytest.mark.parametrize("rig", [one.name for one in RIGS if one.name != "wrapped"], indirect=True)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move_bytes, "PART", MIB)  # a bucket asks for 5 MiB all the same


@pytest.fixture
def store(rig: StoreRig) -> StoreSpec:
    """As a task names it."""
    server = vars(rig).get("server")  # a folder has no settings to reach it by
    return StoreSpec(rig.fresh().url, {} if server is None else server.settings)


@pytest.fixture
def transfer(tmp_path: Path) -> TransferOptions:
    return TransferOptions(state_dir=str(tmp_path / "state"), max_retries=0, parallel=2)


def folder(tmp_path: Path) -> Path:
    found = tmp_path / "from"
    (found / "ä b").mkdir(parents=True)
    (found / "large.img").write_bytes(DATA)
    (found / "ä b" / "small+.txt").write_bytes(SMALL)
    return found


@each_store
def test_files_go_there_and_come_back(store: StoreSpec, transfer: TransferOptions, tmp_path: Path) -> None:
    request = UploadRequest(store, (str(folder(tmp_path)),), metadata=NOTED, transfer=transfer)
    assert [row["outcome"] for row in upload_files(request, False)["files"]] == ["sent", "sent"]
    again = upload_files(request, False)
    assert ([row["outcome"] for row in again["files"]], again["changed"]) == (["unchanged", "unchanged"], False)
    for key, data in (("large.img", DATA), ("ä b/small+.txt", SMALL)):
        (found,) = look_at_objects(LookRequest(store, key=key))["objects"]
        digest = sha256(data).hexdigest()
        assert (found["size"], found["checksum"], found["metadata"]) == (len(data), digest, NOTED)
        dest = tmp_path / "back"
        done = download_object(DownloadRequest(ObjectSpec(store, key), str(dest), transfer=transfer), False)
        assert (dest.read_bytes(), done["checksum"], done["verified"]) == (data, digest, True)
    listed = look_at_objects(LookRequest(store, prefix="ä"))["objects"]
    assert "ä b/small+.txt" in [one["key"] for one in listed]


@each_store
def test_a_file_is_read_ahead_only_where_its_checksum_cannot_be_noted_last(
    store: StoreSpec, transfer: TransferOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, read = folder(tmp_path) / "large.img", [0]
    read_into = LocalFile.read_into

    def counted(self: LocalFile, offset: int, buffer: memoryview) -> None:
        read[0] += len(buffer)
        read_into(self, offset, buffer)

    monkeypatch.setattr(LocalFile, "read_into", counted)
    upload_files(UploadRequest(store, (str(src),), transfer=transfer), False)
    assert read[0] == len(DATA) * (2 if store.url.startswith("s3:") else 1)


@each_store
def test_objects_are_copied_and_removed(store: StoreSpec, transfer: TransferOptions, tmp_path: Path) -> None:
    upload_files(UploadRequest(store, (str(folder(tmp_path)),), metadata=NOTED, transfer=transfer), False)
    there = StoreSpec(f"{store.url}-copy", store.settings)
    elsewhere = StoreSpec((tmp_path / "elsewhere").as_uri())
    for source, to in ((store, there), (there, elsewhere), (elsewhere, store)):
        request = CopyRequest(source, to, prefix="", transfer=transfer, overwrite="always")
        assert copy_objects(request, False)["changed"]
        assert not copy_objects(CopyRequest(source, to, prefix="", transfer=transfer), False)["changed"]
        with opened(to) as copies:
            assert (copies.get("large.img"), copies.get("ä b/small+.txt")) == (DATA, SMALL)
        (found,) = look_at_objects(LookRequest(to, key="large.img"))["objects"]
        assert (found["checksum"], found["metadata"]) == (sha256(DATA).hexdigest(), NOTED)
    for spec in (store, there, elsewhere):
        for key in ("large.img", "ä b/small+.txt"):
            (found,) = look_at_objects(LookRequest(spec, key=key))["objects"]
            assert remove_object(RemoveRequest(ObjectSpec(spec, key), found["etag"]), False)["changed"]
        with opened(spec) as left:
            assert list(left.list("")) == []


@each_store
def test_an_upload_that_failed_is_gone_on_with(
    store: StoreSpec, transfer: TransferOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = folder(tmp_path) / "large.img"
    request = UploadRequest(store, (str(src),), transfer=transfer, resume_window=3600.0)
    sent: list[Any] = []
    write_part, write_at = RetryingParts.write_part, RetryingParts.write_at

    def cut(write: Any) -> Any:
        def failing(self: RetryingParts, *what: Any) -> Any:
            sent.append(what)
            if len(sent) > 2:
                raise VmferryError("network", "The network is gone.")
            return write(self, *what)

        return failing

    with monkeypatch.context() as patched:
        patched.setattr(RetryingParts, "write_part", cut(write_part))
        patched.setattr(RetryingParts, "write_at", cut(write_at))
        with pytest.raises(VmferryError, match="gone"):
            upload_files(request, False)
    (row,) = upload_files(request, False)["files"]
    assert row["bytes_kept"] >= MIB
    with opened(store) as found:
        assert found.get("large.img") == DATA
        assert [info.key for info in found.list("")] == ["large.img"]
        assert found.abort_uploads("", lambda info: True) == 0
