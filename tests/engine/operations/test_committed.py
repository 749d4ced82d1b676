# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Once the manifest is there the export is made: nothing that happens afterwards makes a failure of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine.exports.shelves import clean_up
from one_vm import VM, OneVm, export_one

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import INTENT
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import MANIFEST
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.parts import FilesystemParts
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import (
    FilesystemStore,
    open_filesystem,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Stopped
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.supervise import supervise


@pytest.fixture
def options(tmp_path: Path) -> TransferOptions:
    return TransferOptions(state_dir=str(tmp_path / "state"), idle_timeout=1.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


WHOLE = ["disk-0.digests", "disk-0.qcow2", "domain.xml", "manifest.json", "vm.json"]


def test_leaving_the_point_in_time_may_take_longer_than_idle_timeout(
    root: Path, options: TransferOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(supervise.__kwdefaults__, "grace", 0.3)
    assert export_one(root, OneVm(lambda: time.sleep(2.5)), options)["changed"]
    assert files(root) == WHOLE


@pytest.mark.parametrize("error", [VmferryError("timeout", "libvirtd is stuck."), OSError(28, "Full"), Stopped()])
def test_a_point_in_time_that_cannot_be_left_is_a_warning(
    root: Path, options: TransferOptions, error: Exception
) -> None:
    def leaving() -> None:
        raise error

    result = export_one(root, OneVm(leaving), options)
    assert result["changed"]
    assert len(result["warnings"]) == 1
    assert files(root) == WHOLE


def test_before_the_manifest_the_same_error_is_a_failure(
    root: Path, options: TransferOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaving() -> None:
        raise VmferryError("timeout", "libvirtd is stuck.")

    monkeypatch.setattr(FilesystemParts, "complete", lambda *_unused, **_named: leaving())
    with pytest.raises(VmferryError, match="stuck"):
        export_one(root, OneVm(), options)
    assert files(root) == []


def test_a_cancel_while_the_point_in_time_hangs_gives_the_export_that_is_made(
    root: Path, options: TransferOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setitem(supervise.__kwdefaults__, "grace", 0.3)

    def leaving() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        release.wait(30)

    started = time.monotonic()
    try:
        result = export_one(root, OneVm(leaving), options)
    finally:
        release.set()
    assert time.monotonic() - started < 15
    assert result["changed"]
    assert files(root) == WHOLE
    assert "left" in " ".join(result["warnings"])


def test_completing_an_object_may_take_longer_than_idle_timeout(
    root: Path, options: TransferOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = FilesystemParts.complete

    def slow(self: FilesystemParts, *words: object, **named: object) -> object:
        time.sleep(1.6)
        return complete(self, *words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(FilesystemParts, "complete", slow)
    assert export_one(root, OneVm(), options)["changed"]
    assert files(root) == WHOLE


class Untidy(OneVm):
    """Something of another VM cannot be cleaned up."""

    def __init__(self, clean: Callable[[], object]) -> None:
        super().__init__()
        self._clean = clean

    def clean_up(self, *_unused: object, **_options: object) -> list[Any]:
        self._clean()
        return []


def refuses() -> None:
    raise VmferryError("permission_denied", "What a dead import had made cannot be removed.")


def is_no_folder() -> None:
    raise NotADirectoryError(20, "Not a directory")


@pytest.mark.parametrize("clean", [refuses, is_no_folder, lambda: time.sleep(2)])
def test_an_export_that_is_there_is_enough_although_something_else_cannot_be_cleaned_up(
    root: Path, options: TransferOptions, clean: Callable[[], object]
) -> None:
    export_one(root, OneVm(), options, name="monthly")
    found = export_one(root, Untidy(clean), options, name="monthly")
    assert not found["changed"]
    assert len(found["warnings"]) == (0 if clean not in (refuses, is_no_folder) else 1)


def silent_behind_the_manifest(
    monkeypatch: pytest.MonkeyPatch, root: Path, first: str, *, answers: bool, looks: int
) -> None:
    """The store takes the manifest of an export that is not the `first`, and a cleanup counts it at once. It `answers`
    or not, and then this number of looks at its intent fail."""
    put, get, left = FilesystemStore.put, FilesystemStore.read_whole, [0]

    def puts(store: FilesystemStore, key: str, *words: Any, **more: Any) -> Any:
        made = put(store, key, *words, **more)
        if key.endswith(MANIFEST) and first not in key:
            assert clean_up(open_filesystem(str(root), {}), max_count=1, keep_last=1)["deleted"] == [first]
            left[0] = looks
            if not answers:
                raise VmferryError("network", "The answer is lost.")
        return made

    def gets(store: FilesystemStore, key: str, *words: Any, **more: Any) -> Any:
        if left[0] and key.endswith(INTENT):
            left[0] -= 1
            raise VmferryError("network", "It is away for a moment.")
        return get(store, key, *words, **more)

    monkeypatch.setattr(FilesystemStore, "put", puts)
    monkeypatch.setattr(FilesystemStore, "read_whole", gets)


@pytest.mark.parametrize("on_failure", ["keep", "undo"])
@pytest.mark.parametrize(("answers", "looks"), [(False, 0), (True, 1)])
def test_an_export_that_was_committed_is_made_although_an_answer_is_lost(
    root: Path, options: TransferOptions, on_failure: str, answers: bool, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = export_one(root, OneVm(), options)["export"]["id"]
    silent_behind_the_manifest(monkeypatch, root, first, answers=answers, looks=looks)
    made = export_one(root, OneVm(), replace(options, max_retries=0), on_failure=on_failure)
    assert made["changed"]
    assert [entry.manifest.export_id for entry in Catalog(open_filesystem(str(root), {})).of_vm(VM.id)] == [
        made["export"]["id"]
    ]
    assert files(root) == WHOLE


@pytest.mark.parametrize("on_failure", ["keep", "undo"])
@pytest.mark.parametrize("looks", [2, 1000])
def test_an_export_that_others_may_have_seen_committed_is_not_taken_back_where_nobody_can_look(
    root: Path, options: TransferOptions, on_failure: str, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = export_one(root, OneVm(), options)["export"]["id"]
    with monkeypatch.context() as patched:
        silent_behind_the_manifest(patched, root, first, answers=True, looks=looks)
        with pytest.raises(VmferryError, match="away for a moment"):
            export_one(root, OneVm(), replace(options, max_retries=0), on_failure=on_failure)
    assert set(WHOLE) <= set(files(root))
    (left,) = Catalog(open_filesystem(str(root), {})).of_vm(VM.id)
    assert left.manifest.export_id != first
    found = export_one(root, OneVm(), options, max_age=3600.0)
    assert (found["changed"], found["export"]["id"]) == (False, left.manifest.export_id)
