# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the record of a job says once it has ended, and whoever reads it meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from one_vm import DATA, OneVm, export_one

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_jobs import list_jobs
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Undone
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import JobRecord


@pytest.fixture
def options(tmp_path: Path) -> TransferOptions:
    return TransferOptions(state_dir=str(tmp_path / "state"))


def only_job(options: TransferOptions) -> dict[str, Any]:
    (job,) = list_jobs(options.state_dir, "", "", "", 0)["jobs"]
    return dict(job)


def test_an_export_has_read_what_it_read_from_the_vm_and_nothing_else(tmp_path: Path, options: TransferOptions) -> None:
    made = export_one(tmp_path / "store", OneVm(), options)
    job = only_job(options)
    assert made["export"]["verified"] == "stored"
    assert job["bytes_read"] == made["export"]["disks"][0]["bytes_read"] == len(DATA)


@pytest.mark.parametrize("state", ["ready", "failed", "cancelled"])
def test_a_job_that_ended_moves_nothing_any_more(tmp_path: Path, options: TransferOptions, state: str) -> None:
    class Failing(OneVm):
        def clean_up(
            self, vm: Any, *, held_by: Collection[str] | None = None, dead: Collection[str] = ()
        ) -> list[Undone]:
            raise VmferryError("cancelled" if state == "cancelled" else "network", "It stops here.")

    if state == "ready":
        export_one(tmp_path / "store", OneVm(), options)
    else:
        with pytest.raises(VmferryError):
            export_one(tmp_path / "store", Failing(), options)
    job = only_job(options)
    assert (job["state"], job["finished"], job["rate"], job["eta"]) == (state, True, 0, None)


@pytest.mark.parametrize("state", ["ready", "failed"])
def test_no_record_that_anybody_reads_is_at_its_end_and_not_finished(
    tmp_path: Path, options: TransferOptions, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads it between two writes would tell of an end at 0.0 %."""

    class Failing(OneVm):
        def clean_up(
            self, vm: Any, *, held_by: Collection[str] | None = None, dead: Collection[str] = ()
        ) -> list[Undone]:
            raise VmferryError("network", "It stops here.")

    written, write = [], JobRecord._write

    def write_and_read(record: JobRecord) -> None:
        write(record)
        written.append(json.loads((record.folder / "record.json").read_bytes()))

    monkeypatch.setattr(JobRecord, "_write", write_and_read)
    if state == "ready":
        export_one(tmp_path / "store", OneVm(), options)
    else:
        with pytest.raises(VmferryError):
            export_one(tmp_path / "store", Failing(), options)
    at_end = [one for one in written if one["phase"] == state]
    assert [one["finished"] is not None for one in at_end] == [True]
    assert at_end[0]["bytes_read"] == (len(DATA) if state == "ready" else 0)


def test_a_job_that_starts_removes_the_records_of_jobs_long_over(tmp_path: Path, options: TransferOptions) -> None:
    old = JobRecord.create(Path(options.state_dir), "of-last-year", "export")
    old.finish("ready")
    found = json.loads((old.folder / "record.json").read_text())
    (old.folder / "record.json").write_text(json.dumps({**found, "heartbeat": 1.0}))
    os.utime(old.folder / "record.json", (1.0, 1.0))
    export_one(tmp_path / "store", OneVm(), options)
    assert only_job(options)["id"] != "of-last-year"
