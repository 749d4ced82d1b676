# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Undoing goes as far as the store lets it, and what it cannot do never hides why there was something to undo."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind, VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import INTENT, Intent
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.attempt import AttemptFolder
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.dead_attempts import (
    remove_dead_attempt,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem

EXPORT = "20261121T063000Z-1a2b3c4d"
FOLDER = f"web01-1f0c9a2b/{EXPORT}"
VM = "1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77"
ELSEWHERE = {"hostname": "another host", "boot_id": "another boot", "pid": 7}
DATA = f"{FOLDER}/disk-0.qcow2"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_filesystem(str(tmp_path / "store"), {})


@pytest.fixture
def job(store: Store) -> RunningJob:
    job = RunningJob("a" * 32, TransferOptions(), None, {})
    job.capabilities = store.probe("probe")
    return job


def attempt(store: Store, job: RunningJob) -> AttemptFolder:
    now = time.time()
    return AttemptFolder(store, FOLDER, Intent(EXPORT, job.id, VM, "web01", now - 400, now - 100, ELSEWHERE), job)


def keys(store: Store) -> list[str]:
    return [info.key for info in store.list("")]


def failing(kind: Kind) -> Any:
    def call(*_words: object, **_options: object) -> None:
        raise VmferryError(kind, "The server refused it.")

    return call


def fail_in(folder: AttemptFolder, store: Store) -> None:
    error = VmferryError("checksum_mismatch", "The real reason.")

    def export() -> None:
        with folder:
            store.put(DATA, b"data")
            raise error

    with pytest.raises(VmferryError) as raised:
        export()
    assert raised.value is error


@pytest.mark.parametrize("kind", ["permission_denied", "unsupported"])
def test_uploads_that_may_not_be_listed_keep_no_object_and_hide_no_error(
    store: Store, job: RunningJob, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.setattr(store, "abort_uploads", failing(kind))
    fail_in(attempt(store, job), store)
    assert keys(store) == []
    assert len(job.warnings) == 1
    assert "refused" in job.warnings[0]


def test_uploads_that_could_not_be_listed_this_time_are_left_to_the_next_run_and_the_objects_are_gone(
    store: Store, job: RunningJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(store, "abort_uploads", failing("network"))
        fail_in(attempt(store, job), store)
        assert keys(store) == [f"{FOLDER}/{INTENT}"]
    assert remove_dead_attempt(store, FOLDER, job.capabilities, job.warn)
    assert keys(store) == []


def test_a_store_that_is_lost_while_an_export_is_undone_does_not_hide_why_it_is(
    store: Store, job: RunningJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "delete", failing("network"))
    fail_in(attempt(store, job), store)
    assert "refused" in job.warnings[0]


def test_an_attempt_that_may_not_be_wholly_undone_keeps_its_intent_for_the_next_run(
    store: Store, job: RunningJob
) -> None:
    with attempt(store, job), job.undoing("s3://exports/disk-0.qcow2"):
        raise VmferryError("timeout", "It may still appear.")
    assert keys(store) == [f"{FOLDER}/{INTENT}"]


def test_a_dead_attempt_whose_uploads_may_not_be_listed_is_removed_and_told_of(
    store: Store, job: RunningJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = attempt(store, job)
    store.put(folder.key(INTENT), folder._intent.to_json())
    store.put(DATA, b"data")
    monkeypatch.setattr(store, "abort_uploads", failing("permission_denied"))
    assert remove_dead_attempt(store, FOLDER, job.capabilities, job.warn)
    assert keys(store) == []
    assert len(job.warnings) == 1
