# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of an unfinished object is not lost while anything of it is left, whatever fails meanwhile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind, VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    JobRequest,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3 import copy as s3_copy
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.parts import S3Parts

from .objects_rig import Places
from .test_storage_copies import DATA, KEY, MIB, copy, nothing_is_unfinished, put, refused, small_parts, stored
from .test_storage_uploads import cut_after

__all__ = ["small_parts"]  # is used by every test


@pytest.fixture(autouse=True)
def parts_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_copy, "AT_ONCE", 5 * MIB)


def fails(patched: pytest.MonkeyPatch, method: str, kind: Kind) -> None:
    def failing(*_what: Any) -> Any:
        raise VmferryError(kind, "Not now.")

    patched.setattr(S3Parts, method, failing)


@pytest.mark.parametrize("kind", ["network", "permission_denied"])
@pytest.mark.parametrize("by_server", [True, False])
def test_what_is_kept_outlives_a_run_that_cannot_look_at_it(
    kind: Kind, by_server: bool, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = places("s3" if by_server else "file"), places("s3")
    put(source, KEY, DATA)
    with monkeypatch.context() as patched:
        if by_server:
            fails_behind_first(patched)
        else:
            cut_after(patched, "s3", 1)
        refused("network", "gone", source, target, tmp_path)
    with monkeypatch.context() as patched:
        fails(patched, "_find", kind)
        refused(kind, "Not now", source, target, tmp_path)
    (row,) = copy(source, target, tmp_path)["objects"]
    assert (row["bytes_kept"], row["by_server"], stored(target)) == (5 * MIB, by_server, {KEY: DATA})
    assert nothing_is_unfinished(target, tmp_path)


def fails_behind_first(patched: pytest.MonkeyPatch) -> None:
    copy_part = S3Parts.copy_part

    def failing(self: S3Parts, part: Any, origin: Any) -> str:
        if part.number > 1:
            raise VmferryError("network", "The network is gone.")
        return copy_part(self, part, origin)

    patched.setattr(S3Parts, "copy_part", failing)


@pytest.mark.parametrize("by_server", [True, False])
def test_what_cannot_be_undone_is_not_forgotten_by_a_run_that_would_begin_anew(
    by_server: bool, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = places("s3"), places("s3")
    put(source, KEY, DATA)
    with monkeypatch.context() as patched:
        cut_after(patched, "s3", 1)
        refused("network", "gone", source, target, tmp_path, relay=True)
    put(source, KEY, DATA[::-1])
    with monkeypatch.context() as patched:
        fails(patched, "abort", "network")
        refused("network", "Not now", source, target, tmp_path, relay=not by_server)
    assert copy(source, target, tmp_path, relay=not by_server)["objects"][0]["bytes_kept"] == 0
    assert stored(target) == {KEY: DATA[::-1]}
    assert nothing_is_unfinished(target, tmp_path)


def test_what_cannot_be_undone_is_not_forgotten_once_the_object_is_there(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_copy, "AT_ONCE", len(DATA))
    source, target = places("s3"), places("s3")
    put(source, KEY, DATA)
    with monkeypatch.context() as patched:
        cut_after(patched, "s3", 1)
        refused("network", "gone", source, target, tmp_path, relay=True)
    put(source, KEY, DATA[::-1])
    with monkeypatch.context() as patched:
        fails(patched, "abort", "network")
        done = copy(source, target, tmp_path)
    assert (done["objects"][0]["by_server"], stored(target)) == (True, {KEY: DATA[::-1]})
    assert ["could not be removed" in warning for warning in done["warnings"]] == [True]
    copy(source, target, tmp_path, overwrite="always")
    assert nothing_is_unfinished(target, tmp_path)


@pytest.mark.parametrize("size", [len(DATA), MIB])
def test_what_a_server_had_copied_is_removed_although_the_job_was_cancelled(
    size: int, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as it takes."""
    source, target = places("s3"), places("s3")
    put(source, KEY, DATA[:size])
    copy_part, abort, start = S3Parts.copy_part, S3Parts.abort, RunningJob.__init__
    jobs: list[RunningJob] = []
    aborts: list[S3Parts] = []

    def started(self: RunningJob, *what: Any) -> None:
        start(self, *what)
        jobs.append(self)

    def cancelled(self: S3Parts, part: Any, origin: Any) -> str:
        receipt = copy_part(self, part, origin)
        jobs[-1].flow.request_cancel("somebody asked", ordered=True)
        while jobs[-1].flow.error is None:
            time.sleep(0.01)
        return receipt

    def slowed_down(self: S3Parts) -> None:
        aborts.append(self)
        if len(aborts) == 1:
            raise VmferryError("rate_limited", "Slow down.", retry_after=0.0)
        abort(self)

    with monkeypatch.context() as patched:
        patched.setattr(RunningJob, "__init__", started)
        patched.setattr(S3Parts, "copy_part", cancelled)
        patched.setattr(S3Parts, "abort", slowed_down)
        transfer = TransferOptions(state_dir=str(tmp_path / "state"), max_retries=3)
        refused("cancelled", "asked", source, target, tmp_path, transfer=transfer, overwrite="never")
    assert len(aborts) == 2
    assert jobs[-1].undone
    assert nothing_is_unfinished(target, tmp_path)


def test_what_a_server_had_copied_and_nobody_could_remove_goes_when_the_job_is_cancelled(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = places("s3"), places("s3")
    put(source, KEY, DATA)
    with monkeypatch.context() as patched:
        fails_behind_first(patched)
        fails(patched, "abort", "internal")
        error = refused("network", "gone", source, target, tmp_path, resume_window=0)
    assert any("could not be removed" in warning for warning in error.done["warnings"])
    assert error.job is not None
    request = JobRequest(error.job["id"], "cancelled", state_dir=str(tmp_path / "state"), store=target)
    assert end_job(request, False)["changed"]
    assert nothing_is_unfinished(target, tmp_path)


@pytest.mark.parametrize("relay", [True, False])
def test_what_a_relayed_copy_had_sent_is_gone_on_with_before_a_server_is_asked(
    relay: bool, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be one that refuses."""
    source, target = places("s3"), places("s3")
    put(source, KEY, DATA)
    with monkeypatch.context() as patched:
        fails(patched, "copy_part", "permission_denied")
        cut_after(patched, "s3", 1)
        error = refused("network", "gone", source, target, tmp_path, relay=relay)
    assert error.done["kept"]["export"] == f"{target.url}/{KEY}"
    fails(monkeypatch, "copy_part", "permission_denied")
    (row,) = copy(source, target, tmp_path)["objects"]
    assert (row["bytes_kept"], row["by_server"], stored(target)) == (5 * MIB, False, {KEY: DATA})
    assert nothing_is_unfinished(target, tmp_path)
