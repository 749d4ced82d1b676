# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that a WebDAV server or a file system copies by itself: what was looked at, whole, or not at all."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.dav import copy as dav_copy
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem import copy as filesystem_copy
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.mounts import Mount
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.limited import LimitedStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.server_copy import CopyOrder
from rigs.fault_proxy import Fault, FaultProxy
from rigs.mounting import mounted_xfs

from .patience import Meter, Patience
from .store_rigs import MIB, NginxDavRig

DATA = random.Random(5).randbytes(2 * MIB + 5)
SOURCE = "vm/a b#1"
each_server = pytest.mark.parametrize("rig", ["nginx_dav", "rclone_dav"], indirect=True)


@pytest.fixture
def proxy(rig: NginxDavRig) -> FaultProxy:
    rig.proxy.reset()
    return rig.proxy


def opened(rig: NginxDavRig, **settings: Any) -> Store:
    return rig.open(url=rig.proxy.endpoint_url, **settings)


def filled(store: Store) -> Any:
    store.put(SOURCE, DATA)
    info = store.stat(SOURCE)
    assert info is not None
    return info


@each_server
def test_a_server_copies_a_file_and_no_byte_of_it_passes_this_host(rig: NginxDavRig, proxy: FaultProxy) -> None:
    source, target, counts = opened(rig), opened(rig), []
    info = filled(source)
    proxy.requests.clear()
    copied = target.copy_within(source, CopyOrder(info, "other folder/ü", {}, counts.append))
    assert copied is not None
    assert (copied, counts) == (target.stat("other folder/ü"), [len(DATA)])
    asked = [request.method for request in proxy.requests]
    assert (asked.count("COPY"), asked.count("PUT"), asked.count("GET")) == (1, 0, 0)
    assert target.get("other folder/ü") == DATA
    assert rig.leftovers(target)[-1] == "other folder/ü"


@each_server
@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_an_answer_of_the_server_that_is_lost_is_asked_for_again(
    rig: NginxDavRig, proxy: FaultProxy, method: str
) -> None:
    patience = Patience()
    source, target = opened(rig), RetryingStore(opened(rig), patience)
    info = filled(source)
    target.put("vm/b", b"old")
    proxy.fail_next(Fault(method=method, lose_answer=True), Fault(method=method, answer=503))
    assert target.copy_within(source, CopyOrder(info, "vm/b", {})) is not None
    assert target.get("vm/b") == DATA
    assert "network" in [error.kind for error in patience.errors]
    assert [name for name in rig.leftovers(target) if name != "vm"] == ["vm/b"]


@each_server
def test_a_file_that_changes_while_the_server_copies_it_is_not_copied(rig: NginxDavRig, proxy: FaultProxy) -> None:
    source, target = opened(rig), opened(rig)
    info = filled(source)
    target.put("vm/b", b"old")
    copy = dav_copy._copied

    def changed(*what: Any) -> bool:
        done = copy(*what)
        source.put(SOURCE, DATA[::-1] + b"!")
        return done

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dav_copy, "_copied", changed)
        error = error_of(lambda: target.copy_within(source, CopyOrder(info, "vm/b", {})))
    assert error.kind == "conflict"
    assert error_of(lambda: target.copy_within(source, CopyOrder(info, "vm/b", {}))).kind == "conflict"
    assert target.get("vm/b") == b"old"
    assert [name for name in rig.leftovers(target) if name != "vm"] == ["vm/b"]


@pytest.mark.parametrize("rig", ["nginx_dav"], indirect=True)
def test_a_copy_of_another_length_is_refused_and_removed(rig: NginxDavRig, proxy: FaultProxy) -> None:
    source, target = opened(rig), opened(rig)
    info = filled(source)
    copy = dav_copy._copied

    def short(one: Any, about: Any, two: Any, hidden: str) -> bool:
        done = copy(one, about, two, hidden)
        os.truncate(rig.folder(target) / hidden, len(DATA) - 1)
        return done

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dav_copy, "_copied", short)
        assert error_of(lambda: target.copy_within(source, CopyOrder(info, "b", {}))).kind == "checksum_mismatch"
    assert rig.leftovers(target) == []


