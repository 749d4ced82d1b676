# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Increments of a VM whose changes libvirt tracks: read little, restore exactly, and never believe too much."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting import export_disk
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import LeafHash
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.spot_check import SpotCheck
from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start, remove_domain
from rigs.libvirt import LibvirtRig

from .exports import MIB, PATIENCE, Bench, check, compare
from .libvirt_provider.qemu_monitor import bitmaps_in_image, clear_bitmap

LEAF = 65536
FILL = "dd if=/dev/urandom of=/dev/vdc bs=1M count=8 conv=notrunc,fsync 2> /dev/null"
ONLY = ("vdc",)


def write(linux: Guest, leaf: int, count: int = 1, source: str = "urandom") -> None:
    linux.console.run(
        f"dd if=/dev/{source} of=/dev/vdc bs=65536 seek={leaf} count={count} conv=notrunc,fsync 2> /dev/null"
    )


def digest(linux: Guest) -> str:
    return linux.console.run("sync; sha256sum /dev/vdc").split()[0]


def restored(bench: Bench, result: dict[str, Any], name: str) -> str:
    """SHA-256 of the disk of a VM imported from this export."""
    bench.import_(name, export=result["export"]["id"], placement={"disk_format": "raw"})
    remove_domain(bench.rig.connect().lookupByName(name))
    (disk,) = bench.images.glob(f"{name}-disk-*")
    sums = subprocess.run(["sha256sum", str(disk)], check=True, capture_output=True, text=True)
    disk.unlink()
    return sums.stdout.split()[0]


@pytest.mark.parametrize(("kind", "compression"), [("bench", "none"), ("s3_bench", "zstd")])
def test_an_increment_reads_what_changed_and_each_export_restores_its_moment(
    kind: str, compression: str, linux: Guest, request: pytest.FixtureRequest
) -> None:
    bench: Bench = request.getfixturevalue(kind)
    linux.console.run(FILL)
    moments = [(bench.export("linux", disks=ONLY, compression=compression), digest(linux))]
    for turn in range(2):
        write(linux, 3 + turn)
        write(linux, 40, 4, "zero")
        linux.console.run(f"blkdiscard -o {(60 + turn) * LEAF} -l {LEAF} /dev/vdc")
        made = bench.export("linux", disks=ONLY, mode="incremental", compression=compression)
        moments.append((made, digest(linux)))
        (disk,) = made["export"]["disks"]
        assert made["export"]["mode"] == "incremental"
        assert disk["bytes_read"] <= 5 * LEAF, "zeros and discards need no read, or are few"
        assert disk["bytes_changed"] == (6 if turn == 0 else 2) * LEAF
    for number, (made, moment) in enumerate(moments):
        assert restored(bench, made, f"back-{number}") == moment
    (checkpoint,) = linux.domain.listAllCheckpoints()
    assert checkpoint.getName() == moments[-1][0]["export"]["change_token"]
    bench.assert_nothing_left("linux")


def test_where_nothing_was_written_no_export_is_made_and_the_token_stays(bench: Bench, linux: Guest) -> None:
    linux.console.run(FILL)
    first = bench.export("linux", disks=ONLY)
    again = bench.export("linux", disks=ONLY)
    assert (again["changed"], again["export"]["id"]) == (False, first["export"]["id"])
    assert [one.getName() for one in linux.domain.listAllCheckpoints()] == [first["export"]["change_token"]]
    write(linux, 9)
    assert bench.export("linux", disks=ONLY, mode="incremental")["export"]["disks"][0]["bytes_changed"] == LEAF
    bench.assert_nothing_left("linux")


def test_chains_in_two_stores_do_not_disturb_each_other(bench: Bench, s3_bench: Bench, linux: Guest) -> None:
    linux.console.run(FILL)
    benches = (bench, s3_bench)
    for one in benches:
        one.export("linux", disks=ONLY)
    for turn in range(4):
        write(linux, 10 + 3 * turn, 2)
        one = benches[turn % 2]
        made = one.export("linux", disks=ONLY, mode="incremental")
        assert made["export"]["mode"] == "incremental"
        assert restored(one, made, f"back-{turn}") == digest(linux)
    assert len(linux.domain.listAllCheckpoints()) == 2


def test_an_export_in_another_format_does_not_cost_the_chain_its_checkpoint(bench: Bench, linux: Guest) -> None:
    linux.console.run(FILL)
    first = bench.export("linux", disks=ONLY)["export"]
    bench.export("linux", disks=ONLY, format="raw", verify="none")
    write(linux, 0, 64)
    made = bench.export("linux", disks=ONLY)["export"]
    assert (made["mode"], made["parent"], made["fell_back"]) == ("incremental", first["id"], "")
    assert [one.getName() for one in linux.domain.listAllCheckpoints()] == [made["change_token"]]


