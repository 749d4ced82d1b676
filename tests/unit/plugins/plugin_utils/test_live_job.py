# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A silent job is waited for while its process lives, and is dead when that is gone. The clock is the test's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.utils.display import Display

from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.owner import SILENCE, current_owner, started_of
from ansible_collections.vmferry.migrate.plugins.plugin_utils import live_job
from ansible_collections.vmferry.migrate.plugins.plugin_utils.live_job import LiveJob
from ansible_collections.vmferry.migrate.plugins.plugin_utils.watch_options import WatchOptions

JOB = "0123456789abcdef"


class Host:
    """One with a job, whose process is a `sleep`, and an action that runs real shell commands there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.now = folder / "jobs" / JOB, 1000.0
        self.process = subprocess.Popen(["sleep", "600"])
        self.shown: list[str] = []
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=lambda seconds: None)
        monkeypatch.setattr(live_job, "time", clock)
        monkeypatch.setattr(Display, "display", lambda display, line: self.shown.append(line))
        action: Any = SimpleNamespace(_low_level_execute_command=self._run, _task=SimpleNamespace(no_log=False))
        options = WatchOptions.of({})
        arguments = {"job_id": JOB, "state_dir": str(folder)}
        self.job = LiveJob(action, arguments, {}, {"inventory_hostname": "kvm1"}, options)
        self.job._results_file = str(folder / "results")

    def _run(self, command: str, sudoable: bool) -> dict[str, Any]:
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
        return {"rc": done.returncode, "stdout": done.stdout}

    def write_record(self, owner: Mapping[str, Any] | None = None, **fields: Any) -> None:
        started = started_of(Path(f"/proc/{self.process.pid}/stat").read_text())
        own = {**current_owner(), "pid": self.process.pid, "pid_started": started, **(owner or {})}
        record = {"watcher": self.job._place.watcher, "vm": "web01", "phase": "exporting", "finished": None}
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "record.json").write_text(json.dumps({**record, "owner": own, **fields}))

    def after(self, seconds: float) -> dict[str, Any] | None:
        """The task's result, if it has one then."""
        self.now += seconds
        assert self.job._poll()
        return self.job._ended()

    @property
    def abandoned(self) -> bool:
        return (self.folder / "abandon").exists()

    def lines_about(self, words: str) -> list[str]:
        return [line for line in self.shown if words in line]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path, monkeypatch)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def test_a_silent_job_whose_process_lives_is_waited_for_and_that_is_told_once(host: Host) -> None:
    host.write_record()
    os.kill(host.process.pid, signal.SIGSTOP)
    assert [host.after(seconds) for seconds in (0, 1, 30, 40, 3600, 86400)] == [None] * 6
    assert len(host.lines_about("its process lives, and is waited for")) == 1
    assert not host.abandoned
    host.write_record(bytes_read=1)
    host.after(1)
    host.after(61)
    assert len(host.lines_about("its process lives, and is waited for")) == 2


def test_a_process_that_is_gone_is_told_within_seconds(host: Host) -> None:
    host.write_record()
    assert [host.after(0), host.after(1)] == [None, None]
    host.process.kill()
    host.process.wait()
    assert [host.after(1), host.after(14)] == [None, None]  # its result may be on its way
    result = host.after(2)
    assert result is not None
    assert result["msg"].startswith("The job ended without a result while it was exporting.")
    assert (result["error"]["kind"], result["error"]["retryable"]) == ("cancelled", True)
    assert result["job"]["state"] == "failed", "as job_info tells it, and not that it is running"
    assert not host.abandoned


def test_a_process_that_cannot_be_seen_is_given_up_after_five_minutes_and_stopped(host: Host) -> None:
    host.write_record({"boot_id": "before a restart"})
    assert [host.after(0), host.after(1), host.after(SILENCE - 2)] == [None, None, None]
    assert len(host.lines_about("its process cannot be seen from here")) == 1
    result = host.after(3)
    assert result is not None
    assert result["error"]["kind"] == "cancelled"
    assert (host.folder / "abandon").read_text() == "a task that waited for a sign of life in vain\n"


def test_a_job_that_never_shows_is_given_up_and_stopped_should_it_come_after_all(host: Host) -> None:
    assert [host.after(0), host.after(live_job.START_PATIENCE - 1)] == [None, None]
    result = host.after(2)
    assert result is not None
    assert "nothing was seen of its job" in result["msg"]
    host.write_record()
    deadline = time.monotonic() + 10
    while not host.abandoned:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_that_has_finished_without_a_result_is_not_waited_for(host: Host) -> None:
    host.write_record()
    host.after(0)
    host.write_record(finished=1.0, phase="failed")
    assert [host.after(1), host.after(14)] == [None, None]
    assert host.after(2) is not None
