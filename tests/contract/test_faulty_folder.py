# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file server may do to a writer: each failure is told as what it is, and none makes a file that is half."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Part, PartReceipt, PartWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind, VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem import roots
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.mounts import Mount, mount_of
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.parts import FilesystemParts
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from rigs.faulty_folder import FaultyFolder, faulty_folder

from .patience import Patience

MIB = 1024 * 1024
DATA = os.urandom(MIB)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyFolder]:
    with faulty_folder(tmp_path_factory.mktemp("faulty")) as folder:
        yield folder


@pytest.fixture
def folder(shared: FaultyFolder) -> Iterator[FaultyFolder]:
    shared.seen.write_text("")
    yield shared
    shared.heal()


@pytest.fixture
def store(folder: FaultyFolder, tmp_path: Path) -> Store:
    return open_store(f"nfs://{folder.point}/{tmp_path.name}", {"buffer_size": 4 * MIB})


def files(folder: FaultyFolder, tmp_path: Path) -> list[str]:
    root = folder.behind / tmp_path.name
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def patient(store: Store) -> Store:
    return RetryingStore(store, Patience())


def write(store: Store, key: str = "vm/a") -> None:
    writer = store.open_parts(key)
    try:
        writer.write_at(0, memoryview(DATA))
        writer.complete([], len(DATA))
    except BaseException:
        writer.abort()
        raise


def error_of(function: Callable[[], object]) -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        function()
    return raised.value


@pytest.mark.parametrize("operation", ["create", "write", "fsync", "rename"])
@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (errno.ENOSPC, "no_space", False),
        (errno.EDQUOT, "quota", False),
        (errno.EIO, "network", True),
        (errno.ETIMEDOUT, "timeout", True),
    ],
)
def test_a_failure_is_told_by_its_kind_wherever_it_comes_and_leaves_nothing(
    folder: FaultyFolder, store: Store, tmp_path: Path, operation: str, code: int, kind: Kind, retryable: bool
) -> None:
    folder.fail(operation, code)
    error = error_of(lambda: write(store))
    assert (error.kind, error.retryable) == (kind, retryable)
    assert error.hint
    assert store.url in error.message
    assert files(folder, tmp_path) == []


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, "no_space"), (errno.EDQUOT, "quota")])
def test_no_space_that_is_told_by_a_flush_alone_is_permanent(
    folder: FaultyFolder, store: Store, tmp_path: Path, code: int, kind: Kind
) -> None:
    """And is no less so after the next flush, which succeeds: what was lost is not written by it."""
    writer = patient(store).open_parts("vm/a")
    writer.write_at(0, memoryview(DATA))
    folder.fail("fsync", code, times=1)
    assert error_of(lambda: writer.complete([], len(DATA))).kind == kind
    again = error_of(lambda: writer.complete([], len(DATA)))
    assert (again.kind, again.retryable) == (kind, False)
    assert error_of(lambda: writer.write_at(0, memoryview(DATA))).kind == kind
    writer.abort()
    assert files(folder, tmp_path) == []


def test_no_space_that_is_told_by_a_close_alone_is_told_of_what_waits_for_no_flush(
    folder: FaultyFolder, store: Store, tmp_path: Path
) -> None:
    store.put("vm/lease", b"old")
    folder.fail("flush", errno.EDQUOT)
    assert error_of(lambda: store.put_volatile("vm/lease", b"new")).kind == "quota"
    folder.heal()
    assert store.get("vm/lease") == b"old"
    assert files(folder, tmp_path) == ["vm/lease"]


