# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that has a bad day: ridden out where it passes, told where it does not."""

from __future__ import annotations

import time

from rigs.domain import Guest
from rigs.fault_proxy import Fault, FaultProxy

from .exports import Bench, compare

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def stored_equals_disk(bench: Bench, url: str) -> None:
    stored = bench.folder / "stored.qcow2"
    bench.download(url.removeprefix("s3://").split("/", 1)[1], stored)
    compare(stored, "qcow2", bench.rig.directory / "small.qcow2", "qcow2")


def test_resets_and_lost_answers_are_ridden_out(s3_bench: Bench, small: Guest, proxy: FaultProxy) -> None:
    part = {"method": "PUT", "path": "disk-0.qcow2?"}
    proxy.fail_next(Fault(reset_after=1 << 20, **part), Fault(lose_answer=True, **part))
    result = s3_bench.export("small", verify="content")
    stored_equals_disk(s3_bench, result["export"]["disks"][0]["url"])
    (job,) = s3_bench.jobs(job=result["job"]["id"])
    assert job["retries"] == 2
    assert any(line["level"] == "warning" and "Trying again" in line["message"] for line in job["log"])
    s3_bench.assert_nothing_left("small")


def test_store_that_is_busy_for_a_while_is_waited_for(s3_bench: Bench, small: Guest, proxy: FaultProxy) -> None:
    proxy.fail_next(*[Fault(answer=503, body=BUSY, headers={"Retry-After": "1"}, path="disk-0.qcow2")] * 2)
    result = s3_bench.export("small")
    (job,) = s3_bench.jobs(job=result["job"]["id"])
    assert job["retries"] == 2
    assert job["percent"] == 100
    stored_equals_disk(s3_bench, result["export"]["disks"][0]["url"])
    s3_bench.assert_nothing_left("small")


def test_store_that_is_busy_for_ever_ends_the_export(s3_bench: Bench, small: Guest, proxy: FaultProxy) -> None:
    proxy.fail_always(Fault(answer=503, body=BUSY, path="disk-0.qcow2"))
    started = time.monotonic()
    error = s3_bench.refused_export("small", "rate_limited", "disk-0.qcow2", transfer={"max_retries": 2})
    assert error.retryable
    assert time.monotonic() - started < 20
    (job,) = s3_bench.jobs()
    assert (job["phase"], job["error"]["kind"]) == ("failed", "rate_limited")
    s3_bench.assert_nothing_left("small")


def test_store_that_stands_still_is_not_waited_for_for_ever(s3_bench: Bench, small: Guest, proxy: FaultProxy) -> None:
    proxy.fail_always(Fault(delay=600, method="PUT", path="disk-0.qcow2"))
    started = time.monotonic()
    error = s3_bench.refused_export("small", "timeout", "moved", transfer={"idle_timeout": 3.0})
    assert time.monotonic() - started < 15
    assert error.phase == "exporting"
    s3_bench.assert_nothing_left("small")


def test_slow_store_is_only_slow(s3_bench: Bench, small: Guest, proxy: FaultProxy) -> None:
    proxy.bytes_per_second = 8e6
    result = s3_bench.export("small", transfer={"idle_timeout": 20.0})
    assert s3_bench.jobs(job=result["job"]["id"])[0]["retries"] == 0
    s3_bench.assert_nothing_left("small")
