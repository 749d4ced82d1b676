# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job and its limit: which jobs share one, what it leaves on the host, and whom the job yields to."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from one_vm import OneVm, export_one

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.priority import Priority

PATH = str(Path(__file__).resolve().parents[3] / ".build")
RATE = 1_000_000  # bytes a second
BURST = 0.25  # seconds


@contextmanager
def jobs(folder: Path, *several: TransferOptions) -> Iterator[list[Store]]:
    """Of each, its store."""
    with ExitStack() as stack:
        spec = StoreSpec(str(folder))
        yield [
            stack.enter_context(RunningJob.start("export", options, "web01", spec.url, {}, False)).open_store(spec)
            for options in several
        ]


def options(folder: Path, limit: str, priority: Priority = "normal") -> TransferOptions:
    return TransferOptions(bandwidth_limit=limit, state_dir=str(folder / "state"), priority=priority)


def seconds_of_a_put(store: Store, nbytes: int) -> float:
    started = time.monotonic()
    store.put("object", bytes(nbytes))
    return time.monotonic() - started


@pytest.mark.parametrize(("other", "alone"), [("1MB/s", False), ("976.5625KiB/s", False), ("8MB/s", True)])
def test_jobs_with_the_same_limit_share_it_however_it_is_written(tmp_path: Path, other: str, alone: bool) -> None:
    with jobs(tmp_path, options(tmp_path, "1MB/s"), options(tmp_path, other)) as (first, second):
        seconds_of_a_put(first, RATE)  # beyond the burst
        assert (seconds_of_a_put(second, 2 * RATE) < 1.0) == alone  # or 2, less what a busy machine took in between


def test_jobs_of_several_state_directories_share_nothing(tmp_path: Path) -> None:
    with jobs(tmp_path, options(tmp_path, "1MB/s"), options(tmp_path / "other", "1MB/s")) as (first, second):
        seconds = []
        for _unused in range(5):  # a busy machine delays one, not each
            seconds_of_a_put(first, RATE)
            seconds.append(seconds_of_a_put(second, RATE // 4))
        assert min(seconds) < 0.1


@pytest.mark.parametrize(("priority", "seconds"), [("normal", 0.05), ("high", 0.1)])
def test_a_job_books_as_much_at_once_as_its_priority_says(tmp_path: Path, priority: Priority, seconds: float) -> None:
    before = time.monotonic()
    with jobs(tmp_path, options(tmp_path, "1MB/s", priority)) as (store,):
        store.put("object", b"1")
    after = time.monotonic()
    (file,) = (tmp_path / "state/bandwidth").iterdir()
    (until,) = struct.unpack_from("<d", file.read_bytes())
    assert before <= until - seconds + BURST <= after


@pytest.mark.parametrize("limit", ["", "0", "off"])
def test_without_a_limit_no_file_is_made_for_one(tmp_path: Path, limit: str) -> None:
    export_one(tmp_path / "store", OneVm(), options(tmp_path, limit))
    assert not (tmp_path / "state/bandwidth").exists()
    export_one(tmp_path / "limited", OneVm(), options(tmp_path, "1GiB/s"))
    assert len(list((tmp_path / "state/bandwidth").iterdir())) == 1


def test_check_mode_makes_none_either(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    export_one(tmp_path / "store", OneVm(), options(tmp_path, "1GiB/s"), check_mode=True)
    assert not (tmp_path / "state").exists()


def test_a_limit_that_cannot_be_shared_is_told_before_the_first_byte(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/bandwidth").write_text("in the way")
    with pytest.raises(VmferryError, match="state directory") as caught:
        export_one(tmp_path / "store", OneVm(), options(tmp_path, "1GiB/s"))
    assert caught.value.kind == "permission_denied"
    assert not (tmp_path / "store").exists()


JOB = """
import os, subprocess, sys
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
options = TransferOptions(state_dir=sys.argv[1], priority=sys.argv[2])
with RunningJob.start("export", options, "web01", "/srv", {}, False) as job:
    job.supervise(lambda: subprocess.run(["ionice"], check=True))
    print(job.supervise(lambda: os.nice(0)))
"""


def test_a_job_of_low_priority_yields_also_in_its_threads_and_children(tmp_path: Path) -> None:
    def told(priority: Priority) -> list[str]:
        command = [sys.executable, "-c", JOB, str(tmp_path), priority]
        environment = {**os.environ, "PYTHONPATH": PATH}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()

    assert told("low") == ["best-effort: prio 7", str(max(10, os.nice(0)))]
    assert told("high") == told("normal")
    assert told("normal")[1] == str(os.nice(0))
