# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export that was killed is gone on with by the next run, on the same point in time, and little is sent again."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import INTENT, read_intent
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import CleanupRequest
from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start
from rigs.fault_proxy import FaultProxy
from rigs.libvirt import LibvirtRig

from .exports import MIB, PATIENCE, Bench, compare, convert
from .leftovers import backup_under_way, our_processes

SIZE = 97 * MIB
DATA = 96 * MIB
STEP = 16 * MIB  # between two entries of the journal
IN_FLIGHT = 64 * MIB  # that may be sent again at the most


@pytest.fixture(scope="module")
def wide(rig: LibvirtRig) -> Iterator[Guest]:
    """A machine that runs and does nothing, with so much on its disk that a kill in the middle of it is one."""
    disk = rig.directory / "wide.qcow2"
    raw = guests.mbr_disk(disk.with_suffix(".seed"), "wide", SIZE)
    with raw.open("r+b") as file:
        file.seek(MIB)
        file.write(random.Random("wide").randbytes(DATA))
    guests.place(raw, disk, "qcow2")
    raw.unlink()
    guest = define_and_start(rig, Machine("wide", disks=(Disk(disk, "qcow2"),), memory_mib=32))
    guest.console.wait_for(guests.boot_marker("wide"))
    yield guest
    guest.destroy()
    disk.unlink()


def kill(bench: Bench, monkeypatch: pytest.MonkeyPatch, failpoint: str, **options: Any) -> None:
    """An export, at this point. Its record goes, as the kill left it."""
    monkeypatch.setenv("VMFERRY_FAILPOINT", failpoint)
    with bench.running_module("vm_export", bench.module_arguments(**options)) as killed:
        assert killed.process.wait(PATIENCE * 2) == -signal.SIGKILL
    monkeypatch.delenv("VMFERRY_FAILPOINT")
    folder: Path = bench.state / "jobs" / killed.job
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def stored(bench: Bench, result: dict[str, Any], where: Path, number: int = 0) -> Path:
    if bench.store.url.startswith("file:"):
        return bench.stored(result, number)
    key = result["export"]["disks"][number]["url"].removeprefix(f"{bench.store.url}/")
    target = where / "disk.qcow2"
    target.write_bytes(bench.read(key))
    return target


