# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `./dev test` promises about time, failures and counts."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from report import CaseResult, GroupResult, print_summary, read_junit
from steps import Step, Steps


def step(folder: Path, program: str, refuted_by: str | None = None) -> Step:
    return Step("a step", [sys.executable, "-c", program], folder, refuted_by=refuted_by)


@pytest.mark.slow
def test_a_step_beyond_the_time_limit_is_ended_with_what_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    spawn = "import subprocess, time; child = subprocess.Popen(['sleep', '60'])"
    program = f"{spawn}; open({str(child)!r}, 'w').write(str(child.pid)); time.sleep(60)"
    steps = Steps("group", 2, tmp_path, strict=True)
    started = time.monotonic()
    assert not steps.run(step(tmp_path, program))
    assert time.monotonic() - started < 30
    assert steps.failures == ["a step ran out of the group's time"]
    stat = Path(f"/proc/{child.read_text()}/stat")
    deadline = time.monotonic() + 10
    while stat.exists() and ") Z " not in stat.read_text():
        assert time.monotonic() < deadline, "what the step started goes on"
        time.sleep(0.05)


def test_no_step_starts_after_the_time_limit(tmp_path: Path) -> None:
    steps = Steps("group", 0, tmp_path, strict=True)
    assert not steps.run(step(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')"))
    assert not (tmp_path / "ran").exists()


def test_one_failure_does_not_hide_the_next(tmp_path: Path) -> None:
    steps = Steps("group", 30, tmp_path, strict=True)
    steps.run_together([step(tmp_path, f"raise SystemExit({code})") for code in (3, 0, 4)])
    assert sorted(steps.failures) == ["a step ended with 3", "a step ended with 4"]


def test_a_run_that_says_it_did_nothing_has_failed(tmp_path: Path) -> None:
    steps = Steps("group", 30, tmp_path, strict=True)
    steps.run_together([step(tmp_path, "print('All targets skipped.')", refuted_by="All targets skipped")])
    assert steps.failures == ["a step did nothing: All targets skipped"]


@pytest.mark.parametrize(("strict", "failures", "notes"), [(True, 1, 0), (False, 0, 1)])
def test_a_missing_tool_fails_where_everything_must_be_there(
    tmp_path: Path, strict: bool, failures: int, notes: int
) -> None:
    steps = Steps("group", 30, tmp_path, strict=strict)
    steps.missing("a tool")
    assert (len(steps.failures), len(steps.notes)) == (failures, notes)


def test_where_no_test_is_counted_no_count_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary([GroupResult("lint", 5.5, 60, [], [])], [])
    assert capsys.readouterr().out.split() == ["group", "result", "seconds", "budget", "lint", "passed", "5.5", "60"]


def test_the_last_line_counts_every_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        "<testcase classname='a' name='passes' time='2.5'/>"
        "<testcase classname='a' name='fails' time='1'><failure/></testcase>"
        "<testcase classname='a' name='breaks' time='1'><error/></testcase>"
        "<testcase classname='a' name='hides' time='1'><skipped/></testcase>"
        "</testsuite></testsuites>"
    )
    tests = read_junit("group", [report])
    assert tests[0] == CaseResult("group", "a::passes", 2.5, "passed")
    print_summary([GroupResult("group", 5.5, 60, ["fails"], [])], tests)
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 2 failed, 1 skipped"
