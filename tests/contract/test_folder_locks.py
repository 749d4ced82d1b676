# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conditions hold among all who write to a folder, or the store says that they do not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem import roots
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.locks import LOCK
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.mounts import Mount, mount_of
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .nfs_rig import NfsRig
from .store_rigs import StoreRig

ON = pytest.mark.parametrize("rig", ["filesystem", "nfs"], indirect=True)
# Its own handle of the lock's file, held until somebody ends it.
HOLD = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@ON
def test_of_many_who_replace_what_they_read_nobody_overwrites_another(rig: StoreRig) -> None:
    store = rig.fresh()
    store.put("vm/count", b"0")
    barrier = threading.Barrier(4)

    def count(_unused: int) -> int:
        barrier.wait()
        done = 0
        for _unused in range(8):
            found = store.stat("vm/count")
            assert found is not None
            number = int(store.get("vm/count"))
            try:
                store.put("vm/count", b"%d" % (number + 1), if_match=found.etag)
                done += 1
            except VmferryError as error:
                if error.kind != "conflict":
                    raise
        return done

    with ThreadPoolExecutor(4) as pool:
        done = sum(pool.map(count, range(4)))
    assert int(store.get("vm/count")) == done
    assert done > 0
    assert rig.leftovers(store) == ["vm", "vm/count"]


@pytest.mark.parametrize("rig", ["nfs"], indirect=True)
def test_of_two_hosts_who_claim_a_name_one_wins_and_both_see_it(rig: NfsRig) -> None:
    here = rig.fresh()
    barrier = threading.Barrier(2)

    def claims(store: Store, owner: bytes) -> list[bool]:
        won = []
        for number in range(12):
            barrier.wait()
            try:
                store.put(f"vm/{number}", owner, if_absent=True)
                won.append(True)
            except VmferryError as error:
                if error.kind != "conflict":
                    raise
                won.append(False)
        return won

    with rig.from_another_host(here) as there, ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(claims, here, b"here"), pool.submit(claims, there, b"there")
        for number, (ours, theirs) in enumerate(zip(first.result(), second.result())):
            assert ours is not theirs
            winner = b"here" if ours else b"there"
            assert [here.get(f"vm/{number}"), there.get(f"vm/{number}")] == [winner, winner]
    assert rig.leftovers(here) == ["vm", *sorted(f"vm/{number}" for number in range(12))]


@pytest.mark.parametrize("rig", ["nfs"], indirect=True)
def test_on_a_network_file_system_the_lock_is_one_that_its_server_keeps(rig: StoreRig) -> None:
    store = rig.fresh()
    etag = store.put("vm/a", b"old").etag
    lock = Path(store.location("vm")) / LOCK
    writer = threading.Thread(target=lambda: store.put("vm/a", b"new", if_match=etag))
    with held(lock):
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert store.get("vm/a") == b"old"
        assert [info.key for info in store.list("")] == ["vm/a"]
        store.abort_uploads("", lambda info: False)
        assert lock.exists(), "somebody holds it"
    writer.join(60)
    assert store.get("vm/a") == b"new"
    assert rig.leftovers(store) == ["vm", "vm/a"]