@pytest.mark.parametrize(
    ("kind", "failpoint", "least"),
    [
        ("bench", "journal-written:3", STEP),
        ("s3_bench", "journal-written:4", 2 * STEP),
        ("s3_bench", "journal-closed", DATA),
        ("dav_bench", "journal-written:4", 2 * STEP),
    ],
)
def test_a_killed_export_goes_on_where_it_stopped_at_the_same_point_in_time(
    kind: str,
    failpoint: str,
    least: int,
    wide: Guest,
    proxy: FaultProxy,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench: Bench = request.getfixturevalue(kind)
    kill(bench, monkeypatch, failpoint, vm="wide")
    time.sleep(1.5)
    assert backup_under_way(wide.domain), "the point in time is held"
    result = bench.export("wide")
    resumed = result["resumed"]
    assert resumed["reason"] == ""
    assert (resumed["export"], result["changed"]) == (result["export"]["id"], True)
    assert resumed["bytes_kept"] >= least
    told = json.loads(Path(result["job"]["record"]).read_text())
    assert (told["resumed"], told["outcome"]) == (resumed, "full, since there is no export to stand on")
    image = result["export"]["disks"][0]["bytes_stored"]
    assert resumed["bytes_kept"] + resumed["bytes_sent"] == image
    if kind == "s3_bench":
        parts = [one.length for one in proxy.requests if one.method == "PUT" and "disk-0.qcow2?" in one.target]
        assert image <= sum(parts) <= image + IN_FLIGHT, "of both runs"
    compare(stored(bench, result, tmp_path), "qcow2", bench.rig.directory / "wide.qcow2", "qcow2")
    bench.assert_nothing_left("wide")


@pytest.mark.parametrize(("kind", "failpoint"), [("bench", "data-sent:2"), ("s3_bench", "objects-complete:1")])
def test_one_that_is_killed_between_two_disks_goes_on_with_both_at_the_same_moment(
    kind: str,
    failpoint: str,
    linux: Guest,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench: Bench = request.getfixturevalue(kind)
    both = ("vdb", "vdc")
    for disk in both:
        linux.console.run(f"dd if=/dev/urandom of=/dev/{disk} bs=1M count=6 conv=notrunc,fsync 2> /dev/null")
    before = [linux.console.run(f"sync; sha256sum /dev/{disk}").split()[0] for disk in both]
    kill(bench, monkeypatch, failpoint, vm="linux", disks=list(both))
    for disk in both:
        linux.console.run(f"dd if=/dev/urandom of=/dev/{disk} bs=1M count=1 conv=notrunc,fsync 2> /dev/null")
    result = bench.export("linux", disks=both)
    assert result["resumed"]["reason"] == ""
    restored = []
    for number in range(2):
        raw = convert(stored(bench, result, tmp_path, number), "qcow2", tmp_path / f"{number}.raw")
        with raw.open("rb") as file:
            restored.append(hashlib.file_digest(file, "sha256").hexdigest())
    assert restored == before
    bench.assert_nothing_left("linux")


def test_one_that_is_killed_again_and_again_ends(
    bench: Bench, wide: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for failpoint in ("journal-written:1", "journal-written:1", "journal-written:2", "manifest"):
        kill(bench, monkeypatch, failpoint, vm="wide")
    result = bench.export("wide")
    assert result["resumed"]["bytes_sent"] <= STEP
    compare(bench.stored(result), "qcow2", bench.rig.directory / "wide.qcow2", "qcow2")
    bench.assert_nothing_left("wide")


def test_one_that_was_killed_a_second_ago_is_no_orphan(
    bench: Bench, wide: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-written:3", vm="wide", resume_window="1h")
    request = CleanupRequest(bench.store, Limits(max_age=1.0), Protections(), orphans=True, provider=bench.provider)
    told = clean_up_exports(request, False)
    assert (told["orphans"], told["failures"]) == ([], [])
    resumed = bench.export("wide")["resumed"]
    assert (resumed["reason"], resumed["bytes_kept"] >= STEP) == ("", True)
    bench.assert_nothing_left("wide")


def test_what_the_guest_writes_after_the_kill_is_not_in_the_export(
    bench: Bench, linux: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    linux.console.run("dd if=/dev/urandom of=/dev/vdc bs=1M count=8 conv=notrunc,fsync 2> /dev/null")
    before = linux.console.run("sync; sha256sum /dev/vdc").split()[0]
    kill(bench, monkeypatch, "resumable", vm="linux", disks=["vdc"])
    linux.console.run("dd if=/dev/urandom of=/dev/vdc bs=1M count=8 conv=notrunc,fsync 2> /dev/null")
    result = bench.export("linux", disks=("vdc",))
    assert result["resumed"]["export"] == result["export"]["id"]
    raw = bench.folder / "restored.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(bench.stored(result)), str(raw)], check=True)
    found = subprocess.run(["sha256sum", str(raw)], check=True, capture_output=True, text=True).stdout.split()[0]
    assert found == before
    changed = bench.export("linux", disks=("vdc",), mode="incremental")
    assert changed["export"]["disks"][0]["bytes_changed"] == 8 * MIB
    bench.assert_nothing_left("linux")


@pytest.mark.parametrize("failpoint", ["taken_over", "watched_over"])
def test_a_run_that_is_killed_as_it_takes_over_leaves_the_point_in_time_held(
    bench: Bench, small: Guest, failpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for longer than a watchdog looks whether another holds it."""
    kill(bench, monkeypatch, "journal-closed", vm="small")
    kill(bench, monkeypatch, failpoint, vm="small")
    time.sleep(2.5)
    assert len([command for _pid, command in our_processes() if b"vmferry-watchdog" in command]) == 1
    result = bench.export("small")
    assert (result["resumed"]["reason"], result["resumed"]["bytes_sent"]) == ("", 0)
    bench.assert_nothing_left("small")


def test_what_a_run_that_is_killed_as_it_takes_over_leaves_is_held_for_no_longer_than_the_window(
    bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-closed", vm="small", resume_window="5s")
    kill(bench, monkeypatch, "taken_over", vm="small", resume_window="5s")
    assert backup_under_way(small.domain)
    deadline = time.monotonic() + PATIENCE
    while backup_under_way(small.domain) or any(bench.scratch.iterdir()):
        assert time.monotonic() < deadline, "nobody ends it"
        time.sleep(0.1)


def test_without_a_window_nothing_is_held_also_where_the_run_before_had_one(
    bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-closed", vm="small", resume_window="1h")
    kill(bench, monkeypatch, "manifest", vm="small", resume_window="0")
    deadline = time.monotonic() + PATIENCE
    while backup_under_way(small.domain) or any(bench.scratch.iterdir()):
        assert time.monotonic() < deadline, "it is held"
        time.sleep(0.1)


def test_a_cleanup_leaves_what_was_gone_on_with_and_killed_at_once(
    bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held from then on, and not from when the first run was killed."""
    kill(bench, monkeypatch, "journal-closed", vm="small")
    (key,) = (key for key in bench.keys() if key.endswith(INTENT))  # noqa: SIM118 - no dictionary
    intent = Path(bench.store.url.removeprefix("file://")) / key
    intent.write_bytes(replace(read_intent(intent.read_bytes(), key), held_until=time.time() + 2).to_json())
    kill(bench, monkeypatch, "watched_over", vm="small")
    time.sleep(2)
    assert backup_under_way(small.domain), "the host holds it"
    asked = CleanupRequest(bench.store, Limits(), Protections(), orphans=True, provider=bench.provider)
    assert clean_up_exports(asked, False)["orphans"] == []


@pytest.mark.parametrize("attach", [False, True])
def test_of_two_that_would_go_on_with_the_same_export_at_once_one_does(
    bench: Bench, wide: Guest, attach: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-written:3", vm="wide")
    asked = bench.module_arguments(vm="wide", attach=attach)
    with bench.running_module("vm_export", asked) as one, bench.running_module("vm_export", asked) as other:
        results = [one.result(), other.result()]
    made = [result for result in results if "export" in result]
    refused = [result["error"]["kind"] for result in results if "error" in result]
    assert refused == ([] if attach else ["busy"] * (2 - len(made)))
    (resumed,) = (result["resumed"] for result in made if "resumed" in result)
    assert {result["export"]["id"] for result in made} == {resumed["export"]}
    compare(bench.stored(made[0]), "qcow2", bench.rig.directory / "wide.qcow2", "qcow2")
    bench.assert_nothing_left("wide")


@pytest.mark.parametrize("failpoint", ["watched_over", "committed"])
def test_what_was_killed_twice_is_removed_or_whole_when_another_task_comes(
    bench: Bench, small: Guest, failpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-closed", vm="small")
    kill(bench, monkeypatch, failpoint, vm="small")
    made = bench.export("small", name="another")
    compare(bench.stored(made), "qcow2", bench.rig.directory / "small.qcow2", "qcow2")
    bench.assert_nothing_left("small")


def test_an_export_of_a_vm_that_is_off_which_nobody_went_on_with_in_time_says_so(
    bench: Bench, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-written:1", vm=off, resume_window="1")
    deadline = time.monotonic() + PATIENCE
    while any(bench.scratch.iterdir()):
        assert time.monotonic() < deadline, "the watchdog removes nothing"
        time.sleep(0.1)
    assert "nobody went on with it in time" in bench.export(off)["resumed"]["reason"]


def test_a_vm_that_is_off_goes_on_too_and_begins_anew_where_a_disk_was_written(
    bench: Bench, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = bench.rig.directory / f"{off}.qcow2"
    kill(bench, monkeypatch, "journal-closed", vm=off)
    result = bench.export(off)
    assert result["resumed"]["bytes_kept"] >= 20 * MIB
    assert result["resumed"]["bytes_sent"] == 0
    compare(bench.stored(result), "qcow2", disk, "qcow2")
    kill(bench, monkeypatch, "resumable", vm=off, mode="full")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 64k", str(disk)], check=True, capture_output=True)
    again = bench.export(off, mode="full")
    assert again["resumed"]["export"] == ""
    assert "was changed since" in again["resumed"]["reason"]
    compare(bench.stored(again), "qcow2", disk, "qcow2")
    bench.assert_nothing_left(off, runs=False)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"format": "raw"}, "its images are qcow2"),
        ({"consistency": "quiesced"}, "crash_consistent"),
        ({"track_changes": False}, "track_changes"),
        ({"max_age": 0.001}, "older than max_age"),
    ],
)
def test_one_that_is_not_what_is_asked_for_now_begins_anew_and_says_why(
    bench: Bench, linux: Guest, asked: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "resumable", vm="linux", disks=["vdc"], consistency="crash_consistent")
    result = bench.export("linux", disks=("vdc",), **asked)
    assert result["resumed"]["export"] == ""
    assert reason in result["resumed"]["reason"]
    bench.assert_nothing_left("linux")


def test_another_task_than_the_one_that_died_gets_a_point_in_time_of_its_own(
    bench: Bench, wide: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-written:1", vm="wide", tags=["nightly"])
    asked = {"tags": ("nightly",)}
    others: list[tuple[dict[str, Any], str]] = [
        ({}, "it was made with the tags nightly"),
        ({**asked, "purpose": "audit"}, "it was made without a purpose"),
        ({**asked, "name": "after-the-upgrade"}, "it was made without a name"),
    ]
    for other, reason in others:
        told = " ".join(one["message"] for one in bench.export("wide", check_mode=True, **other)["findings"])
        assert f"would begin anew: {reason}" in told
    same = bench.export("wide", check_mode=True, **asked)["findings"]
    assert any("A run would go on" in one["message"] for one in same)
    made = bench.export("wide", **others[-1][0])
    assert (made["resumed"]["export"], made["resumed"]["reason"]) == ("", "it was made without a name")
    bench.assert_nothing_left("wide")


def test_a_point_in_time_that_somebody_ended_is_not_gone_on_with(
    bench: Bench, wide: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-written:2", vm="wide")
    wide.domain.abortJob()
    while backup_under_way(wide.domain):
        time.sleep(0.05)
    result = bench.export("wide")
    assert result["resumed"]["export"] == ""
    assert "is gone" in result["resumed"]["reason"]
    compare(bench.stored(result), "qcow2", bench.rig.directory / "wide.qcow2", "qcow2")
    bench.assert_nothing_left("wide")


def test_when_the_window_is_over_nothing_is_held_any_more(
    bench: Bench, wide: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "resumable", vm="wide", resume_window="3")
    assert backup_under_way(wide.domain)
    deadline = time.monotonic() + PATIENCE
    while backup_under_way(wide.domain) or list(bench.scratch.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert wide.domain.listAllCheckpoints() == []
    result = bench.export("wide")
    assert "is gone" in result["resumed"]["reason"]
    bench.assert_nothing_left("wide")