def test_a_disk_that_nobody_tracks_is_scanned_beside_one_that_is_tracked(bench: Bench, linux: Guest) -> None:
    linux.console.run(FILL)
    linux.console.run("dd if=/dev/urandom of=/dev/vdb bs=1M count=2 conv=notrunc,fsync 2> /dev/null")
    both = ("vdb", "vdc")
    bench.export("linux", disks=both)
    write(linux, 2)
    linux.console.run("dd if=/dev/urandom of=/dev/vdb bs=65536 seek=5 count=1 conv=notrunc,fsync 2> /dev/null")
    made = bench.export("linux", disks=both, mode="incremental")["export"]
    raw, tracked = made["disks"]
    assert (raw["bytes_changed"], tracked["bytes_changed"]) == (LEAF, LEAF)
    assert raw["bytes_read"] >= 2 * MIB
    assert tracked["bytes_read"] == LEAF


def test_without_track_changes_nothing_is_left_on_the_vm_and_an_increment_scans(bench: Bench, linux: Guest) -> None:
    linux.console.run(FILL)
    first = bench.export("linux", disks=ONLY, track_changes=False)
    assert first["export"]["change_token"] == ""
    assert linux.domain.listAllCheckpoints() == []
    write(linux, 7)
    made = bench.export("linux", disks=ONLY, track_changes=False, mode="incremental")["export"]
    assert made["disks"][0]["bytes_changed"] == LEAF
    assert made["disks"][0]["bytes_read"] >= 8 * MIB
    assert "compared by digests" in made["reason"]
    assert linux.domain.listAllCheckpoints() == []


def test_a_checkpoint_that_was_removed_makes_the_export_a_full_one(bench: Bench, linux: Guest) -> None:
    linux.console.run(FILL)
    first = bench.export("linux", disks=ONLY)
    (checkpoint,) = linux.domain.listAllCheckpoints()
    checkpoint.delete()
    write(linux, 1)
    bench.refused_export("linux", "conflict", "has no checkpoint", disks=ONLY, mode="incremental")
    assert linux.domain.listAllCheckpoints() == [], "the refused one left none"
    made = bench.export("linux", disks=ONLY)
    assert made["export"]["mode"] == "full"
    assert f"has no checkpoint {first['export']['change_token']}" in made["export"]["fell_back"]
    assert made["export"]["chain_id"] != first["export"]["chain_id"], "a full export begins a chain of its own"
    assert restored(bench, made, "back") == digest(linux)
    bench.assert_nothing_left("linux")


