# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that has a bad day: ridden out where it passes, told where it does not."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_jobs import list_jobs
from rigs import guests
from rigs.domain import Disk, Guest, Machine, domain_xml, remove_domain
from rigs.fault_proxy import Fault, FaultProxy
from rigs.libvirt import LibvirtRig

from .exports import MIB, Bench, compare

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
BROKEN = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"


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


@pytest.mark.parametrize(("status", "body"), [(503, BUSY), (500, BROKEN)])
def test_store_that_has_troubles_for_a_while_is_waited_for(
    s3_bench: Bench, small: Guest, proxy: FaultProxy, status: int, body: bytes
) -> None:
    proxy.fail_next(*[Fault(answer=status, body=body, headers={"Retry-After": "1"}, path="disk-0.qcow2")] * 2)
    result = s3_bench.export("small")
    (job,) = s3_bench.jobs(job=result["job"]["id"])
    assert job["retries"] == 2
    assert job["percent"] == 100
    lines = list_jobs(str(s3_bench.state), job["id"], "", "", 1)["jobs"][0]["log"]
    assert len(job["log"]) >= 2
    assert lines == job["log"][-1:]
    stored_equals_disk(s3_bench, result["export"]["disks"][0]["url"])
    s3_bench.assert_nothing_left("small")


@pytest.mark.parametrize("retries", [0, 2])
def test_store_that_is_busy_for_ever_ends_the_export(
    s3_bench: Bench, small: Guest, proxy: FaultProxy, retries: int
) -> None:
    proxy.fail_always(Fault(answer=503, body=BUSY, path="disk-0.qcow2"))
    started = time.monotonic()
    error = s3_bench.refused_export(
        "small", "rate_limited", "disk-0.qcow2", on_failure="undo", transfer={"max_retries": retries}
    )
    assert error.retryable
    assert time.monotonic() - started < 60
    begun = [one for one in proxy.requests if one.method == "POST" and "disk-0.qcow2?uploads" in one.target]
    assert len(begun) == 1 + retries
    (job,) = s3_bench.jobs()
    assert (job["phase"], job["error"]["kind"]) == ("failed", "rate_limited")
    s3_bench.assert_nothing_left("small")


def test_store_that_is_busy_for_ever_is_not_tried_for_longer_than_idle_timeout(
    s3_bench: Bench, small: Guest, proxy: FaultProxy
) -> None:
    proxy.fail_always(Fault(answer=503, body=BUSY, path="disk-0.qcow2"))
    started = time.monotonic()
    patience = {"max_retries": 1000, "idle_timeout": 3.0}
    with pytest.raises(VmferryError) as caught:
        s3_bench.export("small", on_failure="undo", transfer=patience)
    assert caught.value.kind in ("rate_limited", "timeout")  # whichever patience ends first
    assert caught.value.phase == "exporting"
    assert time.monotonic() - started < 30
    s3_bench.assert_nothing_left("small")


def test_store_that_stands_still_is_not_waited_for_for_ever(s3_bench: Bench, small: Guest, proxy: FaultProxy) -> None:
    proxy.fail_always(Fault(delay=600, method="PUT", path="disk-0.qcow2"))
    started = time.monotonic()
    error = s3_bench.refused_export("small", "timeout", "", on_failure="undo", transfer={"idle_timeout": 3.0})
    assert time.monotonic() - started < 60
    # Both look at the same silence: the job, and the one request that waits for its answer.
    assert "moved" in str(error) or "did not answer in time" in str(error)
    assert error.phase == "exporting"
    s3_bench.assert_nothing_left("small")


@pytest.fixture
def slim(rig: LibvirtRig) -> Iterator[str]:
    """Off, with 4 MiB of data: at 1 MB/s, its one request lasts twice as long as the patience of the test."""
    disk = guests.mbr_disk(rig.directory / "slim.raw", "slim", 5 * MIB)
    with disk.open("r+b") as file:
        file.seek(MIB)
        file.write(random.Random("slim").randbytes(4 * MIB))
    domain = rig.connect().defineXML(domain_xml(Machine("slim", (Disk(disk, "raw"),)), rig.directory))
    yield "slim"
    remove_domain(domain)


def test_slow_store_is_only_slow(s3_bench: Bench, slim: str, proxy: FaultProxy) -> None:
    proxy.bytes_per_second = 1e6
    started = time.monotonic()
    result = s3_bench.export(slim, transfer={"idle_timeout": 2.0})
    assert time.monotonic() - started > 4
    assert s3_bench.jobs(job=result["job"]["id"])[0]["retries"] == 0
    s3_bench.assert_nothing_left(slim, runs=False)
