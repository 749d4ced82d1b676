# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a failed export made so far stays for the next run, and what nobody wants does not."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import libvirt
import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind, VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import MANIFEST
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._operations import end_job as ending
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting import take_export, write_export
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    CleanupRequest,
    JobRequest,
    SnapshotRequest,
    StoreSpec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt import native_files
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.watchdog_launcher import (
    WatchdogProcess,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import FilesystemStore
from rigs.domain import Guest
from rigs.fault_proxy import Fault, FaultProxy

from .exports import MIB, PATIENCE, Bench, compare
from .leftovers import backup_under_way
from .test_resume import kill, stored, wide

__all__ = ["wide"]  # the fixture


def slow(bench: Bench, **options: Any) -> dict[str, Any]:
    return bench.module_arguments(vm="wide", bandwidth_limit="20MiB/s", **options)


def wait_for_sent(bench: Bench, size: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while not any(job.get("bytes_sent", 0) >= size for job in bench.jobs()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_for_parts(proxy: FaultProxy, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while sum("partNumber" in one.target and one.method == "PUT" for one in proxy.requests) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_export_that_a_signal_ended_is_kept_and_gone_on_with(bench: Bench, wide: Guest) -> None:
    with bench.running_module("vm_export", slow(bench)) as module:
        wait_for_sent(bench, 40 * MIB)
        module.signal(signal.SIGTERM)
        result = module.result()
    assert (result["error"]["kind"], result["error"]["retryable"]) == ("cancelled", True)
    assert result["kept"]["export"] in bench.keys()[0]
    assert result["kept"]["until"] in result["error"]["hint"]
    assert backup_under_way(wide.domain)
    made = bench.export("wide")
    assert made["resumed"]["export"] == result["kept"]["export"] == made["export"]["id"]
    assert made["resumed"]["bytes_kept"] >= 16 * MIB
    compare(bench.stored(made), "qcow2", bench.rig.directory / "wide.qcow2", "qcow2")
    bench.assert_nothing_left("wide")


def test_an_export_whose_store_went_away_goes_on_when_it_is_back(
    s3_bench: Bench, wide: Guest, proxy: FaultProxy, tmp_path: Path
) -> None:
    with s3_bench.running_module("vm_export", slow(s3_bench, max_retries=1)) as module:
        wait_for_parts(proxy, 7)
        proxy.fail_always(Fault(reset_after=0))
        result = module.result()
    assert result["error"]["kind"] == "network"
    kept = result["kept"]
    proxy.reset()
    made = s3_bench.export("wide")
    assert made["resumed"]["export"] == kept["export"]
    assert made["resumed"]["bytes_kept"] >= 16 * MIB
    compare(stored(s3_bench, made, tmp_path), "qcow2", s3_bench.rig.directory / "wide.qcow2", "qcow2")
    s3_bench.assert_nothing_left("wide")


@pytest.mark.parametrize(
    ("kind", "where"),
    [("network", (write_export, "verify_file")), ("cancelled", (native_files, "read"))],
    ids=["the store", "the host"],
)
def test_what_was_kept_survives_a_second_failure_before_the_first_new_byte(
    bench: Bench, wide: Guest, kind: Kind, where: tuple[ModuleType, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-written:3", vm="wide")
    with monkeypatch.context() as patched:
        patched.setattr(*where, fails(kind))
        with pytest.raises(VmferryError) as caught:
            bench.export("wide")
    assert caught.value.done["kept"]["export"] in bench.keys()[0]
    time.sleep(1.5)  # in which a watchdog that was not told to hold it ends the job
    made = bench.export("wide")["resumed"]
    assert (made["reason"], made["bytes_kept"] >= 16 * MIB) == ("", True)
    bench.assert_nothing_left("wide")


def fails(kind: Kind) -> Callable[..., None]:
    def failing(*_unused: object, **_options: object) -> None:
        raise VmferryError(kind, "It went away once more.")

    return failing


@pytest.mark.parametrize("kind", ["timeout", "network"])
def test_what_was_kept_of_a_vm_that_is_off_survives_a_libvirt_that_does_not_answer_as_it_is_gone_on_with(
    bench: Bench, off: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-closed", vm=off)
    with monkeypatch.context() as patched:
        patched.setattr(native_files, "read", fails(kind))
        with pytest.raises(VmferryError) as caught:
            bench.export(off)
    assert caught.value.done["kept"]["export"] in bench.keys()[0]
    resumed = bench.export(off)["resumed"]
    assert (resumed["reason"], resumed["bytes_kept"] > 0) == ("", True)
    bench.assert_nothing_left(off, runs=False)


@pytest.mark.parametrize("kind", ["internal", "busy"])
def test_what_was_kept_survives_a_host_that_is_too_busy_to_take_it_over(
    bench: Bench, small: Guest, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a new watchdog does not start in time, or where an image is locked for a moment."""
    kill(bench, monkeypatch, "journal-closed", vm="small")
    with monkeypatch.context() as patched:
        patched.setattr(WatchdogProcess, "start", fails(kind))
        with pytest.raises(VmferryError) as caught:
            bench.export("small")
    assert caught.value.done["kept"]["export"] in bench.keys()[0]
    resumed = bench.export("small")["resumed"]
    assert (resumed["reason"], resumed["bytes_sent"]) == ("", 0)
    bench.assert_nothing_left("small")


def test_what_was_kept_is_told_again_although_the_store_went_away_right_behind_the_claim(
    bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-closed", vm="small")
    with monkeypatch.context() as patched:
        patched.setattr(take_export, "bytes_there", fails("network"))
        with pytest.raises(VmferryError) as caught:
            bench.export("small")
    assert caught.value.done["kept"]["export"] in bench.keys()[0]
    assert bench.export("small")["resumed"]["bytes_sent"] == 0


def test_what_is_undone_in_the_store_is_not_held_on_the_host(
    bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was kept, and the run that fails as it takes it over keeps nothing."""
    kill(bench, monkeypatch, "journal-closed", vm="small")
    with monkeypatch.context() as patched:
        patched.setattr(native_files, "read", fails("timeout"))
        with pytest.raises(VmferryError) as caught:
            bench.export("small", on_failure="undo")
    assert "kept" not in caught.value.done
    assert bench.keys() == []
    bench.assert_nothing_left("small")


def test_an_export_whose_store_loses_the_answer_to_the_commit_is_made(
    bench: Bench, wide: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = FilesystemStore.put

    def loses_the_answer(store: FilesystemStore, key: str, *arguments: Any, **options: Any) -> Any:
        written = put(store, key, *arguments, **options)
        if key.endswith(MANIFEST):
            raise VmferryError("network", "The answer is lost.")
        return written

    with monkeypatch.context() as patched:
        patched.setattr(FilesystemStore, "put", loses_the_answer)
        made = bench.export("wide", transfer={"max_retries": 0})
    bench.assert_nothing_left("wide")
    assert bench.export("wide")["unchanged_since"] == made["export"]["id"]


def test_an_export_whose_store_goes_away_while_it_commits_is_whole_when_it_is_back(
    bench: Bench, wide: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been seen by others, so it is not taken back; and it fails, since nobody can tell."""
    put = FilesystemStore.put

    def goes_away(store: FilesystemStore, key: str, *arguments: Any, **options: Any) -> Any:
        if key.endswith(MANIFEST):
            patched.setattr(FilesystemStore, "put", away)
            patched.setattr(FilesystemStore, "read_whole", away)
            put(store, key, *arguments, **options)
            away()
        return put(store, key, *arguments, **options)

    def away(*_unused: object, **_options: object) -> Any:
        raise VmferryError("network", "No route to the store.")

    with monkeypatch.context() as patched:
        patched.setattr(FilesystemStore, "put", goes_away)
        with pytest.raises(VmferryError) as caught:
            bench.export("wide", transfer={"max_retries": 0})
    kept = caught.value.done["kept"]["export"]
    assert any(key.endswith(f"{kept}/{MANIFEST}") for key in bench.keys())  # noqa: SIM118 - no dictionary
    found = bench.export("wide")
    assert (found["changed"], found["unchanged_since"]) == (False, kept)
    compare(bench.stored(found), "qcow2", bench.rig.directory / "wide.qcow2", "qcow2")
    assert not backup_under_way(wide.domain)


def test_an_export_whose_store_falls_silent_ends_in_bounded_time_and_goes_on_when_it_answers(
    s3_bench: Bench, wide: Guest, proxy: FaultProxy, tmp_path: Path
) -> None:
    idle, last_words, busy_host = 3.0, 3 * 3.0, 20.0  # seconds; the grace of a run that hangs is 60
    with s3_bench.running_module("vm_export", slow(s3_bench, idle_timeout=f"{idle:g}s", max_retries=3)) as module:
        wait_for_parts(proxy, 7)
        proxy.fall_silent()
        silent_at = time.monotonic()
        result = module.result(120)
        lasted = time.monotonic() - silent_at
    assert lasted < 2 * idle + last_words + busy_host
    assert result["error"]["kind"] in ("network", "timeout")
    kept = result["kept"]
    assert kept["until"] in result["error"]["hint"]
    assert backup_under_way(wide.domain), "the point in time is held"
    proxy.reset()
    made = s3_bench.export("wide")
    assert made["resumed"]["export"] == kept["export"] == made["export"]["id"]
    assert made["resumed"]["reason"] == ""
    assert made["resumed"]["bytes_kept"] >= 16 * MIB
    compare(stored(s3_bench, made, tmp_path), "qcow2", s3_bench.rig.directory / "wide.qcow2", "qcow2")
    s3_bench.assert_nothing_left("wide")


def keep_one(bench: Bench, vm: str = "wide", **options: Any) -> tuple[str, str]:
    """The ids of an unfinished export and of its job."""
    with bench.running_module("vm_export", {**slow(bench), "vm": vm, **options}) as module:
        wait_for_sent(bench, 8 * MIB)
        module.signal(signal.SIGTERM)
        return str(module.result()["kept"]["export"]), module.job


def test_of_a_vm_that_is_off_it_tells_so_where_the_change_token_was_held(bench: Bench, off: str) -> None:
    _unused, job = keep_one(bench, off)
    made = bench.export(off, store=StoreSpec(f"file://{bench.folder}/images/other"))
    assert [job in warning and "begins anew" in warning for warning in made["warnings"]].count(True) == 1
    assert "resumed" not in made
    assert bench.export(off)["resumed"]["reason"]


def test_an_export_to_another_store_tells_whose_unfinished_export_it_gives_up(bench: Bench, wide: Guest) -> None:
    export, job = keep_one(bench)
    other = StoreSpec(f"file://{bench.folder}/images/other")
    made = bench.export("wide", store=other)
    told = [warning for warning in made["warnings"] if job in warning]
    assert len(told) == 1, made["warnings"]
    assert "begins anew" in told[0]
    again = bench.export("wide")
    assert again["export"]["id"] != export
    assert again["resumed"]["reason"] == "The backup job of wide that a dead run had begun is gone"
    assert not [warning for warning in again["warnings"] if job in warning], "resumed says it"
    compare(bench.stored(again), "qcow2", bench.rig.directory / "wide.qcow2", "qcow2")


def test_a_snapshot_task_tells_whose_unfinished_export_it_gives_up(bench: Bench, wide: Guest) -> None:
    _unused, job = keep_one(bench)
    for state in ("present", "absent"):
        done = manage_snapshots(SnapshotRequest(bench.provider, "wide", state, "before"), False)
        told = [warning for warning in done["warnings"] if job in warning and "begins anew" in warning]
        assert len(told) == (1 if state == "present" else 0), done["warnings"]


def test_an_export_that_somebody_cancelled_is_undone_at_once(bench: Bench, wide: Guest) -> None:
    with bench.running_module("vm_export", slow(bench)) as module:
        wait_for_sent(bench, 20 * MIB)
        ending.end_job(JobRequest(module.job, "cancelled", state_dir=str(bench.state), timeout=30.0), False)
        result = module.result()
    assert "kept" not in result
    assert bench.keys() == []
    bench.assert_nothing_left("wide")


def test_what_was_kept_is_removed_by_cancelling_its_job(bench: Bench, wide: Guest) -> None:
    with bench.running_module("vm_export", slow(bench)) as module:
        wait_for_sent(bench, 20 * MIB)
        module.signal(signal.SIGTERM)
        assert module.result()["kept"]
    asked = JobRequest(
        module.job, "cancelled", state_dir=str(bench.state), provider=bench.provider, store=bench.store, timeout=30.0
    )
    assert ending.end_job(asked, False)["changed"]
    assert bench.keys() == []
    bench.assert_nothing_left("wide")


def test_of_a_vm_that_is_off_and_not_tracked_it_survives_a_cleanup_and_an_export_to_another_store(
    bench: Bench, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What proves its point in time are its disks alone."""
    kill(bench, monkeypatch, "journal-written:1", vm=off, track_changes=False)
    clean_up_exports(CleanupRequest(bench.store, Limits(), Protections(), orphans=True, provider=bench.provider), False)
    assert list(bench.scratch.iterdir()) == []
    bench.export(off, track_changes=False, store=StoreSpec(f"file://{bench.folder}/images/other"))
    resumed = bench.export(off, track_changes=False)["resumed"]
    assert (resumed["reason"], resumed["bytes_kept"] > 0) == ("", True)
    bench.assert_nothing_left(off, runs=False)


@pytest.mark.parametrize("track_changes", [False, True])
def test_what_was_kept_of_a_vm_that_is_gone_is_removed_by_cancelling_its_job(
    bench: Bench, off: str, track_changes: bool
) -> None:
    _unused, job = keep_one(bench, off, track_changes=track_changes)
    with undefined(bench, off):
        asked = JobRequest(
            job, "cancelled", state_dir=str(bench.state), provider=bench.provider, store=bench.store, timeout=30.0
        )
        assert ending.end_job(asked, False)["changed"]
        assert (bench.keys(), list(bench.scratch.iterdir())) == ([], [])
        assert bitmaps(bench.rig.directory / f"{off}.qcow2") == []


def test_what_was_kept_of_a_vm_that_is_gone_leaves_this_host_with_the_next_cleanup(
    bench: Bench, small: Guest, off: str
) -> None:
    keep_one(bench, off, track_changes=False)
    with undefined(bench, off):
        asked = CleanupRequest(bench.store, Limits(), Protections(), orphans=True, provider=bench.provider)
        told = clean_up_exports(asked, False)["orphans"]
    assert [one["kind"] for one in told] == ["provider"]
    assert list(bench.scratch.iterdir()) == []


@contextmanager
def undefined(bench: Bench, vm: str) -> Iterator[None]:
    domain = bench.rig.connect().lookupByName(vm)
    description = domain.XMLDesc()
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
    yield
    bench.rig.connect().defineXML(description)


def bitmaps(image: Path) -> list[str]:
    told = subprocess.run(["qemu-img", "info", "--output=json", str(image)], check=True, capture_output=True).stdout
    return [one["name"] for one in json.loads(told)["format-specific"]["data"].get("bitmaps", ())]


def test_cleaning_up_leaves_what_is_held_and_removes_it_once_it_is_not(bench: Bench, wide: Guest) -> None:
    with bench.running_module("vm_export", slow(bench, resume_window="5s")) as module:
        wait_for_sent(bench, 20 * MIB)
        module.signal(signal.SIGTERM)
        assert module.result()["kept"]
    asked = CleanupRequest(bench.store, Limits(), Protections(), orphans=True, provider=bench.provider)
    assert clean_up_exports(asked, False)["orphans"] == []
    assert backup_under_way(wide.domain)
    deadline = time.monotonic() + PATIENCE
    while backup_under_way(wide.domain) or list(bench.scratch.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert [one["kind"] for one in clean_up_exports(asked, False)["orphans"]] == ["attempt"]
    assert bench.keys() == []
    bench.assert_nothing_left("wide")
