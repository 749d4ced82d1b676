# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real transfers, watched, cancelled and waited for by others: on the host that runs them, and through the store."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations import end_job as ending
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.attempt import AttemptFolder
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import JobRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_jobs import list_jobs
from rigs.domain import Guest

from .exports import SLOW, Bench, refused


def end(bench: Bench, job: str, state: Any, *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    request = JobRequest(job, state, **{"state_dir": str(bench.state), "timeout": 30.0, **options})
    return ending.end_job(request, check_mode)


def slow_export(bench: Bench) -> dict[str, Any]:
    return bench.module_arguments(vm="small", bandwidth_limit=SLOW)


def test_a_running_export_is_cancelled_and_nothing_of_it_is_left_when_that_is_said(bench: Bench, small: Guest) -> None:
    with bench.running_module("vm_export", slow_export(bench)) as module:
        module.wait_for_bytes()
        refused(lambda: end(bench, module.job, "absent"), "busy", module.job)
        assert end(bench, module.job, "cancelled", check_mode=True)["changed"]
        assert bench.jobs(job=module.job)[0]["state"] == "running"
        result = end(bench, module.job, "cancelled")
        assert (result["changed"], result["job"]["state"]) == (True, "cancelled")
        assert "the module job asked for it" in result["job"]["error"]["message"]
        assert bench.keys() == []
        assert module.result()["error"]["kind"] == "cancelled"
    bench.assert_nothing_left("small")
    assert not end(bench, module.job, "cancelled")["changed"]
    assert end(bench, module.job, "absent")["changed"]
    assert not end(bench, module.job, "absent")["changed"]
    refused(lambda: end(bench, module.job, "finished"), "not_found", module.job)


@pytest.mark.parametrize("place", ["bench", "s3_bench"])
def test_rate_and_eta_are_those_of_the_limit_from_the_first_seconds_on(
    request: pytest.FixtureRequest, small: Guest, place: str
) -> None:
    limit, bench = 500 << 10, request.getfixturevalue(place)
    arguments = bench.module_arguments(vm="small", bandwidth_limit="500KiB/s", on_failure="undo")
    with bench.running_module("vm_export", arguments) as module:
        begun = module.wait_for_bytes()["heartbeat"]
        seen = []
        while not seen or seen[-1]["heartbeat"] < begun + 7:
            time.sleep(0.5)
            seen += bench.jobs(job=module.job)
        module.process.terminate()
        module.result()
    rates = [job["rate"] for job in seen if job["heartbeat"] > begun + 3]
    assert all(limit / 1.5 < rate < limit * 1.5 for rate in rates), rates
    assert seen[-1]["eta"] == pytest.approx(seen[-1]["bytes_total"] / limit, rel=0.5)
    bench.assert_nothing_left("small")


def test_a_job_that_is_done_cannot_be_cancelled_any_more(bench: Bench, off: str) -> None:
    job = bench.export(off)["job"]["id"]
    refused(lambda: end(bench, job, "cancelled"), "conflict", job)
    assert end(bench, job, "finished")["job"]["state"] == "ready"


def test_waiting_ends_with_the_job_and_not_before(bench: Bench, small: Guest) -> None:
    with bench.running_module("vm_export", slow_export(bench)) as module:
        module.wait_for_bytes()
        refused(lambda: end(bench, module.job, "finished", timeout=0.3), "timeout", "exporting")
        done = end(bench, module.job, "finished")
        assert done["job"]["state"] == "ready"
        assert not done["changed"]
        assert not module.result().get("failed")
    bench.assert_nothing_left("small")


def test_another_host_sees_an_export_through_the_store_and_cancels_it(
    bench: Bench, off: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(AttemptFolder, "beat", 0.2)
    monkeypatch.setattr(ending, "STORE_POLL", 0.2)
    elsewhere = str(tmp_path / "state")
    outcome: list[Any] = []

    def export() -> None:
        outcome.append(refused(lambda: bench.export(off, transfer={"bandwidth_limit": SLOW}), "cancelled", "asks for"))

    def seen() -> list[dict[str, Any]]:
        found = list_jobs(elsewhere, "", off, "running", 0, bench.store)["jobs"]
        return [job for job in found if job["bytes_read"] > 0]

    exporting = threading.Thread(target=export)
    exporting.start()
    while exporting.is_alive() and not seen():
        time.sleep(0.1)
    (running,) = seen()
    assert (running["phase"], running["owner"]["pid"]) == ("exporting", os.getpid())
    assert 0 < running["percent"] < 100
    result = ending.end_job(JobRequest(running["id"], "cancelled", 30.0, elsewhere, bench.store), check_mode=False)
    assert (result["changed"], result["job"]["state"]) == (True, "gone")
    assert bench.keys() == []
    exporting.join()
    assert outcome
    bench.assert_nothing_left()


def test_an_export_that_is_done_is_seen_through_its_store(bench: Bench, off: str, tmp_path: Path) -> None:
    made = bench.export(off)
    (job,) = list_jobs(str(tmp_path), made["job"]["id"], "", "", 0, bench.store)["jobs"]
    assert (job["state"], job["percent"], job["vm"]) == ("ready", 100.0, off)
    assert job["bytes_read"] == made["export"]["disks"][0]["bytes_read"]
    both = list_jobs(str(bench.state), made["job"]["id"], "", "", 0, bench.store)["jobs"]
    assert len(both) == 1


def test_a_second_export_waits_for_the_slot_of_the_first(bench: Bench, small: Guest, off: str) -> None:
    with bench.running_module("vm_export", {**slow_export(bench), "max_jobs": 1}) as first:
        first.wait_for_bytes()
        waiting = {**slow_export(bench), "vm": off, "max_jobs": 1, "bandwidth_limit": "0"}
        with bench.running_module("vm_export", waiting) as second:
            assert second.wait_for_note() == f"waiting for one of 1 slots of libvirt {bench.rig.uri}"
            assert not second.result().get("failed")
            assert not first.result().get("failed")
    jobs = {job["id"]: job for job in bench.jobs()}
    assert jobs[second.job]["ended"] > jobs[first.job]["ended"]
    bench.assert_nothing_left("small")


def test_who_waits_for_a_slot_can_be_cancelled(bench: Bench, small: Guest, off: str) -> None:
    with bench.running_module("vm_export", {**slow_export(bench), "max_jobs": 1}) as first:
        first.wait_for_bytes()
        with bench.running_module("vm_export", {**slow_export(bench), "vm": off, "max_jobs": 1}) as second:
            second.wait_for_note()
            assert end(bench, second.job, "cancelled")["job"]["state"] == "cancelled"
        end(bench, first.job, "cancelled")
    bench.assert_nothing_left("small")


def test_a_controller_that_is_never_heard_of_ends_the_export_and_another_run_goes_on_with_it(
    bench: Bench, small: Guest
) -> None:
    with bench.running_module("vm_export", {**slow_export(bench), "controller_timeout": "1s"}) as module:
        result = module.result()
    assert (result["error"]["kind"], "controller_timeout" in result["msg"]) == ("cancelled", True)
    (job,) = bench.jobs(job=module.job)
    assert (job["undone"], job["kept"]) == (False, result["kept"])
    (elsewhere,) = list_jobs(str(bench.folder / "nobody"), module.job, "", "", 0, bench.store)["jobs"]
    assert elsewhere["kept"] == result["kept"]
    assert bench.export("small")["resumed"]["export"] == result["kept"]["export"]
    bench.assert_nothing_left("small")
