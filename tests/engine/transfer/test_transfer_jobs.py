# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job can be followed, found and ended: progress, records, and the thread that watches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Mapping

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.owner import current_owner, is_owner_alive
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import Progress
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import (
    JobRecord,
    default_state_dir,
    list_jobs,
    read_job,
    read_log,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.supervise import supervise
from rigs.record_hammer import hammer

JOB = "0123456789abcdef"
PATH = os.pathsep.join([str(Path(__file__).parent), *sys.path])


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def two_disks(clock: Clock) -> Progress:
    progress = Progress({"exporting": 3.0, "verifying": 1.0}, clock)
    progress.enter("exporting", [progress.new_disk("disk-0", 100), progress.new_disk("disk-1", 300)])
    return progress


def test_percent_weighs_disks_and_phases_and_ends_at_100() -> None:
    clock = Clock()
    progress = two_disks(clock)
    assert progress.snapshot()["percent"] == 0
    first = progress.disk(0)
    first.read(100)
    assert progress.snapshot()["percent"] == pytest.approx(75 * 50 / 400, abs=0.1)
    first.settled(100)
    second = progress.disk(1)
    second.expect(100)
    assert progress.snapshot()["percent"] == pytest.approx(75 * 100 / 200, abs=0.1)
    assert progress.snapshot()["disk"] == "disk-1"
    assert progress.snapshot()["disk_number"] == progress.snapshot()["disk_count"] == 2
    second.read(100)
    second.settled(100)
    progress.enter("verifying", [progress.new_disk("disk-0", 100)])
    assert progress.snapshot()["percent"] == 75
    verified = progress.disk(0)
    verified.read(100)
    verified.settled(100)
    assert progress.snapshot()["percent"] == 99.9
    progress.enter("ready")
    assert progress.snapshot()["percent"] == 100
    assert progress.snapshot()["bytes_read"] == 200, "what is read back to verify it was read once before"


def test_percent_never_exceeds_100_nor_goes_back_whatever_is_counted() -> None:
    clock = Clock()
    progress = two_disks(clock)
    disk, seen = progress.disk(0), []
    for _unused in range(30):
        clock.now += 1
        disk.read(100)
        disk.settled(100)
        progress.retried()
        seen.append(progress.snapshot()["percent"])
    disk.expect(1000)
    seen.append(progress.snapshot()["percent"])
    assert seen == sorted(seen)
    assert max(seen) <= 100
    assert progress.snapshot()["retries"] == 30


def test_rate_average_and_eta_follow_the_bytes() -> None:
    clock = Clock()
    progress = Progress({"exporting": 1.0}, clock)
    progress.enter("exporting", [progress.new_disk("disk-0", 10_000)])
    disk = progress.disk(0)
    assert progress.snapshot()["eta"] is None
    for _unused in range(50):
        clock.now += 1
        disk.read(100)
        disk.settled(100)
        progress.snapshot()
    now = progress.snapshot()
    assert (now["rate"], now["average_rate"]) == (100, 100)
    assert now["eta"] == pytest.approx(50, rel=0.01)
    for _unused in range(60):
        clock.now += 1
        disk.read(50)
        disk.settled(50)
        progress.snapshot()
    assert progress.snapshot()["rate"] == pytest.approx(50, rel=0.02)
    assert 70 < progress.snapshot()["average_rate"] < 100


def test_the_rate_is_right_from_the_first_bytes_on_however_large_the_steps_are() -> None:
    """A window of 2 MiB at 512 KiB/s, every 4 s, after a while in which no byte could move."""
    clock = Clock()
    progress = Progress({"exporting": 1.0}, clock)
    for _unused in range(20):
        clock.now += 1
        progress.snapshot()
    progress.enter("exporting", [progress.new_disk("disk-0", 1 << 30)])
    seen = []
    for second in range(1, 61):
        clock.now += 1
        if second % 4 == 0:
            progress.disk(0).read(2 << 20)
            progress.disk(0).settled(2 << 20)
        seen.append(progress.snapshot()["rate"] / (512 << 10))
    assert seen[:3] == [0, 0, 0]
    assert max(seen) < 1.5
    assert min(seen[3:]) > 0.5


def test_bytes_in_a_part_that_is_not_sent_are_not_through() -> None:
    clock = Clock()
    progress = Progress({"exporting": 1.0}, clock)
    progress.enter("exporting", [progress.new_disk("disk-0", 1000)])
    disk = progress.disk(0)
    for how in (disk.read, disk.held, disk.settled):
        how(800)
    clock.now += 10
    assert (progress.snapshot()["rate"], progress.snapshot()["phase_percent"]) == (0, 40.0)
    disk.held(-800)
    clock.now += 10
    assert progress.snapshot()["rate"] > 0
    assert progress.snapshot()["phase_percent"] == 80.0


def create(folder: Path, clock: Clock | None = None, **more: Any) -> JobRecord:
    return JobRecord.create(folder, JOB, "export", vm="web", url="file:///exports", clock=clock or Clock(), **more)


def test_a_record_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        record = create(tmp_path / "state")
        record.log("info", "hello")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").rglob("*")}
    assert modes == {"jobs": 0o700, JOB: 0o700, "record.json": 0o600, "log.jsonl": 0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_record_is_written_at_most_once_a_second_and_at_once_when_the_phase_changes(tmp_path: Path) -> None:
    clock = Clock()
    record = create(tmp_path, clock)
    record.update({"bytes_read": 1})
    assert "bytes_read" not in read_job(tmp_path, JOB)
    clock.now += 1
    record.update({"bytes_read": 2})
    assert read_job(tmp_path, JOB)["bytes_read"] == 2
    record.update({"bytes_read": 3})
    assert read_job(tmp_path, JOB)["bytes_read"] == 2
    record.update({"bytes_read": 4, "phase": "verifying"})
    assert read_job(tmp_path, JOB)["bytes_read"] == 4


def test_readers_never_see_half_a_record(tmp_path: Path) -> None:
    record = create(tmp_path)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            record.update({"number": number, "filler": "x" * (number % 7 * 5000)}, now=True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _unused in range(300):
            found = read_job(tmp_path, JOB)
            if "filler" in found:
                assert len(found["filler"]) == found["number"] % 7 * 5000
    finally:
        stop.set()
        writer.join()
    assert record.write_error is None


def test_a_finished_record_says_how_and_stays_so(tmp_path: Path) -> None:
    record = create(tmp_path)
    assert read_job(tmp_path, JOB)["alive"] is True
    record.update({"rate": 100, "eta": 2.0}, now=True)
    record.finish("failed", error=VmferryError("no_space", "Full.", "Make room.", phase="exporting"))
    record.update({"phase": "exporting"}, now=True)
    record.finish("ready", result={})
    found = read_job(tmp_path, JOB)
    assert (found["phase"], found["alive"], found["result"]) == ("failed", False, None)
    assert (found["rate"], found["eta"]) == (0, None)
    assert found["error"] == {
        "kind": "no_space",
        "retryable": False,
        "phase": "exporting",
        "hint": "Make room.",
        "message": "Full.",
    }


def test_a_record_that_cannot_be_written_does_not_stop_the_job(tmp_path: Path) -> None:
    record = create(tmp_path)
    (tmp_path / "jobs" / JOB / ".record.json").mkdir()
    record.update({"bytes_read": 1}, now=True)
    assert isinstance(record.write_error, OSError)
    (tmp_path / "jobs" / JOB / ".record.json").rmdir()
    record.update({"bytes_read": 2}, now=True)
    assert record.write_error is None
    assert read_job(tmp_path, JOB)["bytes_read"] == 2


@pytest.mark.parametrize(
    "name", ["../../etc/cron.d/x", "", "short", "a" * 65, "abcdefgh\n", "/abcdefgh", "abcd.efgh", "-bcdefgh"]
)
def test_what_is_no_id_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    for use in (lambda: JobRecord.create(tmp_path, name, "export"), lambda: read_job(tmp_path, name)):
        with pytest.raises(VmferryError) as caught:
            use()
        assert caught.value.kind == "invalid_config"
    assert not list(tmp_path.iterdir())


def test_an_id_that_exists_is_refused_and_an_unknown_one_not_found(tmp_path: Path) -> None:
    create(tmp_path)
    with pytest.raises(VmferryError) as caught:
        create(tmp_path)
    assert caught.value.kind == "conflict"
    with pytest.raises(VmferryError) as caught:
        read_job(tmp_path, "f" * 16)
    assert caught.value.kind == "not_found"


def test_a_state_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VmferryError) as caught:
        create(tmp_path / "file" / "state")
    assert caught.value.kind in ("permission_denied", "not_found")
    assert "state_dir" in caught.value.hint


def test_secrets_in_a_url_are_not_recorded(tmp_path: Path) -> None:
    JobRecord.create(tmp_path, JOB, "export", url="https://me:hunter2@host:8443/path?X-Amz-Signature=abc")
    content = (tmp_path / "jobs" / JOB / "record.json").read_text()
    assert "hunter2" not in content
    assert "abc" not in content.replace(JOB, "")
    assert json.loads(content)["url"] == "https://host:8443/path"


def test_jobs_are_listed_newest_first_and_strangers_left_out(tmp_path: Path) -> None:
    assert list_jobs(tmp_path) == []
    for number in range(3):
        JobRecord.create(tmp_path, f"{number:08x}", "export")
        time.sleep(0.01)
    (tmp_path / "jobs" / "stranger!").mkdir()
    (tmp_path / "jobs" / "ffffffff").mkdir()
    (tmp_path / "jobs" / "eeeeeeee").mkdir()
    (tmp_path / "jobs" / "eeeeeeee" / "record.json").write_text("{")
    assert [job["id"] for job in list_jobs(tmp_path)] == ["00000002", "00000001", "00000000"]


def test_the_logs_last_lines_are_read(tmp_path: Path) -> None:
    record = create(tmp_path)
    for number in range(5000):
        record.log("info", f"line {number} " + "x" * 60)
    with (record.folder / "log.jsonl").open("a") as file:
        file.write('{"half')
    assert [line["message"].split()[1] for line in read_log(tmp_path, JOB, 3)] == ["4997", "4998", "4999"]
    assert read_log(tmp_path, JOB, 0) == []
    assert 1000 < len(read_log(tmp_path, JOB, 10**6)) < 5000


def test_an_owner_is_alive_only_where_that_can_be_known() -> None:
    owner = current_owner()
    assert is_owner_alive(owner) is True
    assert is_owner_alive({**owner, "pid_started": owner["pid_started"] - 1}) is False
    assert is_owner_alive({**owner, "boot_id": "another"}) is None  # before a restart, or of another host of that name
    assert is_owner_alive({**owner, "hostname": "elsewhere"}) is None
    assert is_owner_alive({**owner, "pid_namespace": 1}) is None
    assert is_owner_alive({}) is None
    child = subprocess.Popen(["sleep", "60"])
    started = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    theirs = {**owner, "pid": child.pid, "pid_started": started}
    assert is_owner_alive(theirs) is True
    child.kill()
    time.sleep(0.1)
    assert is_owner_alive(theirs) is False  # dead, though its parent has not asked yet
    child.wait()
    assert is_owner_alive(theirs) is False


def test_the_state_directory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VMFERRY_STATE_DIR", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_dir() == Path("/var/lib/vmferry")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_state_dir() == Path("/home/me/.local/state/vmferry")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_state_dir() == Path("/state/vmferry")
    monkeypatch.setenv("VMFERRY_STATE_DIR", "/chosen")
    assert default_state_dir() == Path("/chosen")


class Records:
    def __init__(self) -> None:
        self.seen: list[Mapping[str, Any]] = []

    def update(self, snapshot: Mapping[str, Any]) -> None:
        self.seen.append(snapshot)


def watched(work: Any, flow: Flow | None = None, progress: Progress | None = None, **limits: Any) -> Any:
    settings = {"idle_timeout": None, "tick": 0.01, "grace": 5.0, **limits}
    return supervise(flow or Flow(), progress or Progress(), Records(), work, **settings)


def test_what_the_work_returns_is_returned_and_its_error_raised_with_the_phase() -> None:
    assert watched(lambda: 42) == 42
    assert watched(lambda: None) is None
    progress = Progress()
    error = VmferryError("no_space", "Full.")

    def work() -> None:
        progress.enter("creating")
        raise error

    with pytest.raises(VmferryError) as caught:
        watched(work, progress=progress)
    assert caught.value is error
    assert error.phase == "creating"


def test_no_byte_moved_is_a_timeout_that_names_what_stood_still() -> None:
    flow, progress = Flow(), Progress()

    def work() -> None:
        progress.enter("exporting", [progress.new_disk("disk-7", 100)])
        progress.disk(0).read(10)
        flow.sleep(60)

    started = time.monotonic()
    with pytest.raises(VmferryError) as caught:
        watched(work, flow, progress, idle_timeout=0.3)
    assert 0.3 <= time.monotonic() - started < 5
    assert (caught.value.kind, caught.value.phase) == ("timeout", "exporting")
    assert "disk-7" in caught.value.message


def test_slow_is_not_idle_and_phases_without_bytes_may_take_their_time() -> None:
    flow, progress = Flow(), Progress()

    def work() -> str:
        progress.enter("snapshotting")
        flow.sleep(0.5)
        progress.enter("exporting", [progress.new_disk("disk-0", 100)])
        disk = progress.disk(0)
        for _unused in range(10):
            flow.sleep(0.05)
            disk.sent(1)
        return "done"

    assert watched(work, flow, progress, idle_timeout=0.3) == "done"


def test_a_phase_that_asks_may_last_as_long_as_it_is_answered() -> None:
    flow, progress = Flow(), Progress()

    def work(answers: int) -> None:
        progress.enter("validating")
        for _unused in range(answers):
            flow.sleep(0.1)
            progress.answered()
        flow.sleep(60 if answers == 0 else 0)

    watched(lambda: work(6), flow, progress, idle_timeout=0.3)
    with pytest.raises(VmferryError, match=r"Nothing answered for 0\.3 s while validating") as caught:
        watched(lambda: work(0), flow, progress, idle_timeout=0.3)
    assert (caught.value.kind, caught.value.phase) == ("timeout", "validating")


def test_an_answer_of_the_store_is_no_sign_of_life_while_bytes_should_move() -> None:
    """Or the lease, which is renewed beside them, would hide that they stand still."""
    clock = Clock()
    progress = two_disks(clock)
    clock.now += 100
    progress.answered()
    assert progress.idle_for == 100


def test_a_job_that_takes_too_long_is_ended() -> None:
    flow, progress = Flow(), Progress()

    def work() -> None:
        while True:
            flow.sleep(0.01)
            progress.alive()

    with pytest.raises(VmferryError) as caught:
        watched(work, flow, progress, max_duration=0.3)
    assert caught.value.kind == "timeout"
    assert "max_duration" in caught.value.message


def test_a_cancel_waits_until_the_work_has_undone_itself() -> None:
    flow, undone = Flow(), []

    def work() -> None:
        try:
            flow.request_cancel("somebody asked")
            flow.sleep(60)
        finally:
            with flow.shielded():
                flow.sleep(0.2)
            undone.append(True)

    with pytest.raises(VmferryError) as caught:
        watched(work, flow)
    assert caught.value.kind == "cancelled"
    assert "somebody asked" in caught.value.message
    assert undone == [True]


def test_a_thread_that_cannot_be_stopped_does_not_hold_the_caller_for_ever() -> None:
    flow, release = Flow(), threading.Event()
    flow.request_cancel("now")
    heard: list[str] = []
    try:
        with pytest.raises(VmferryError) as caught:
            watched(lambda: release.wait(20), flow, grace=0.2, left_behind=lambda: heard.append("it"))
        assert caught.value.kind == "cancelled"
        assert heard == ["it"]
    finally:
        release.set()


def test_work_that_says_that_its_undoing_takes_longer_is_not_left_behind() -> None:
    flow, heard = Flow(), threading.Event()

    def work() -> None:
        with flow.patient(60.0):
            flow.stop(VmferryError("cancelled", "Enough."))
            heard.wait(0.5)  # seconds, many times the grace; and what follows is undone in peace, too
        time.sleep(0.2)
        undone.append(True)
        flow.raise_if_stopped()

    undone: list[bool] = []
    with pytest.raises(VmferryError, match="Enough"):
        watched(work, flow, grace=0.0, left_behind=heard.set)
    assert (undone, heard.is_set()) == ([True], False)


def test_patience_ends_with_what_needed_it() -> None:
    flow = Flow()
    with flow.patient(60.0), flow.patient(5.0):
        assert flow.patience == 60.0
    assert flow.patience == 0.0


def test_a_cancel_that_comes_too_late_does_not_undo_what_is_done() -> None:
    flow = Flow()

    def work() -> str:
        flow.stop(VmferryError("cancelled", "Late."))
        return "committed"

    assert watched(work, flow) == "committed"


def test_what_was_stopped_and_forgiven_is_not_given_up_later() -> None:
    flow = Flow()

    def work() -> str:
        flow.stop(VmferryError("conflict", "The journal is wrong."))
        time.sleep(0.1)
        flow.forgive()
        flow.sleep(0.4)
        return "begun anew"

    assert watched(work, flow, grace=0.3) == "begun anew"


SIGNALLED = """
import signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # a test run by nohup would pass on that they are ignored
    signal.signal(number, signal.SIG_DFL)
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import Progress
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.supervise import cancel_on_signals, supervise
from test_transfer_jobs import Records
flow = Flow()
def work():
    print("working", flush=True)
    try:
        flow.sleep(30)
    finally:
        print("undone", flush=True)
with cancel_on_signals(flow):
    try:
        supervise(flow, Progress(), Records(), work, idle_timeout=None)
    except VmferryError as error:
        print(error.kind, error.message, flush=True)
print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_cancels_the_job_in_order(number: signal.Signals) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED],
        env={**os.environ, "PYTHONPATH": PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "working\n"
    child.send_signal(number)
    out, problems = child.communicate(timeout=20)
    assert out.splitlines() == ["undone", f"cancelled The job was cancelled: it received {number.name}.", "True"]
    assert problems == ""
    assert child.returncode == 0


def test_a_record_is_never_seen_torn_and_never_goes_back(tmp_path: Path) -> None:
    seen = hammer(tmp_path, 1.5, readers=2)
    assert seen.writes > 100
    assert seen.reads > 100
    assert (seen.torn, seen.backward) == (0, 0)
    assert seen.ended == 2, "both saw the end"
    assert seen.phases >= 2 * 4, "and much of what was before"
