# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a run follows that is to attach itself to another, and what it hears of the end of that one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from engine.exports.samples import UUID
from engine.exports.shelves import begin, commit, folder_of

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import INTENT
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.marks import CHECKED, checked_mark
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.follow_export import (
    FollowedProgress,
    Following,
    Leader,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import JobRecord

VM = VmSpec("libvirt", UUID, "web01", "web01", "powered_on", 1, 2048, "bios", ())
URL = "s3://backups/vms"
OTHER, OWN = "a" * 32, "b" * 32
ELSEWHERE = {"hostname": "kvm02", "boot_id": "x", "pid_namespace": 1, "pid": 7, "pid_started": 1}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return open_filesystem(str(tmp_path / "store"), {})


@pytest.fixture
def following(tmp_path: Path, store: Store) -> Following:
    options = TransferOptions(state_dir=str(tmp_path / "state"), job_id=OWN)
    return Following(RunningJob(OWN, options, None, {}), store, Catalog(store), VM)


def write(tmp_path: Path, job: str, started: float, **fields: Any) -> JobRecord:
    asked = {"kind": "export", "vm": "web01", "url": URL, **fields}
    record = JobRecord.create(tmp_path / "state", job, asked.pop("kind"), vm=asked.pop("vm"), url=asked.pop("url"))
    record.update({"started": started, **asked}, now=True)
    return record


def test_only_the_later_of_two_that_start_at_once_follows(tmp_path: Path, following: Following) -> None:
    write(tmp_path, OTHER, 100.0)
    write(tmp_path, OWN, 100.0)
    leader = following.leader()
    assert leader is not None
    assert (leader.job_id, leader.folder) == (OTHER, "")
    write(tmp_path, "c" * 32, 100.0)
    assert following.leader() == leader


@pytest.mark.parametrize(
    "fields", [{"started": 101.0}, {"follows": "c" * 32}, {"vm": "db01"}, {"url": f"{URL}/other"}, {"kind": "import"}]
)
def test_what_does_not_do_the_same_before_is_not_followed(
    tmp_path: Path, following: Following, fields: dict[str, Any]
) -> None:
    write(tmp_path, OTHER, **{"started": 99.0, **fields})
    write(tmp_path, OWN, 100.0)
    assert following.leader() is None


def test_one_that_is_done_or_dead_is_not_followed(tmp_path: Path, following: Following, store: Store) -> None:
    write(tmp_path, OTHER, 99.0).finish("ready")
    write(tmp_path, "c" * 32, 99.0, owner={**ELSEWHERE}, heartbeat=1.0)
    write(tmp_path, OWN, 100.0)
    begin(store, lease=-1.0)
    assert following.leader() is None


def test_the_intent_of_another_host_is_followed_until_it_is_gone(following: Following, store: Store) -> None:
    made = begin(store)
    leader = following.leader()
    assert leader is not None
    assert (leader.job_id, leader.folder) == ("b" * 32, folder_of(made))
    for info in list(store.list(f"{folder_of(made)}/")):
        store.delete(info.key)
    with pytest.raises(VmferryError, match="failed or was cancelled") as caught:
        following.wait_for(leader, FollowedProgress())
    assert "kvm02" in caught.value.hint or caught.value.retryable


def test_one_that_found_nothing_changed_ends_with_what_it_looked_at(following: Following, store: Store) -> None:
    base = commit(store, 1)
    store.put(f"{folder_of(base)}/{CHECKED}", checked_mark(time.time(), OTHER))
    seen = following.wait_for(Leader(OTHER, ELSEWHERE, "gone"), FollowedProgress())
    assert seen is not None
    assert (seen[0].manifest.export_id, seen[1]) == (base, False)


def test_one_whose_lease_is_over_leaves_the_work_to_its_follower(following: Following, store: Store) -> None:
    made = begin(store, lease=-1.0)
    assert store.stat(f"{folder_of(made)}/{INTENT}") is not None
    assert following.wait_for(Leader("b" * 32, ELSEWHERE, folder_of(made)), FollowedProgress()) is None
