# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""attach: a second run of a task follows the first, and neither is in the other's way."""

from __future__ import annotations

import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations import end_job as ending
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting import follow_export
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import JobRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_jobs import list_jobs
from rigs.domain import Guest

from .exports import MIB, Bench, ModuleProcess, compare, meanwhile
from .test_machine_bad_days import forget_job

SOME_SECONDS = "6MiB/s"  # of an export of the small machine


@contextmanager
def first_and_second(bench: Bench, **options: Any) -> Iterator[tuple[ModuleProcess, ModuleProcess]]:
    """The second follows the first, which has sent something."""
    asked = bench.module_arguments(vm="small", bandwidth_limit=SOME_SECONDS, **options)
    with bench.running_module("vm_export", asked) as first:
        first.wait_for_bytes()
        first.signal(signal.SIGSTOP)  # until the second is there, however long it takes to start
        with bench.running_module("vm_export", {**asked, "attach": True}) as second:
            assert second.wait_for_note() == f"following the job {first.job}"
            seen = second.wait_for_bytes()
            assert (seen["disk"], seen["kind"], seen["bytes_total"] > 20 * MIB) == ("disk-0", "export", True)
            first.signal(signal.SIGCONT)
            yield first, second


def test_a_second_run_shows_how_far_the_first_is_and_returns_what_it_made(bench: Bench, small: Guest) -> None:
    with first_and_second(bench) as (first, second):
        results = [first.result(), second.result()]
    assert results[0]["export"] == results[1]["export"]
    assert [result["changed"] for result in results] == [True, True]
    owner = {"hostname": platform.node(), "pid": first.process.pid}
    assert results[1]["attached"] == {"job": first.job, **owner}
    assert "attached" not in results[0]
    keys = bench.keys()
    assert {Path(key).parts[1] for key in keys} == {results[0]["export"]["id"]}
    bench.assert_nothing_left("small")


def test_cancelling_the_one_that_follows_does_not_cancel_the_first(bench: Bench, small: Guest) -> None:
    with first_and_second(bench) as (first, second):
        ending.end_job(JobRequest(second.job, "cancelled", state_dir=str(bench.state), timeout=30.0), False)
        assert second.result()["error"]["kind"] == "cancelled"
        assert first.result()["changed"]
    bench.assert_nothing_left("small")


def test_cancelling_the_first_ends_both_and_says_why(bench: Bench, small: Guest) -> None:
    with first_and_second(bench) as (first, second):
        ending.end_job(JobRequest(first.job, "cancelled", state_dir=str(bench.state), timeout=30.0), False)
        result = second.result()
    assert result["error"]["kind"] == "cancelled"
    assert f"The job {first.job}, which was followed, was cancelled." in result["msg"]
    assert bench.keys() == []
    bench.assert_nothing_left("small")


def test_where_the_first_is_killed_the_second_goes_on_with_its_work(bench: Bench, small: Guest) -> None:
    with first_and_second(bench) as (first, second):
        first.signal(signal.SIGKILL)
        first.process.wait()
        result = second.result()
    assert result["resumed"]["export"] == result["export"]["id"]
    assert "attached" not in result
    compare(bench.stored(result), "qcow2", bench.rig.directory / "small.qcow2", "qcow2")
    forget_job(bench, first.job)
    bench.assert_nothing_left("small")


def test_of_two_that_follow_one_that_is_killed_one_goes_on_and_the_other_follows_that(
    bench: Bench, small: Guest
) -> None:
    with first_and_second(bench) as (first, second):
        asked = bench.module_arguments(vm="small", bandwidth_limit=SOME_SECONDS, attach=True)
        with bench.running_module("vm_export", asked) as third:
            assert third.wait_for_note() == f"following the job {first.job}"
            first.signal(signal.SIGKILL)
            first.process.wait()
            results = [second.result(), third.result()]
    assert all("export" in one for one in results), [one.get("msg") for one in results]
    assert results[0]["export"] == results[1]["export"]
    went_on, followed = sorted(results, key=lambda one: "attached" in one)
    assert went_on["resumed"]["export"] == went_on["export"]["id"]
    assert followed["attached"]["job"] == went_on["job"]["id"]
    forget_job(bench, first.job)
    bench.assert_nothing_left("small")


def test_from_another_host_it_is_followed_through_the_store(
    bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_export, "STORE_POLL", 0.3)
    asked = bench.module_arguments(vm="small", bandwidth_limit=SOME_SECONDS)
    elsewhere = {"state_dir": str(bench.folder / "elsewhere")}
    with bench.running_module("vm_export", asked) as first:
        first.wait_for_bytes()
        first.signal(signal.SIGSTOP)
        ahead = bench.export("small", check_mode=True, attach=True, transfer=elsewhere)
        busy = bench.export("small", check_mode=True, transfer=elsewhere)

        def go_on() -> None:
            while not any(job["note"] for job in list_jobs(elsewhere["state_dir"], "", "", "", 0)["jobs"]):
                time.sleep(0.05)
            first.signal(signal.SIGCONT)

        with meanwhile(go_on):
            followed = bench.export("small", attach=True, transfer=elsewhere)
        made = first.result()
    assert (followed["attached"]["job"], followed["export"]) == (first.job, made["export"])
    assert f"follow the job {first.job}" in ahead["findings"][0]["message"]
    assert [finding["kind"] for finding in ahead["findings"] if finding["severity"] == "error"] == []
    errors = [finding["message"] for finding in busy["findings"] if finding["kind"] == "busy"]
    assert all(f"process {first.process.pid} on {platform.node()}, for " in error for error in errors)
    assert len(errors) == 2, "the host says it, and so does the store"
    bench.assert_nothing_left("small")


def test_what_is_not_what_was_asked_for_is_not_taken_for_it(bench: Bench, small: Guest) -> None:
    asked = bench.module_arguments(vm="small", bandwidth_limit=SOME_SECONDS)
    with bench.running_module("vm_export", asked) as first:
        first.wait_for_bytes()
        named = bench.export("small", name="nightly", mode="full", attach=True)
        made = first.result()
    assert (named["export"]["name"], "attached" in named) == ("nightly", False)
    assert named["export"]["id"] != made["export"]["id"]
    bench.assert_nothing_left("small")