@pytest.mark.parametrize("rig", ["nginx_dav"], indirect=True)
@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_server_that_does_not_copy_leaves_it_to_this_host(rig: NginxDavRig, proxy: FaultProxy, status: int) -> None:
    source, target = opened(rig), opened(rig)
    info = filled(source)
    proxy.fail_next(Fault(method="COPY", answer=status))
    assert target.copy_within(source, CopyOrder(info, "vm/b", {})) is None
    assert [name for name in rig.leftovers(target) if name != "vm"] == []
    elsewhere = open_store("http://127.0.0.1:9/exports", {})
    assert elsewhere.copy_within(source, CopyOrder(info, "vm/b", {})) is None


@pytest.mark.parametrize("rig", ["nginx_dav"], indirect=True)
@pytest.mark.parametrize("grows", [True, False])
def test_a_server_that_says_nothing_is_waited_for_while_the_copy_grows(
    rig: NginxDavRig, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, grows: bool
) -> None:
    monkeypatch.setattr(dav_copy, "_LOOK", 0.05)
    source, target = opened(rig), opened(rig, read_timeout=1.0)
    info = filled(source)
    looks: list[int] = []
    head = type(target.__dict__["_folder"]).head

    def growing(self: Any, key: str) -> Any:
        found = head(self, key)
        if not key.endswith(".part"):
            return found
        looks.append(1)
        hidden = rig.folder(target) / key
        if len(looks) == 1:
            hidden.write_bytes(DATA[:MIB])
        elif grows:
            hidden.write_bytes(DATA)
        return head(self, key)

    monkeypatch.setattr(type(target.__dict__["_folder"]), "head", growing)
    proxy.fail_next(Fault(method="COPY", delay=2, answer=500))
    copied = target.copy_within(source, CopyOrder(info, "b", {}))
    monkeypatch.undo()
    assert (copied is not None) is grows
    assert rig.leftovers(target) == (["b"] if grows else [])


