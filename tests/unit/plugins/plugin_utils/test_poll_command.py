# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shell finds a job where Python put it, and what it prints is understood."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.owner import current_owner, started_of
from ansible_collections.vmferry.migrate.plugins.plugin_utils import poll_command
from ansible_collections.vmferry.migrate.plugins.plugin_utils.poll_command import JobPlace

ROOT = Path(__file__).resolve().parents[4]
JOB = "0123456789abcdef"
WATCHER = "fedcba9876543210"
PATHS = [
    "/srv/state",
    '/srv/with space/it\'s $5; "quoted" `id` $(id)',
    "~",
    "~/state",
    "~root/state",
    "~nobody-such/state",
    "$HOME/state",
    "${HOME}/$MISSING/${MISSING}x",
    "${PLACE-x}/$PLACE",
    "relative/$PLACE",
    "/a/~/b",
    "$TILDE/x",
]


def shell(command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_expanded_as_an_option_of_type_path_is(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"HOME": "/home/some one", "PLACE": "a  b*", "PATH": os.environ["PATH"]}
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    expected = os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111  # as Ansible does
    assert shell(f'state={poll_command.expanded(path)}; printf %s "$state"', environment) == expected


ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"VMFERRY_STATE_DIR": "/srv/of ferry", "XDG_STATE_HOME": "/x"},
    {"VMFERRY_STATE_DIR": "", "XDG_STATE_HOME": "/x y"},
    {"XDG_STATE_HOME": "relative"},
    {"XDG_STATE_HOME": ""},
    {"HOME": "/home/some one"},
]


@pytest.mark.parametrize("of_task", [False, True], ids=["of the host", "of the task"])
@pytest.mark.parametrize("user", ["root", "another"])
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
def test_without_an_option_both_use_the_same_state_dir(environment: dict[str, str], user: str, of_task: bool) -> None:
    """The user is told by a double of geteuid and of id: tests need not run as root."""
    number = "0" if user == "root" else "1000"
    whole = {"PATH": os.environ["PATH"], "HOME": "/home/one", **environment}
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); os.geteuid = lambda: int(sys.argv[2]);"
        "from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import default_state_dir;"
        "print(default_state_dir())"
    )
    by_python = subprocess.run(
        [sys.executable, "-c", program, collections(), number], env=whole, capture_output=True, text=True, check=True
    ).stdout.strip()
    place = JobPlace(JOB, "", environment if of_task else {}, WATCHER)
    command = "; ".join([f"id() {{ echo {number}; }}", *place.statements(), 'printf %s "$job"'])
    assert shell(command, {**whole, **(dict.fromkeys(environment, "/other") if of_task else {})}) == (
        f"{by_python}/jobs/{JOB}"
    )


def collections() -> str:
    import ansible_collections.vmferry.migrate as collection

    return str(Path(next(iter(collection.__path__))).parents[2])


def test_a_poll_reads_the_record_and_renews_the_lease(tmp_path: Path) -> None:
    job, results, payload = tmp_path / "jobs" / JOB, tmp_path / "j1.2", tmp_path / "tmp dir"
    place = JobPlace(JOB, str(tmp_path), {}, WATCHER)
    command = poll_command.poll(place, str(results))
    answer = poll_command.parse(shell(command, dict(os.environ)))
    assert (answer.record, answer.result, answer.folder) == (None, None, str(job))
    assert not job.exists()

    job.mkdir(parents=True)
    payload.mkdir()
    (payload / "AnsiballZ_vm_export.py").touch()
    record = {"vm": "wéb\n01", "watcher": WATCHER}
    (job / "record.json").write_text(json.dumps(record))
    results.write_text('{"started": true, "finished": false, "ansible_job_id": "j1.2"}')
    answer = poll_command.parse(shell(command, dict(os.environ)))
    assert (answer.record, answer.result) == (record, None)
    assert (job / "lease").stat().st_mode & 0o777 == 0o600
    before = (job / "lease").stat().st_mtime_ns
    assert list(payload.iterdir())

    results.write_text('{"changed": true}')
    answer = poll_command.parse(shell(command, dict(os.environ)))
    assert answer.result == '{"changed": true}'
    assert (job / "lease").stat().st_mtime_ns > before

    shell(poll_command.remove_payload(str(payload)), dict(os.environ))
    assert not list(payload.iterdir())
    shell(poll_command.remove(str(results), str(payload)), dict(os.environ))
    assert not results.exists()
    assert not payload.exists()


