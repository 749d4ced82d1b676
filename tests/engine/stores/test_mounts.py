# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that is a folder is written to and read only while the mount is there that belongs there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem import mounts
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.mounting import Mounted, mounted_tmpfs


@pytest.fixture
def point(tmp_path: Path) -> Path:
    folder = tmp_path / "mount point"
    folder.mkdir()
    return folder


@pytest.fixture
def mounted(point: Path) -> Iterator[Mounted]:
    with mounted_tmpfs(point) as mounted:
        yield mounted


def mount_of(folder: Path) -> mounts.Mount | None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return mounts.mount_of(descriptor)
    finally:
        os.close(descriptor)


def error_of(function: Callable[[], object]) -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        function()
    return raised.value


def test_the_mount_is_told_by_its_point_type_and_source(mounted: Mounted) -> None:
    (mounted.point / "below").mkdir()
    found = mount_of(mounted.point / "below")
    assert found is not None
    assert (found.point, found.fstype, found.source, found.root) == (str(mounted.point), "tmpfs", mounted.source, "/")
    assert (found.is_nfs, found.over_network) == (False, False)


def test_an_upper_mount_on_the_same_point_is_the_one_that_counts(mounted: Mounted) -> None:
    with mounted_tmpfs(mounted.point) as upper:
        found = mount_of(mounted.point)
        assert found is not None
        assert found.source == upper.source != mounted.source


@pytest.mark.parametrize(
    ("fstype", "is_nfs"),
    [
        ("nfs", True),
        ("nfs4", True),
        ("fuse.nfs", True),
        ("fuse.fuse-nfs", True),
        ("nfsd", False),
        ("fuse.sshfs", False),
    ],
)
def test_what_counts_as_nfs_is_a_list(fstype: str, is_nfs: bool) -> None:
    assert mounts.Mount("/mnt", fstype, "server:/export", "/").is_nfs is is_nfs


def test_a_path_that_is_on_no_nfs_mount_is_refused_with_the_command_to_mount_one(point: Path) -> None:
    error = error_of(lambda: open_store(f"nfs://{point}", {}).put("a", b"x"))
    assert error.kind == "not_found"
    assert "is not on an NFS mount" in error.message
    assert f"server:/export {point}" in error.hint
    assert list(point.iterdir()) == []


def test_reading_from_a_path_that_is_on_no_nfs_mount_is_refused_too(point: Path) -> None:
    (point / "a").write_bytes(b"x")
    store = open_store(f"nfs://{point}", {})
    calls: list[Callable[[], object]] = [
        store.require_root,
        store.free_space,
        lambda: store.stat("a"),
        lambda: list(store.list("")),
        lambda: store.get("a"),
        lambda: store.delete("a"),
        lambda: store.probe("vm/.probe"),
    ]
    assert [error_of(call).kind for call in calls] == ["not_found"] * len(calls)


def test_a_path_whose_mount_point_is_named_is_not_written_to_before_it_is_mounted(point: Path) -> None:
    store = open_store(str(point / "exports"), {"mount": str(point)})
    error = error_of(lambda: store.put("vm/a", b"x"))
    assert error.kind == "not_found"
    assert error.message.startswith(f"Nothing is mounted at {point}")
    assert error.hint
    assert list(point.iterdir()) == []
    with mounted_tmpfs(point):
        store.put("vm/a", b"x")
        assert store.get("vm/a") == b"x"


def test_folders_that_are_missing_below_a_named_mount_point_are_made(mounted: Mounted) -> None:
    folder = mounted.point / "site" / "vms" / "exports"
    open_store(str(folder), {"mount": str(mounted.point), "mode": "0640"}).put("a", b"x")
    assert (folder / "a").read_bytes() == b"x"
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent, folder.parent.parent)] == [0o750] * 3


def test_without_a_named_mount_point_a_missing_folder_above_the_root_is_not_made(mounted: Mounted) -> None:
    error = error_of(lambda: open_store(str(mounted.point / "a/b"), {}).put("x", b"x"))
    assert error.kind == "not_found"
    assert list(mounted.point.iterdir()) == []


def test_the_mount_point_itself_is_never_made(tmp_path: Path) -> None:
    point = tmp_path / "not there"
    error = error_of(lambda: open_store(str(point / "exports"), {"mount": str(point)}).put("a", b"x"))
    assert error.kind == "not_found"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mount", ["/elsewhere", "relative", "/mnt/../srv", ""])
def test_a_mount_point_that_cannot_be_meant_is_refused(mount: str) -> None:
    for url in ("file:///srv/exports", "/srv/exports", "nfs:///srv/exports"):
        error = error_of(lambda url=url: open_store(url, {"mount": mount}))
        assert error.kind == "invalid_config"
        assert "mount" in error.message
        assert error.hint


@pytest.mark.parametrize(
    ("call", "doing"),
    [
        (lambda store: store.stat("vm/a"), "stat"),
        (lambda store: store.get("vm/a"), "get"),
        (lambda store: store.read_into("vm/a", 0, memoryview(bytearray(1))), "read_into"),
        (lambda store: list(store.list("")), "list"),
        (lambda store: list(store.list_folders("")), "list_folders"),
        (lambda store: store.put("vm/b", b"x"), "put"),
        (lambda store: store.open_parts("vm/b"), "open_parts"),
        (lambda store: store.resume_parts("vm/b", "0" * 16 + "-1", 0), "resume_parts"),
        (lambda store: store.delete("vm/a"), "delete"),
        (lambda store: store.abort_uploads(""), "abort_uploads"),
        (lambda store: store.require_root(), "require_root"),
        (lambda store: store.free_space(), "free_space"),
    ],
)
@pytest.mark.parametrize("below", [".", "exports"])
def test_a_mount_that_goes_away_is_told_as_such_and_nothing_is_written_below_it(
    mounted: Mounted, below: str, call: Callable[[Store], object], doing: str
) -> None:
    store = open_store(str(mounted.point / below), {})
    store.put("vm/a", b"x")
    mounted.unmount()
    error = error_of(lambda: call(store))
    assert (error.kind, error.retryable) == ("network", True), doing
    assert f"{mounted.source} at {mounted.point}" in error.message
    assert error.hint
    assert list(mounted.point.iterdir()) == []


def test_a_mount_that_comes_back_is_gone_on_with(mounted: Mounted) -> None:
    store = open_store(str(mounted.point), {})
    store.put("vm/a", b"x")
    mounted.unmount()
    assert error_of(lambda: store.stat("vm/a")).kind == "network"
    mounted.mount_again()
    assert store.stat("vm/a") is None
    store.put("vm/a", b"y")
    assert store.get("vm/a") == b"y"


def test_a_root_that_somebody_removed_and_made_again_is_no_lost_mount(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "exports"), {})
    store.put("a", b"x")
    (tmp_path / "exports/a").unlink()
    (tmp_path / "exports").rmdir()
    assert store.stat("a") is None
    (tmp_path / "exports").mkdir()
    store.put("a", b"y")
    assert store.get("a") == b"y"


def test_looking_often_leaves_no_descriptor_open(mounted: Mounted) -> None:
    store = open_store(str(mounted.point), {})
    store.put("a", b"x")

    def descriptors_after(look: Callable[[], object]) -> int:
        for _unused in range(10):
            look()
        return len(list(Path("/proc/self/fd").iterdir()))

    look = partial(store.stat, "a")
    assert descriptors_after(look) == descriptors_after(look)
    mounted.unmount()
    error_of(look)
    assert descriptors_after(lambda: error_of(look)) == descriptors_after(lambda: error_of(look))