@pytest.mark.parametrize("rig", ["nginx_dav"], indirect=True)
def test_a_server_that_says_nothing_of_a_file_that_has_its_length_at_once_is_not_relied_on(
    rig: NginxDavRig, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have made room before it copies."""
    source, target = opened(rig), opened(rig, read_timeout=1.0)
    info = filled(source)
    head = type(target.__dict__["_folder"]).head

    def preallocated(self: Any, key: str) -> Any:
        if key.endswith(".part"):
            (rig.folder(target) / key).write_bytes(DATA[:MIB].ljust(len(DATA), b"\0"))
        return head(self, key)

    monkeypatch.setattr(type(target.__dict__["_folder"]), "head", preallocated)
    proxy.fail_next(Fault(method="COPY", delay=2, answer=500))
    assert target.copy_within(source, CopyOrder(info, "b", {})) is None
    monkeypatch.undo()
    assert rig.leftovers(target) == []


@pytest.mark.parametrize("rig", ["nginx_dav"], indirect=True)
def test_what_a_server_keeps_of_the_source_is_not_taken_for_what_is_to_be_noted(
    rig: NginxDavRig, proxy: FaultProxy
) -> None:
    source, target = opened(rig), opened(rig)
    info = filled(source)
    told = {"Content-Length": str(len(DATA)), "X-Metadata-Of": "the source", "ETag": '"1"'}
    proxy.fail_next(Fault(method="HEAD", path=".part", answer=200, headers=told))
    assert target.copy_within(source, CopyOrder(info, "b", {"of": "another"})) is None
    assert rig.leftovers(target) == []


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("xfs")
    (folder / "mounted").mkdir()
    with mounted_xfs(folder / "mounted", folder / "image"):
        yield folder / "mounted"


def error_of(function: Callable[[], object]) -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        function()
    return raised.value


def sparse(root: Path) -> tuple[Store, Any]:
    """A store with a file of which much is a hole."""
    store = open_store(root.as_uri(), {})
    writer = store.open_parts(SOURCE)
    writer.write_at(8 * MIB, memoryview(DATA))
    info = writer.complete([], 16 * MIB)
    return store, info


def used(store: Store, key: str) -> int:
    return Path(store.location(key)).stat().st_blocks * 512


def test_a_file_system_that_shares_blocks_copies_without_moving_a_byte(xfs: Path) -> None:
    (xfs / "one").mkdir()
    source, info = sparse(xfs / "one")
    target, counts = open_store((xfs / "two").as_uri(), {"mode": 0o640}), []
    free = os.statvfs(xfs).f_bfree
    copied = target.copy_within(source, CopyOrder(info, "vm/b", {}, counts.append))
    assert copied is not None
    assert (copied, counts) == (target.stat("vm/b"), [16 * MIB])
    assert free - os.statvfs(xfs).f_bfree < MIB // os.statvfs(xfs).f_bsize
    assert target.get("vm/b") == bytes(8 * MIB) + DATA + bytes(8 * MIB - len(DATA))
    assert used(target, "vm/b") < 4 * MIB
    assert Path(target.location("vm/b")).stat().st_mode & 0o777 == 0o640
    assert [path.name for path in (xfs / "two" / "vm").iterdir()] == ["b"]


def test_a_file_server_copies_the_data_and_what_moves_waits_for_the_limiter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system here does the same, if not on a server."""
    monkeypatch.setattr(filesystem_copy, "copies_by_itself", lambda mount: True)
    (tmp_path / "one").mkdir()
    source, info = sparse(tmp_path / "one")
    meter = Meter()
    target = LimitedStore(open_store((tmp_path / "two").as_uri(), {}), meter)
    copied = target.copy_within(source, CopyOrder(info, "vm/b", {}))
    assert copied is not None
    assert target.get("vm/b") == bytes(8 * MIB) + DATA + bytes(8 * MIB - len(DATA))
    assert used(target, "vm/b") < 4 * MIB
    assert len(DATA) <= meter.taken - 16 * MIB < len(DATA) + 2 * 65536, "beside what was read to compare"


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_does_not_copy_leaves_it_to_this_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "one").mkdir()
    source, info = sparse(tmp_path / "one")
    target = open_store((tmp_path / "two").as_uri(), {})
    assert target.copy_within(source, CopyOrder(info, "vm/b", {})) is None, "ext4 and tmpfs share no blocks"
    monkeypatch.setattr(filesystem_copy, "copies_by_itself", lambda mount: True)

    def refuses(*_what: Any) -> int:
        raise OSError(code, "no")

    monkeypatch.setattr(os, "copy_file_range", refuses)
    assert target.copy_within(source, CopyOrder(info, "vm/b", {})) is None
    assert list((tmp_path / "two").rglob("*")) == []


def test_a_file_that_changes_while_it_is_copied_is_not_copied(xfs: Path) -> None:
    (xfs / "three").mkdir()
    source, info = sparse(xfs / "three")
    path = Path(source.location(SOURCE))

    def change(_count: int, _mode: Any = None) -> None:
        path.write_bytes(b"other")

    target = open_store((xfs / "four").as_uri(), {})
    shares = filesystem_copy.shares_blocks

    def changing(one: int, two: int) -> bool:
        change(0)
        return shares(one, two)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(filesystem_copy, "shares_blocks", changing)
        assert error_of(lambda: target.copy_within(source, CopyOrder(info, "b", {}))).kind == "conflict"
    assert error_of(lambda: target.copy_within(source, CopyOrder(info, "b", {}))).kind == "conflict"
    assert list((xfs / "four").rglob("*")) == []


@pytest.mark.parametrize(
    ("fstype", "option", "told"),
    [
        ("nfs4", "vers=4.2", True),
        ("nfs4", "vers=4.1", False),
        ("nfs", "vers=3", False),
        ("cifs", "vers=3.1.1", True),
        ("ext4", "rw", False),
    ],
)
def test_which_file_servers_copy(fstype: str, option: str, told: bool) -> None:
    mount = Mount("/mnt", fstype, "server:/export", "/", frozenset({"rw", option}))
    assert filesystem_copy.copies_by_itself(mount) is told