def begun(state_dir: Path, watcher: str) -> Path:
    job = state_dir / "jobs" / JOB
    job.mkdir(parents=True)
    (job / "record.json").write_text(json.dumps({"vm": "web01", "watcher": watcher}))
    return job


def test_a_poll_tells_whether_the_process_of_the_job_is_there(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        stat = Path(f"/proc/{child.pid}/stat").read_text()
        owner = {**current_owner(), "pid": child.pid, "pid_started": started_of(stat)}
        job, place = begun(tmp_path, WATCHER), JobPlace(JOB, str(tmp_path), {}, WATCHER)

        def alive(**other: object) -> bool | None:
            record = {"watcher": WATCHER, "owner": {**owner, **other}}
            (job / "record.json").write_text(json.dumps(record))
            return poll_command.parse(shell(poll_command.poll(place, "/none", child.pid), dict(os.environ))).alive

        assert alive() is True
        os.kill(child.pid, signal.SIGSTOP)
        assert alive() is True
        assert alive(pid_started=1) is False
        for elsewhere in ({"hostname": "another"}, {"boot_id": "another"}, {"pid_namespace": 1}, {"boot_id": ""}):
            assert alive(**elsewhere) is None
        answer = poll_command.parse(shell(poll_command.poll(place, "/none"), dict(os.environ)))
        assert (answer.alive, answer.pid) == (None, child.pid)
        child.kill()
        time.sleep(0.1)
        assert alive() is False  # dead, though its parent has not asked yet
        child.wait()
        assert alive() is False
    finally:
        child.kill()
        child.wait()


def test_another_job_of_that_id_is_not_seen_kept_alive_or_cancelled(tmp_path: Path) -> None:
    job = begun(tmp_path, "0000000000000000")
    place = JobPlace(JOB, str(tmp_path), {}, WATCHER)
    answer = poll_command.parse(shell(poll_command.poll(place, "/none"), dict(os.environ)))
    at_once = poll_command.abandon(place, "its play").replace(f"-ge {poll_command.START_SECONDS}", "-ge 0")
    shell(at_once, dict(os.environ))
    time.sleep(0.3)  # what waits, waits behind the command's back
    assert answer.record is None
    assert [path.name for path in job.iterdir()] == ["record.json"]


def test_words_of_a_login_and_ends_of_lines_of_a_terminal_do_not_disturb(tmp_path: Path) -> None:
    output = "Welcome!\r\n" + shell(
        poll_command.poll(JobPlace(JOB, str(tmp_path), {}, WATCHER), "/none"), dict(os.environ)
    )
    assert poll_command.parse(output.replace("\n", "\r\n")).record is None


@pytest.mark.parametrize("cut", [0, 20, -20])
def test_half_an_answer_is_none(tmp_path: Path, cut: int) -> None:
    whole = shell(poll_command.poll(JobPlace(JOB, str(tmp_path), {}, WATCHER), "/none"), dict(os.environ))
    with pytest.raises((ValueError, KeyError)):
        poll_command.parse(whole[:cut])


def test_who_abandons_a_job_first_is_named(tmp_path: Path) -> None:
    job = begun(tmp_path, WATCHER)
    for reason in ("it's the first; $(id)", "the second"):
        shell(poll_command.abandon(JobPlace(JOB, str(tmp_path), {}, WATCHER), reason), dict(os.environ))
    assert (job / "abandon").read_text() == "it's the first; $(id)\n"


def test_a_job_that_is_just_starting_is_cancelled_once_it_has_a_record(tmp_path: Path) -> None:
    job = tmp_path / "jobs" / JOB
    began = time.monotonic()
    shell(poll_command.abandon(JobPlace(JOB, str(tmp_path), {}, WATCHER), "its play"), dict(os.environ))
    assert time.monotonic() - began < poll_command.START_SECONDS / 2
    assert begun(tmp_path, WATCHER) == job
    while not (job / "abandon").exists():
        assert time.monotonic() - began < 10
        time.sleep(0.02)
