# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a job lives, as its record tells; and for how long its record is kept."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.old_records import LOOKS, remove_old_jobs
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.owner import SILENCE, current_owner
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import JobRecord, read_job

JOB = "0123456789abcdef"


def create(state_dir: Path) -> JobRecord:
    return JobRecord.create(state_dir, JOB, "export")


@pytest.mark.parametrize(
    "other", [{"hostname": "pod-7f9"}, {"boot_id": "another"}, {"pid_namespace": 1}, {"pid": None}]
)
def test_a_job_whose_process_cannot_be_seen_lives_as_long_as_its_record_is_written(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    record = create(tmp_path)
    record.update({"owner": {**current_owner(), **other}, "heartbeat": time.time() - SILENCE + 30}, now=True)
    assert read_job(tmp_path, JOB)["alive"] is None
    record.update({"heartbeat": time.time() - SILENCE - 1}, now=True)
    assert read_job(tmp_path, JOB)["alive"] is False


def test_a_job_whose_process_is_seen_lives_however_long_its_record_was_not_written(tmp_path: Path) -> None:
    create(tmp_path).update({"heartbeat": time.time() - 86400}, now=True)
    assert read_job(tmp_path, JOB)["alive"] is True


def aged(state_dir: Path, name: str, days: float, **fields: Any) -> None:
    record = JobRecord.create(state_dir, name, "export")
    then = time.time() - days * 86400
    record.update({"started": then, "heartbeat": then, **fields}, now=True)
    os.utime(record.folder / "record.json", (then, then))


def test_jobs_that_are_over_go_after_thirty_days_and_no_others(tmp_path: Path) -> None:
    gone = {**current_owner(), "pid": 2**22 + 1}
    aged(tmp_path, "finished", 31, finished=1.0)
    aged(tmp_path, "deadlong", 31, owner=gone)
    aged(tmp_path, "finished-young", 29, finished=1.0)
    aged(tmp_path, "long-running", 31)
    (tmp_path / "jobs" / "beginning").mkdir()
    remove_old_jobs(tmp_path)
    left = sorted(path.name for path in (tmp_path / "jobs").iterdir())
    assert left == ["beginning", "finished-young", "long-running"]


def test_one_start_looks_at_so_many_folders_and_no_more(tmp_path: Path) -> None:
    for number in range(LOOKS + 30):
        aged(tmp_path, f"{number:08x}", 31, finished=1.0)
    remove_old_jobs(tmp_path)
    assert len(list((tmp_path / "jobs").iterdir())) == 30
    remove_old_jobs(tmp_path / "missing")
