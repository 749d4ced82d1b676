# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What befalls an export from the machine's side: the daemon, other backups, the guest, and its own death."""

from __future__ import annotations

import signal
import time
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from rigs import guests
from rigs.domain import Guest, define_and_start
from rigs.libvirt import LibvirtRig

from .conftest import small_machine
from .exports import PATIENCE, SLOW, Bench, compare, meanwhile, wait_for_backup
from .leftovers import backup_under_way


def slow_export(bench: Bench, **options: Any) -> dict[str, Any]:
    return bench.module_arguments(vm="small", **{"bandwidth_limit": SLOW, **options})


def test_copy_goes_on_while_libvirt_is_killed(bench: Bench, small: Guest) -> None:
    def kill_and_start() -> None:
        wait_for_backup(bench, "small")
        time.sleep(0.5)
        bench.rig.kill()
        time.sleep(1.0)
        bench.rig.start()

    with meanwhile(kill_and_start) as killed:
        result = bench.export("small", verify="none", transfer={"bandwidth_limit": SLOW})
    killed()
    compare(bench.stored(result), "qcow2", bench.rig.directory / "small.qcow2", "qcow2")
    bench.assert_nothing_left("small")


def test_backup_of_another_program_is_left_alone(bench: Bench, small: Guest) -> None:
    root = ET.Element("domainbackup", mode="pull")
    ET.SubElement(root, "server", transport="unix", socket=str(bench.folder / "foreign.sock"))
    disks = ET.SubElement(root, "disks")
    disk = ET.SubElement(disks, "disk", name="vda", backup="yes", type="file")
    ET.SubElement(disk, "scratch", file=str(bench.folder / "foreign.scratch"))
    small.domain.backupBegin(ET.tostring(root, "unicode"), None, 0)
    try:
        error = bench.refused_export("small", "busy", "small")
        assert error.retryable
        assert "foreign.sock" in backup_under_way(small.domain)
    finally:
        small.domain.abortJob()
        while backup_under_way(small.domain):
            time.sleep(0.05)
    bench.assert_nothing_left("small")


def test_killed_exporter_leaves_no_backup_on_the_machine(bench: Bench, small: Guest) -> None:
    """Also without a next run: the watchdog sees to it."""
    with bench.running_module("vm_export", slow_export(bench, resume_window="0")) as exporter:
        exporter.wait_for_bytes()
        exporter.signal(signal.SIGKILL)
        exporter.process.wait()
        deadline = time.monotonic() + PATIENCE
        while backup_under_way(small.domain) or list(bench.scratch.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    (job,) = bench.jobs()
    assert job["state"] == "failed"
    assert not job["alive"]
    bench.export("small")
    forget_job(bench, exporter.job)
    bench.assert_nothing_left("small")


def forget_job(bench: Bench, job: str) -> None:
    """A killed job's record stays as the kill left it; it says who died."""
    (record,) = bench.jobs(job=job)
    assert record["alive"] is False
    for path in (bench.state / "jobs" / job).iterdir():
        path.unlink()
    (bench.state / "jobs" / job).rmdir()


@pytest.mark.parametrize("how", ["itself", "from outside"])
def test_guest_that_powers_off_ends_the_export(bench: Bench, rig: LibvirtRig, how: str) -> None:
    guest = define_and_start(rig, small_machine(rig, "doomed"))
    try:
        guest.console.wait_for(guests.boot_marker("doomed"))

        def power_off() -> None:
            wait_for_backup(bench, "doomed")
            time.sleep(0.5)
            if how == "itself":
                guest.console.type("x")
            else:
                guest.domain.destroy()

        with meanwhile(power_off) as off:
            error = bench.refused_export("doomed", "conflict", "powered off", transfer={"bandwidth_limit": SLOW})
        off()
        assert error.hint
        bench.assert_nothing_left("doomed", runs=False)
        bench.export("doomed")
        bench.assert_nothing_left("doomed", runs=False)
    finally:
        guest.destroy()
        (rig.directory / "doomed.qcow2").unlink()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_cancels(bench: Bench, small: Guest, number: signal.Signals) -> None:
    with bench.running_module("vm_export", slow_export(bench, on_failure="undo", bandwidth_limit="1MiB/s")) as exporter:
        exporter.wait_for_bytes()
        exporter.signal(number)
        result = exporter.result()
    assert result["failed"]
    assert result["error"]["kind"] == "cancelled"
    assert number.name in result["msg"]
    (job,) = bench.jobs(job=exporter.job, state="cancelled")
    assert job["finished"]
    bench.assert_nothing_left("small")


def test_signal_cancels_an_export_to_s3(s3_bench: Bench, small: Guest) -> None:
    with s3_bench.running_module(
        "vm_export", slow_export(s3_bench, on_failure="undo", bandwidth_limit="1MiB/s")
    ) as exporter:
        exporter.wait_for_bytes()
        exporter.signal(signal.SIGTERM)
        assert exporter.result()["error"]["kind"] == "cancelled"
    s3_bench.assert_nothing_left("small")


def test_signal_cancels_an_import(bench: Bench, small: Guest) -> None:
    bench.export("small")
    arguments = bench.module_arguments(name="cancelled", placement={"storage": str(bench.images)}, bandwidth_limit=SLOW)
    with bench.running_module("vm_import", arguments) as importer:
        importer.wait_for_phase("importing")
        importer.signal(signal.SIGTERM)
        assert importer.result()["error"]["kind"] == "cancelled"
    bench.assert_no_machine("cancelled")
    bench.assert_nothing_left("small")


def test_max_duration_ends_the_export(bench: Bench, small: Guest) -> None:
    hurry = {"bandwidth_limit": "1MiB/s", "max_duration": 2.0}
    bench.refused_export("small", "timeout", "max_duration", on_failure="undo", transfer=hurry)
    bench.assert_nothing_left("small")


def test_leftovers_are_seen(bench: Bench, small: Guest) -> None:
    """The look at what is left behind is itself worth something only if it can see."""
    (bench.folder / "store" / "vm").mkdir()
    (bench.folder / "store" / "vm" / ".half.part").touch()
    (bench.scratch / "vmferry-00000000").mkdir()
    with pytest.raises(AssertionError, match=r"half\.part"):
        bench.assert_nothing_left("small")
