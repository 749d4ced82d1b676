# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a folder promises: permissions, holes, links that are not followed, nothing half written under a name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.parts import FilesystemParts
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

MIB = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "exports"


@pytest.fixture
def store(root: Path) -> Store:
    return open_store(str(root), {})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("setting", "file", "folder"), [(None, 0o600, 0o700), ("0640", 0o640, 0o750), ("644", 0o644, 0o755)]
)
def test_files_and_folders_are_private_unless_said_otherwise(
    root: Path, setting: str | None, file: int, folder: int
) -> None:
    before = os.umask(0o077)
    try:
        open_store(str(root), {"mode": setting}).put("vm/1/a", b"x")
    finally:
        os.umask(before)
    assert [mode(root), mode(root / "vm"), mode(root / "vm/1")] == [folder] * 3
    assert mode(root / "vm/1/a") == file


def test_owner_and_group_are_set(root: Path) -> None:
    open_store(str(root), {"owner": "nobody", "group": 12345}).put("vm/a", b"x")
    for path in (root, root / "vm", root / "vm/a"):
        assert (path.stat().st_uid, path.stat().st_gid) == (65534, 12345)


def test_holes_stay_holes(root: Path, store: Store) -> None:
    writer = store.open_parts("vm/a")
    writer.write_at(500 * MIB, memoryview(b"x" * 65536))
    writer.complete([], 1024 * MIB)
    status = (root / "vm/a").stat()
    assert status.st_size == 1024 * MIB
    assert status.st_blocks * 512 <= MIB


def test_an_unfinished_file_is_not_listed_and_can_be_told_by_its_name(root: Path, store: Store) -> None:
    writer = store.open_parts("vm/a")
    assert [path.name.startswith("a.") and path.suffix == ".part" for path in (root / "vm").iterdir()] == [True]
    assert list(store.list("")) == []
    assert list(store.list_folders("")) == []
    writer.abort()


def test_others_part_files_are_not_ours_to_remove(root: Path, store: Store) -> None:
    root.mkdir()
    (root / "download.part").write_bytes(b"someone's")
    assert store.abort_uploads("") == 0
    assert (root / "download.part").exists()


@pytest.mark.parametrize("call", ["get", "put", "list", "delete", "parts", "list_folders"])
def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path, root: Path, store: Store, call: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    root.mkdir()
    (root / "vm").symlink_to(outside)
    (root / "link").symlink_to(outside / "secret")
    assert [info.key for info in store.list("")] == []
    assert list(store.list_folders("")) == []
    with pytest.raises(VmferryError) as raised:
        {
            "get": lambda: store.get("vm/secret"),
            "put": lambda: store.put("vm/secret", b"x"),
            "list": lambda: list(store.list("vm/")),
            "list_folders": lambda: list(store.list_folders("vm/")),
            "delete": lambda: store.delete("vm/secret"),
            "parts": lambda: store.open_parts("vm/secret"),
        }[call]()
    assert raised.value.kind == "permission_denied"
    assert (outside / "secret").read_bytes() == b"secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_a_file_that_is_a_link_is_replaced_not_followed(tmp_path: Path, root: Path, store: Store) -> None:
    root.mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (root / "a").symlink_to(victim)
    store.put("a", b"x")
    assert victim.read_bytes() == b"precious"
    assert store.get("a") == b"x"


def test_a_named_pipe_does_not_hang_a_reader(root: Path, store: Store) -> None:
    root.mkdir()
    os.mkfifo(root / "pipe")
    assert store.stat("pipe") is None