@pytest.mark.parametrize("fstype", ["fuse.nfs", "nfs4"])
def test_what_was_flushed_is_whole_whatever_its_close_says(
    folder: FaultyFolder, store: Store, fstype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor what the close of a lock says, where locks reach other hosts."""

    def mounted(descriptor: int) -> Mount | None:
        found = mount_of(descriptor)
        return found and replace(found, fstype=fstype)

    monkeypatch.setattr(roots, "mount_of", mounted)
    folder.fail("flush", errno.EIO)
    write(store)
    folder.heal()
    assert store.get("vm/a") == DATA


@pytest.mark.parametrize("if_absent", [True, False])
def test_a_name_that_was_given_though_the_answer_was_lost_is_ours(
    folder: FaultyFolder, store: Store, tmp_path: Path, if_absent: bool
) -> None:
    folder.fail("link" if if_absent else "rename", errno.EIO, times=1, done=True)
    writer = store.open_parts("vm/a")
    assert isinstance(writer, FilesystemParts)
    writer.write_at(0, memoryview(b"ours"))
    with pytest.raises(VmferryError):
        writer.finish(4, if_absent=if_absent)
    assert writer.finish(4, if_absent=if_absent).size == 4
    assert store.get("vm/a") == b"ours"
    assert files(folder, tmp_path) == ["vm/a"]


def test_a_name_that_another_took_meanwhile_is_not_ours(folder: FaultyFolder, store: Store) -> None:
    folder.fail("link", errno.EIO, times=1)
    writer = store.open_parts("vm/a")
    assert isinstance(writer, FilesystemParts)
    writer.write_at(0, memoryview(b"ours"))
    with pytest.raises(VmferryError):
        writer.finish(4, if_absent=True)
    store.put("vm/a", b"theirs")
    assert error_of(lambda: writer.finish(4, if_absent=True)).kind == "conflict"
    assert store.get("vm/a") == b"theirs"
    writer.abort()


@pytest.mark.parametrize("operation", ["open", "getattr", "read", "unlink", "fsyncdir"])
def test_a_stale_handle_of_what_is_not_being_written_is_asked_for_again(
    folder: FaultyFolder, store: Store, operation: str
) -> None:
    store.put("vm/a", DATA)
    folder.fail(operation, errno.ESTALE, times=1)
    assert patient(store).get("vm/a") == DATA
    patient(store).put("vm/b", DATA)
    patient(store).delete("vm/a")
    assert [info.key for info in patient(store).list("")] == ["vm/b"]


@pytest.mark.parametrize("operation", ["write", "truncate", "rename", "fsyncdir"])
def test_a_writer_whose_handle_went_stale_opens_its_file_again_where_nothing_can_be_lost(
    folder: FaultyFolder, store: Store, tmp_path: Path, operation: str
) -> None:
    writer = patient(store).open_parts("vm/a")
    for at in range(0, 4 * MIB, MIB):
        writer.write_at(at, memoryview(DATA))
    assert folder.calls("fdatasync") == 1, "all of it is flushed"
    before = len(list(Path("/proc/self/fd").iterdir()))
    folder.fail(operation, errno.ESTALE, times=1, lost=True)
    if operation == "write":
        writer.write_at(4 * MIB, memoryview(DATA))
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    size = 5 * MIB if operation == "write" else 4 * MIB
    writer.complete([], size)
    assert store.get("vm/a") == DATA * (size // MIB)
    assert files(folder, tmp_path) == ["vm/a"]


def test_several_writers_of_one_file_get_over_a_stale_handle_together(folder: FaultyFolder, store: Store) -> None:
    writer = patient(store).open_parts("vm/a")
    for at in range(0, 4 * MIB, MIB):
        writer.write_at(at, memoryview(DATA))
    barrier = threading.Barrier(4)
    folder.fail("write", errno.ESTALE, times=1, lost=True)

    def go_on(at: int) -> None:
        barrier.wait()
        writer.write_at(at, memoryview(DATA)[:LEAF])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(go_on, range(0, 4 * LEAF, LEAF)))
    writer.complete([], 4 * MIB)
    assert store.get("vm/a") == DATA[:LEAF] * 4 + DATA[4 * LEAF :] + DATA * 3


def test_what_a_stale_handle_may_have_lost_is_never_believed_and_another_run_goes_on_with_the_rest(
    folder: FaultyFolder, store: Store, tmp_path: Path
) -> None:
    writer = patient(store).open_parts("vm/a")
    receipts = [sent(writer, Part(number + 1, number * MIB, MIB)) for number in range(3)]
    folder.fail("write", errno.ESTALE, times=1, lost=True)
    error = error_of(lambda: writer.write_at(3 * MIB, memoryview(DATA)))
    assert (error.kind, error.retryable) == ("network", False)
    assert str(3 * MIB) in error.message
    assert error_of(lambda: writer.complete([], 4 * MIB)).kind == "network"
    writer.leave()
    (unfinished,) = (folder.behind / tmp_path.name / "vm").iterdir()
    with unfinished.open("r+b") as file:  # as the server has it
        file.seek(2 * MIB)
        file.write(bytes(MIB))
    resumed = store.resume_parts("vm/a", writer.token, 3 * MIB)
    assert resumed is not None
    assert [resumed.confirms(receipt) for receipt in receipts] == [True, True, False]
    for number in (2, 3):
        resumed.write_at(number * MIB, memoryview(DATA))
    resumed.complete([], 4 * MIB)
    assert store.get("vm/a") == DATA * 4


@pytest.mark.parametrize(("buffer_size", "flushes"), [(MIB, 8), (4 * MIB, 2), (16 * MIB, 0), (None, 0)])
def test_so_many_bytes_are_written_before_they_are_flushed(
    folder: FaultyFolder, tmp_path: Path, buffer_size: int | None, flushes: int
) -> None:
    store = open_store(f"nfs://{folder.point}/{tmp_path.name}", {"buffer_size": buffer_size})
    writer = store.open_parts("vm/a")
    for at in range(0, 8 * MIB, MIB):
        writer.write_at(at, memoryview(DATA))
    assert folder.calls("fdatasync") == flushes
    writer.complete([], 8 * MIB)
    assert (folder.calls("fdatasync"), folder.calls("fsync")) == (flushes, 1)


def test_no_space_is_found_out_after_a_buffer_and_not_at_the_end(folder: FaultyFolder, store: Store) -> None:
    folder.fail("fdatasync", errno.EDQUOT)
    writer = store.open_parts("vm/a")
    for at in range(0, 3 * MIB, MIB):
        writer.write_at(at, memoryview(DATA))
    assert error_of(lambda: writer.write_at(3 * MIB, memoryview(DATA))).kind == "quota"
    writer.abort()


def test_an_error_of_a_local_medium_is_not_blamed_on_the_network(tmp_path: Path) -> None:
    with faulty_folder(tmp_path / "local", subtype="ext") as folder:
        store = open_store(str(folder.point), {})
        folder.fail("write", errno.EIO)
        assert error_of(lambda: write(store)).kind == "internal"


def sent(writer: PartWriter, part: Part) -> PartReceipt:
    writer.write_at(part.offset, memoryview(DATA))
    leaves = (sha256(DATA[at : at + LEAF]).digest() for at in range(0, part.size, LEAF))
    return PartReceipt(part, sha256(b"".join(leaves)).digest())
