# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What else befalls a host and a store while a killed export is held for the next run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting import write_export
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import SnapshotOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import StoreCapabilities
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import FilesystemStore
from rigs.domain import Guest

from .exports import MIB, PATIENCE, SLOW, Bench, compare
from .leftovers import RUNNING, backup_under_way, our_processes
from .snapshots import SnapshotBench
from .test_resume import kill

PAUSED = 3


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_libvirt_that_is_restarted_meanwhile_is_no_reason_to_begin_anew(
    bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-closed", vm="small")
    bench.rig.kill()
    time.sleep(1.2)  # the watchdog looks, and cannot see
    bench.rig.start()
    result = bench.export("small")
    assert result["resumed"]["export"] == result["export"]["id"]
    assert result["resumed"]["bytes_sent"] == 0
    compare(bench.stored(result), "qcow2", bench.rig.directory / "small.qcow2", "qcow2")
    bench.assert_nothing_left("small")


def test_libvirt_that_hangs_until_the_window_is_over_keeps_nothing_held(
    bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "resumable", vm="small", resume_window="2s")
    with bench.rig.hang():
        time.sleep(3.0)
    eventually(lambda: not backup_under_way(small.domain) and not list(bench.scratch.iterdir()))
    assert "is gone" in bench.export("small")["resumed"]["reason"]
    bench.assert_nothing_left("small")


@contextmanager
def scratch_of(bench: Bench, mebibytes: int) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", str(bench.scratch)], check=True)
    try:
        yield bench.scratch
    finally:
        subprocess.run(["umount", "--lazy", str(bench.scratch)], check=True)


@pytest.fixture
def tight(bench: Bench) -> Iterator[Path]:
    """A scratch folder with room for 16 MiB above what has to stay free."""
    with scratch_of(bench, 80) as folder:
        yield folder


@pytest.fixture
def tight_for_held(bench: Bench) -> Iterator[Path]:
    """With room for 16 MiB above what has to stay free of what is held for the next run: twice as much."""
    with scratch_of(bench, 144) as folder:
        yield folder


def fill(linux: Guest, source: str, background: bool = False) -> None:
    """All of its second disk, 32 MiB."""
    command = f"dd if=/dev/{source} of=/dev/vdb bs=1M count=32 conv=notrunc,fsync 2> /dev/null"
    linux.console.run(f"{command} &" if background else command, 60)


def test_a_guest_that_fills_the_scratch_after_the_kill_is_never_paused_and_the_next_run_says_why_it_begins_anew(
    bench: Bench, linux: Guest, small: Guest, tight_for_held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an export of another VM, with the same scratch folder, goes on."""
    fill(linux, "urandom")
    kill(bench, monkeypatch, "resumable", vm="linux", disks=["vdb"], consistency="crash_consistent")
    with bench.running_module("vm_export", bench.module_arguments(vm="small", bandwidth_limit=SLOW)) as module:
        module.wait_for_bytes()
        assert backup_under_way(linux.domain)
        fill(linux, "zero", background=True)
        eventually(lambda: not backup_under_way(linux.domain))
        assert "export" in module.result()
    assert linux.domain.state()[0] == RUNNING
    assert linux.console.run("wait; echo alive").endswith("alive")
    eventually(lambda: list(tight_for_held.glob("vmferry-*/stopped")) and not list(our_processes()))
    result = bench.export("linux", disks=("vdb",))
    assert result["resumed"]["export"] == ""
    assert f"the scratch folder {tight_for_held} ran low" in result["resumed"]["reason"]
    assert "paused" not in result["resumed"]["reason"]
    bench.assert_nothing_left("linux")


def test_an_export_that_fails_is_not_kept_where_nothing_would_be_held(bench: Bench, small: Guest, tight: Path) -> None:
    with bench.running_module("vm_export", bench.module_arguments(vm="small", bandwidth_limit=SLOW)) as module:
        module.wait_for_bytes()
        module.signal(signal.SIGTERM)
        result = module.result()
    assert (result["error"]["kind"], "kept" in result) == ("cancelled", False)
    bench.assert_nothing_left("small")


def test_an_export_that_ends_since_the_scratch_runs_low_is_not_kept_as_there_is_nothing_to_go_on_with(
    bench: Bench, linux: Guest, tight: Path
) -> None:
    fill(linux, "urandom")
    asked = bench.module_arguments(
        vm="linux", disks=["vdb"], consistency="crash_consistent", bandwidth_limit="4MiB/s", mode="full"
    )
    with bench.running_module("vm_export", asked) as module:
        module.wait_for_bytes()
        fill(linux, "zero", background=True)
        result = module.result()
    assert (result["error"]["kind"], "kept" in result) == ("no_space", False)
    assert bench.keys() == []
    assert linux.console.run("wait; echo alive").endswith("alive")
    bench.assert_nothing_left("linux")


def test_a_guest_that_the_full_scratch_paused_all_the_same_is_resumed_and_the_next_run_says_so(
    bench: Bench, linux: Guest, tight_for_held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(linux, "urandom")
    kill(bench, monkeypatch, "resumable", vm="linux", disks=["vdb"], consistency="crash_consistent")
    (watchdog,) = (pid for pid, command in our_processes() if b"vmferry-watchdog" in command)
    os.kill(watchdog, signal.SIGSTOP)  # as on a host that has no time for it
    try:
        (tight_for_held / "filler").write_bytes(bytes(134 * MIB))
        fill(linux, "zero", background=True)
        eventually(lambda: linux.domain.state()[0] == PAUSED)
    finally:
        os.kill(watchdog, signal.SIGCONT)
    eventually(lambda: linux.domain.state()[0] == RUNNING)
    assert linux.console.run("wait; echo alive").endswith("alive")
    eventually(lambda: not list(our_processes()))
    (tight_for_held / "filler").unlink()
    reason = bench.export("linux", disks=("vdb",))["resumed"]["reason"]
    assert "ran low, which had paused the guest; it goes on" in reason
    bench.assert_nothing_left("linux")


def fill_up(folder: Path) -> Path:
    """Not even a small file fits any more."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


@contextmanager
def snapshot_of(bench: Bench, vm: str, name: str) -> Iterator[None]:
    snapshots = SnapshotBench(bench, vm)
    snapshots.task(name=name)
    yield
    snapshots.task("absent", name=name)


@pytest.mark.parametrize("kind", ["off", "snapshot"])
def test_of_a_vm_that_is_off_what_fails_is_kept_although_the_scratch_folder_is_full(
    bench: Bench, off: str, kind: str
) -> None:
    source = {"source": "then"} if kind == "snapshot" else None
    snapshot = SnapshotOptions(source="then") if source else None
    asked = bench.module_arguments(vm=off, bandwidth_limit="8MiB/s", snapshot=source)
    with scratch_of(bench, 16) as scratch, snapshot_of(bench, off, "then") if source else nullcontext():
        with bench.running_module("vm_export", asked) as module:
            module.wait_for_bytes()
            time.sleep(1)  # in which its journal notes some of it
            filler = fill_up(scratch)
            module.signal(signal.SIGTERM)
            kept = module.result()["kept"]
        with pytest.raises(VmferryError, match="scratch folder") as caught:
            bench.export(off, snapshot=snapshot)
        assert (caught.value.kind, caught.value.done["kept"]["export"]) == ("no_space", kept["export"])
        filler.unlink()
        made = bench.export(off, snapshot=snapshot)
        assert (made["resumed"]["export"], made["resumed"]["reason"]) == (kept["export"], "")
        bench.assert_nothing_left(off, runs=False)


def test_of_a_vm_that_is_off_what_cannot_commit_since_the_scratch_folder_is_full_is_kept(
    bench: Bench, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scratch_of(bench, 16) as scratch:
        monkeypatch.setattr(write_export, "verify_disk", lambda *_unused: fill_up(scratch))
        with pytest.raises(VmferryError, match="scratch folder") as caught:
            bench.export(off)
        assert caught.value.kind == "no_space"
        assert caught.value.done["kept"]["export"] in bench.keys()[0]


def test_a_store_that_cannot_replace_conditionally_is_resumed_to_as_well(
    bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = FilesystemStore.probe

    def poor(self: FilesystemStore, key: str) -> StoreCapabilities:
        return replace(probe(self, key), conditional_put=False, conditional_replace=False)

    monkeypatch.setattr(FilesystemStore, "probe", poor)
    with pytest.raises(VmferryError, match="max_duration") as caught:
        bench.export("small", transfer={"bandwidth_limit": "2MiB/s", "max_duration": 6.0})
    kept = caught.value.done["kept"]["export"]
    result = bench.export("small")
    assert result["resumed"]["export"] == kept == result["export"]["id"]
    compare(bench.stored(result), "qcow2", bench.rig.directory / "small.qcow2", "qcow2")
    bench.assert_nothing_left("small")