def test_a_failed_flush_is_never_believed_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store.open_parts("vm/a")
    writer.write_at(0, memoryview(b"x"))

    def fails(_unused: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(VmferryError):
            writer.complete([], 1)
    with pytest.raises(VmferryError) as raised:
        writer.complete([], 1)
    assert not raised.value.retryable
    writer.abort()
    assert list(store.list("")) == []


def test_reading_and_aborting_make_no_root(root: Path, store: Store) -> None:
    assert store.stat("vm/a") is None
    assert list(store.list("")) == []
    assert store.abort_uploads("") == 0
    assert store.free_space()
    assert not root.exists()


def test_a_root_that_can_be_made_is_not_there_yet(root: Path, store: Store) -> None:
    with pytest.raises(VmferryError) as raised:
        store.require_root()
    assert (raised.value.kind, str(root) in raised.value.message) == ("not_found", True)
    assert raised.value.hint
    assert not root.exists()
    store.put("vm/a", b"")
    store.require_root()


def test_a_file_is_no_root(root: Path, store: Store) -> None:
    root.touch()
    with pytest.raises(VmferryError) as raised:
        store.require_root()
    assert (raised.value.kind, "not a folder" in raised.value.message) == ("not_found", True)


@pytest.mark.parametrize(
    ("place", "said", "hint"),
    [
        ("/proc/no-such-folder", "does not exist", "storage URL"),
        ("{file}", "is not a folder", "folder"),
        ("{file}/below", "a file stands where a folder was expected", "file"),
    ],
)
def test_a_place_where_no_folder_can_be_is_told_with_what_to_do(
    tmp_path: Path, place: str, said: str, hint: str
) -> None:
    (tmp_path / "file").touch()
    store = open_store(place.format(file=tmp_path / "file"), {})
    with pytest.raises(VmferryError) as raised:
        store.probe("vm/.probe")
    assert said in raised.value.message
    assert hint in raised.value.hint


def test_the_root_is_shown_as_it_was_given(root: Path, store: Store) -> None:
    assert store.object_url("") == store.url == root.as_uri()
    assert store.object_url("vm/a") == f"{root.as_uri()}/vm/a"


def test_the_location_is_the_path_and_no_part_of_a_url(tmp_path: Path) -> None:
    store = open_store((tmp_path / "100% web").as_uri(), {})
    assert store.location("vm/a") == str(tmp_path / "100% web/vm/a")


def test_the_probe_removes_the_root_it_made(root: Path, store: Store) -> None:
    store.probe("vm/.probe")
    assert not root.exists()


def test_writers_and_deleters_of_one_folder_do_not_trip_over_each_other(store: Store) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def churn(worker: int) -> None:
        for _unused in range(100):
            store.put(f"vm/1/{worker}", b"x")
            store.delete(f"vm/1/{worker}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))
    assert list(store.list("")) == []


@pytest.mark.parametrize("if_absent", [False, True])
def test_a_name_is_durable_before_it_is_believed_and_no_descriptor_is_left_open(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch, if_absent: bool
) -> None:
    fsync, flushed, failures = os.fsync, [], [OSError(116, "Stale file handle")]

    def once(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) and failures:
            raise failures.pop()
        fsync(descriptor)
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    store.put("vm/a", b"x")
    store.delete("vm/a")
    before = descriptors()
    writer = open_parts(store, "vm/b")
    writer.write_at(0, memoryview(b"new"))
    monkeypatch.setattr(os, "fsync", once)
    with pytest.raises(VmferryError) as raised:
        writer.finish(3, if_absent=if_absent)
    assert raised.value.retryable
    assert str(root / "vm") not in flushed
    assert writer.finish(3, if_absent=if_absent).size == 3
    assert str(root / "vm") in flushed
    assert descriptors() == before
    assert store.get("vm/b") == b"new"
    assert [path.name for path in (root / "vm").iterdir()] == ["b"]


def test_a_linked_name_whose_old_name_cannot_be_removed_is_ours(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, failures = os.unlink, [OSError(116, "Stale file handle")]

    def once(*words: object, **options: object) -> None:
        if failures:
            raise failures.pop()
        unlink(*words, **options)

    writer = open_parts(store, "vm/b")
    writer.write_at(0, memoryview(b"new"))
    monkeypatch.setattr(os, "unlink", once)
    with pytest.raises(VmferryError):
        writer.finish(3, if_absent=True)
    assert writer.finish(3, if_absent=True).size == 3
    assert [path.name for path in (root / "vm").iterdir()] == ["b"]


def test_what_a_killed_process_wrote_beyond_what_is_known_of_it_is_cut_off(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri(), {})
    killed = open_parts(store, "vm/a")
    killed.write_at(0, memoryview(b"known" + b"x" * 100))
    killed.leave()
    writer = store.resume_parts("vm/a", killed.token, 5)
    assert writer is not None
    writer.complete([], 10)
    assert store.get("vm/a") == b"known" + bytes(5)


def test_a_link_in_the_place_of_an_unfinished_file_is_not_followed(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri(), {})
    killed = open_parts(store, "vm/a")
    killed.leave()
    (tmp_path / "victim").write_bytes(b"precious")
    (unfinished,) = (tmp_path / "vm").iterdir()
    unfinished.unlink()
    unfinished.symlink_to(tmp_path / "victim")
    with pytest.raises(VmferryError):
        store.resume_parts("vm/a", killed.token, 0)
    assert (tmp_path / "victim").read_bytes() == b"precious"


def open_parts(store: Store, key: str) -> FilesystemParts:
    writer = store.open_parts(key)
    assert isinstance(writer, FilesystemParts)
    return writer


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