@contextmanager
def held(lock: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.stdin.close()


@pytest.mark.parametrize("rig", ["nfs"], indirect=True)
@pytest.mark.parametrize("look", ["stat", "get", "list"])
def test_a_name_that_an_nfs_client_gives_its_next_file_is_not_missing(rig: StoreRig, look: str) -> None:
    store = rig.fresh()
    store.put("vm/a", b"old")
    folder = Path(store.location("vm"))
    looks: dict[str, Callable[[], object]] = {
        "stat": lambda: store.stat("vm/a") is not None,
        "get": lambda: store.get("vm/a") == b"old",
        "list": lambda: [info.key for info in store.list("vm/")] == ["vm/a"],
    }
    with ThreadPoolExecutor(1) as pool:
        with held(folder / LOCK):
            (folder / "a").rename(folder / ".fuse_hidden0000000000000001")
            found = pool.submit(looks[look])
            time.sleep(0.2)
            assert not found.done()
            (folder / ".fuse_hidden0000000000000001").rename(folder / "a")
        assert found.result()


@pytest.mark.parametrize("rig", ["nfs"], indirect=True)
def test_nobody_takes_a_name_while_it_gets_its_next_file(rig: StoreRig) -> None:
    store = rig.fresh()
    store.put("vm/a", b"old")
    folder = Path(store.location("vm"))
    with ThreadPoolExecutor(1) as pool:
        with held(folder / LOCK):
            (folder / "a").rename(folder / ".fuse_hidden0000000000000001")
            claim = pool.submit(store.put, "vm/a", b"mine", if_absent=True)
            time.sleep(0.2)
            assert not claim.done()
            (folder / ".fuse_hidden0000000000000001").rename(folder / "a")
        with pytest.raises(VmferryError) as raised:
            claim.result()
    assert raised.value.kind == "conflict"
    assert store.get("vm/a") == b"old"


@pytest.mark.parametrize("rig", ["nfs"], indirect=True)
@pytest.mark.parametrize("if_absent", [False, True])
def test_where_the_server_has_no_locks_what_has_no_condition_is_written(
    rig: StoreRig, if_absent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_what: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    store = rig.fresh()
    monkeypatch.setattr("fcntl.flock", no_locks)
    info = store.put("vm/a", b"new", if_absent=if_absent)
    with pytest.raises(VmferryError) as raised:
        store.put("vm/a", b"newer", if_match=info.etag)
    assert raised.value.kind == "unsupported"
    assert store.get("vm/a") == b"new"


@pytest.mark.parametrize("rig", ["nfs"], indirect=True)
def test_what_is_not_there_is_missing_even_where_somebody_never_lets_the_lock_go(rig: StoreRig) -> None:
    store = rig.fresh()
    store.put("vm/a", b"old")
    with held(Path(store.location("vm")) / LOCK):
        assert store.stat("vm/b") is None
        assert [info.key for info in store.list("vm/")] == ["vm/a"]


@pytest.mark.parametrize("rig", ["nfs"], indirect=True)
def test_a_lock_that_a_killed_process_left_holds_nobody_off_and_is_removed(rig: StoreRig) -> None:
    store = rig.fresh()
    etag = store.put("vm/a", b"old").etag
    lock = Path(store.location("vm")) / LOCK
    lock.write_bytes(b"")
    store.put("vm/a", b"new", if_match=etag)
    assert not lock.exists()
    lock.write_bytes(b"")
    assert store.abort_uploads("", lambda info: False) == 0
    assert rig.leftovers(store) == ["vm", "vm/a"]


@pytest.mark.parametrize("rig", ["nfs"], indirect=True)
@pytest.mark.parametrize(
    ("fstype", "option"),
    [
        *(("nfs4", option) for option in ("nolock", "local_lock=all", "local_lock=flock")),
        *((fstype, "rw") for fstype in ("fuse.nfs", "fuse.sshfs", "fuse.rclone", "fuse.whatever", "fuse", "virtiofs")),
    ],
)
def test_a_mount_whose_locks_may_reach_no_other_host_replaces_nothing_on_a_condition(
    rig: StoreRig, fstype: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mounted_so(descriptor: int) -> Mount | None:
        found = mount_of(descriptor)
        return found and replace(found, fstype=fstype, options=found.options | {option})

    url = rig.fresh().url.replace("nfs://", "file://")
    monkeypatch.setattr(roots, "mount_of", mounted_so)
    store = open_store(url, {})
    found = store.probe("vm/.probe")
    assert (found.conditional_put, found.conditional_replace) == (True, False)
    info = store.put("vm/a", b"x")
    for call in (lambda: store.put("vm/a", b"y", if_match=info.etag), lambda: store.delete("vm/a", if_match=info.etag)):
        with pytest.raises(VmferryError) as raised:
            call()
        assert raised.value.kind == "unsupported"
        assert raised.value.hint
    assert store.get("vm/a") == b"x"


@pytest.mark.parametrize("rig", ["nfs"], indirect=True)
def test_a_lock_leaves_no_descriptor_open(rig: StoreRig) -> None:
    store = rig.fresh()
    info = store.put("vm/a", b"0")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(5):
        info = store.put("vm/a", b"%d" % number, if_match=info.etag)
        with pytest.raises(VmferryError):
            store.put("vm/a", os.urandom(4), if_match="0")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("fstype", ["fuse.ceph", "fuse.glusterfs", "cifs", "fuse.mergerfs", "ext4"])
def test_locks_are_relied_on_where_they_are_known_to_reach_whoever_else_may_write(fstype: str) -> None:
    mount = Mount("/mnt", fstype, "source", "/")
    assert not mount.is_shared or mount.locks_reach_other_hosts


def test_a_file_system_without_links_and_locks_is_written_to_and_told_to_keep_no_conditions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_what: object, **_how: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(roots, "mount_of", lambda _unused: Mount("/mnt", "fuse.rclone", "s3:", "/"))
    monkeypatch.setattr(os, "link", no_links)
    store = open_store(tmp_path.as_uri(), {})
    found = store.probe("vm/.probe")
    assert (found.conditional_put, found.conditional_replace) == (False, False)
    assert list(tmp_path.iterdir()) == []
