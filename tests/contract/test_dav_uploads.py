# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files to an HTTP store and back: in parts that the next run can use, or in one stream."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.storage_requests import UploadRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.objects import move_object
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.objects.move_object import SMALL
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.upload_files import upload_files
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import move_bytes
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digest_bytes import digest_of
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.object_journal import ObjectJournal
from rigs.fault_proxy import Fault

from .dav_rig import NginxDavRig

MIB = 1024 * 1024
SIZE = 10 * MIB + 12345


@cache
def content() -> bytes:
    return Random(5).randbytes(SIZE)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move_bytes, "PART", MIB)


def asked(rig: NginxDavRig, store: Store, source: Path, window: float | None) -> UploadRequest:
    transfer = TransferOptions(state_dir=str(source.parent / "state"), max_retries=0, parallel=3)
    spec = StoreSpec(store.url, dict(rig.server.settings))
    return UploadRequest(spec, (str(source),), resume_window=window, transfer=transfer)


@pytest.mark.parametrize("rig", ["nginx_dav", "rclone_dav"], indirect=True)
@pytest.mark.parametrize("size", [SIZE, 1000, 0])
@pytest.mark.parametrize(
    ("window", "times", "how"),
    [(None, 1, "stream"), (0.0, 1, "stream"), (3600.0, 2, "joined_parts")],
    ids=["by_default", "stream", "parts"],
)
def test_a_file_arrives_whole(
    rig: NginxDavRig, tmp_path: Path, size: int, window: float | None, times: int, how: str
) -> None:
    store = rig.open(url=rig.proxy.endpoint_url)
    source = tmp_path / "debian.iso"
    source.write_bytes(content()[:size])
    rig.proxy.reset()
    (row,) = upload_files(asked(rig, store, source, window), False)["files"]
    assert row["sent_as"] == (how if size > SMALL else "")
    sent = sum(one.length for one in rig.proxy.requests if one.method == "PUT" and "debian.iso" in one.target)
    assert sent == size * (times if size > MIB else 1)
    assert store.get("debian.iso") == content()[:size]
    assert rig.leftovers(store) == ["debian.iso"]


def test_a_stream_that_breaks_leaves_nothing_and_ends_every_worker(nginx_dav: NginxDavRig, tmp_path: Path) -> None:
    store = nginx_dav.open(url=nginx_dav.proxy.endpoint_url)
    source = tmp_path / "debian.iso"
    source.write_bytes(content())
    nginx_dav.proxy.reset()
    nginx_dav.proxy.fail_next(Fault(reset_after=3 * MIB, method="PUT", path="debian.iso"))
    with pytest.raises(VmferryError) as raised:
        upload_files(asked(nginx_dav, store, source, 0.0), False)
    assert raised.value.kind == "network"
    assert nginx_dav.leftovers(store) == []


@pytest.mark.parametrize("window", [0.0, 3600.0], ids=["stream", "parts"])
def test_a_move_that_is_not_carried_out_leaves_what_was_there(
    nginx_dav: NginxDavRig, tmp_path: Path, window: float
) -> None:
    store = nginx_dav.open(url=nginx_dav.proxy.endpoint_url)
    store.put("debian.iso", b"of the year before")
    source = tmp_path / "debian.iso"
    source.write_bytes(content())
    nginx_dav.proxy.reset()
    nginx_dav.proxy.fail_always(Fault(answer=500, method="MOVE", path="debian.iso"))
    with pytest.raises(VmferryError) as raised:
        upload_files(replace(asked(nginx_dav, store, source, window), overwrite="always"), False)
    assert raised.value.kind == "network"
    nginx_dav.proxy.reset()
    assert store.get("debian.iso") == b"of the year before"


def test_an_object_that_another_put_there_while_it_was_read_back_stays(
    rclone_dav: NginxDavRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a server that has no locks, and so keeps no condition."""
    rclone_dav.proxy.reset()
    store = rclone_dav.open(url=rclone_dav.proxy.endpoint_url)
    rclone_dav.proxy.fail_always(Fault(method="OPTIONS", answer=200, headers={"DAV": "1"}))
    source = tmp_path / "debian.iso"
    source.write_bytes(content())
    read: list[Any] = []

    def meanwhile(*what: Any) -> str:
        read.append(what)
        store.put("debian.iso", b"another's, whole and good")
        return digest_of(*what)

    monkeypatch.setattr(move_object, "digest_of", meanwhile)
    with pytest.raises(VmferryError):
        upload_files(replace(asked(rclone_dav, store, source, 0.0), read_back=True), False)
    rclone_dav.proxy.reset()
    assert read
    assert store.read_whole("debian.iso", 100) == b"another's, whole and good"


@pytest.mark.parametrize("rig", ["nginx_dav", "rclone_dav"], indirect=True)
@pytest.mark.parametrize("then", ["stays", "another", "the end of it is another"])
def test_a_file_that_was_in_place_when_its_run_was_killed_is_known_again(
    rig: NginxDavRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """By what it holds: one of the same size that came there since is replaced."""
    store = rig.open(url=rig.proxy.endpoint_url)
    source = tmp_path / "debian.iso"
    source.write_bytes(content())
    rig.proxy.reset()
    request = replace(asked(rig, store, source, 3600.0), overwrite="always")
    with monkeypatch.context() as patched:
        patched.setattr(ObjectJournal, "forget", lambda self: None)  # as if it had been killed right before
        upload_files(request, False)
    if then != "stays":
        store.put("debian.iso", content()[::-1] if then == "another" else content()[:-1] + bytes([content()[-1] ^ 1]))
    (row,) = upload_files(request, False)["files"]
    assert row["bytes_kept"] == (len(content()) if then == "stays" else 0)
    assert store.get("debian.iso") == content()
    assert rig.leftovers(store) == ["debian.iso"]