def test_the_spot_check_looks_elsewhere_each_time_also_where_nothing_changes(
    bench: Bench, linux: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bitmap that lies and is empty makes every night an unchanged one."""
    shifts = []

    class Noted(SpotCheck):
        def __init__(self, size: int, count: int, shift: float, leaf_hash: LeafHash) -> None:
            shifts.append(shift)
            super().__init__(size, count, shift, leaf_hash)

    monkeypatch.setattr(export_disk, "SpotCheck", Noted)
    bench.export("linux", disks=ONLY)
    for _unused in range(2):
        assert not bench.export("linux", disks=ONLY)["changed"]
    assert len(shifts) == 2
    assert 0 <= min(shifts) < max(shifts) < 1


def test_tracking_that_lies_is_found_by_the_spot_check_and_the_export_is_full(bench: Bench, linux: Guest) -> None:
    """The bitmap is emptied behind everybody's back, as a rollback of the storage below the VM would."""
    linux.console.run(FILL)
    first = bench.export("linux", disks=ONLY)
    write(linux, 0, 2)
    clear_bitmap(linux, bench.rig.directory / "linux-more.qcow2", first["export"]["change_token"])
    refused = bench.refused_export("linux", "conflict", "its change tracking", disks=ONLY, mode="incremental")
    assert "bytes 0 to 65536 of disk-2 changed" in refused.message
    made = bench.export("linux", disks=ONLY)
    assert made["export"]["mode"] == "full"
    assert "its change tracking did not say so" in made["export"]["fell_back"]
    assert restored(bench, made, "back") == digest(linux)
    bench.assert_nothing_left("linux")


@pytest.fixture
def fleeting(rig: LibvirtRig) -> Iterator[Guest]:
    """A Linux guest of its own, for a test that switches it off."""
    directory = rig.directory
    system = guests.place(guests.linux_disk(), directory / "fleeting-system.qcow2")
    more = directory / "fleeting-more.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(more), str(16 * MIB)], check=True)
    guest = define_and_start(rig, Machine("fleeting", disks=(Disk(system), Disk(more))))
    guest.console.wait_for(guests.READY)
    yield guest
    guest.destroy()
    for path in (system, more):
        path.unlink()


def test_a_chain_goes_on_when_the_vm_is_switched_off_and_on(bench: Bench, fleeting: Guest, rig: LibvirtRig) -> None:
    only, more = ("vdb",), rig.directory / "fleeting-more.qcow2"
    fill = "dd if=/dev/urandom of=/dev/vdb bs=1M count=4 conv=notrunc,fsync 2> /dev/null"
    fleeting.console.run(fill)
    bench.export("fleeting", disks=only)
    fleeting.console.run("dd if=/dev/urandom of=/dev/vdb bs=65536 seek=9 count=2 conv=notrunc,fsync 2> /dev/null")
    fleeting.domain.destroy()  # which ends QEMU in good order: it stores the bitmaps
    wait_until(lambda: not fleeting.domain.isActive())
    off = bench.export("fleeting", disks=only, mode="incremental")
    assert off["export"]["disks"][0]["bytes_changed"] == 2 * LEAF
    compare(bench.stored(off), "qcow2", more, "qcow2")
    assert not bench.export("fleeting", disks=only)["changed"], "nothing was written since"
    check(more)
    bench.assert_nothing_left("fleeting", runs=False)
    scribble(more, 30)
    written = bench.export("fleeting", disks=only, mode="incremental")
    assert written["export"]["disks"][0]["bytes_changed"] == LEAF
    compare(bench.stored(written), "qcow2", more, "qcow2")


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_parents_manifest_that_goes_meanwhile_leaves_neither_export_nor_token(bench: Bench, linux: Guest) -> None:
    linux.console.run(FILL)
    first = bench.export("linux", disks=ONLY)
    write(linux, 0, 64)
    arguments = bench.module_arguments(vm="linux", disks=list(ONLY), bandwidth_limit="1MiB/s")
    with bench.running_module("vm_export", arguments) as process:
        process.wait_for_bytes()
        bench.stored(first).with_name("manifest.json").unlink()
        assert process.result()["error"]["kind"] == "conflict"
    assert [one.getName() for one in linux.domain.listAllCheckpoints()] == [first["export"]["change_token"]]


UNDONE = ("claimed", "watchdog", "backup_begun")
GONE_ON_WITH = (
    "resumable",
    "part-sent",
    "window-delivered",
    "data-sent",
    "objects-complete",
    "token_kept",
    "manifest",
)
WHOLE = ("committed", "job_ended", "tokens_forgotten")


@pytest.mark.parametrize("failpoint", [*UNDONE, *GONE_ON_WITH, *WHOLE])
def test_a_killed_increment_is_undone_or_gone_on_with_or_whole_and_the_chain_goes_on(
    bench: Bench, linux: Guest, failpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    linux.console.run(FILL)
    first = bench.export("linux", disks=ONLY)
    write(linux, 5, 3)
    write(linux, 70, 2, "zero")
    monkeypatch.setenv("VMFERRY_FAILPOINT", failpoint)
    with bench.running_module("vm_export", bench.module_arguments(vm="linux", disks=list(ONLY))) as killed:
        assert killed.process.wait(PATIENCE) == -signal.SIGKILL
    monkeypatch.delenv("VMFERRY_FAILPOINT")
    moment = digest(linux)
    write(linux, 90)
    made = bench.export("linux", disks=ONLY)
    assert made["export"]["mode"] == "incremental", made["export"]["fell_back"]
    assert (made["export"]["parent"] != first["export"]["id"]) == (failpoint in WHOLE)
    if failpoint in GONE_ON_WITH:
        assert made["resumed"]["export"] == made["export"]["id"]
        assert made["export"]["disks"][0]["bytes_changed"] == 5 * LEAF
        assert restored(bench, made, "moment") == moment
        made = bench.export("linux", disks=ONLY)
    assert made["export"]["disks"][0]["bytes_changed"] == (6 if failpoint in UNDONE else 1) * LEAF
    assert restored(bench, made, "back") == digest(linux)
    assert [one.getName() for one in linux.domain.listAllCheckpoints()] == [made["export"]["change_token"]]
    forget(bench, killed.job)
    bench.assert_nothing_left("linux")


def forget(bench: Bench, job: str) -> None:
    """A killed job's record stays as the kill left it; it says who died."""
    folder: Path = bench.state / "jobs" / job
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize("failpoint", ["token_made", "part-sent", "objects-complete", "token_kept", "committed"])
def test_a_killed_export_of_a_vm_that_is_off_is_undone_or_whole_and_the_chain_goes_on(
    bench: Bench, off: str, failpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = bench.rig.directory / f"{off}.qcow2"
    bench.export(off)
    scribble(disk, 30)
    monkeypatch.setenv("VMFERRY_FAILPOINT", failpoint)
    with bench.running_module("vm_export", bench.module_arguments(vm=off)) as killed:
        assert killed.process.wait(PATIENCE) == -signal.SIGKILL
    monkeypatch.delenv("VMFERRY_FAILPOINT")
    scribble(disk, 40)
    made = bench.export(off, mode="incremental")
    assert made["export"]["disks"][0]["bytes_changed"] == (1 if failpoint == "committed" else 2) * LEAF
    compare(bench.stored(made), "qcow2", disk, "qcow2")
    names = [one.getName() for one in bench.rig.connect().lookupByName(off).listAllCheckpoints()]
    assert names == [made["export"]["change_token"]]
    assert bitmaps_in_image(disk) == set(names)
    forget(bench, killed.job)
    bench.assert_nothing_left(off, runs=False)


def scribble(disk: Path, leaf: int) -> None:
    """As the guest would; QEMU notes it in the bitmaps. A watchdog may be at the image just then."""
    command = ["qemu-io", "-f", "qcow2", "-c", f"write -P {leaf} {leaf * LEAF} 512", str(disk)]
    wait_until(lambda: subprocess.run(command, check=False, capture_output=True).returncode == 0)
