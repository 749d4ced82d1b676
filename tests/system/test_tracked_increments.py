# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Increments of a VM whose changes libvirt tracks: read little, restore exactly, and never believe too much."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting import export_disk
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import LeafHash
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.spot_check import SpotCheck
from rigs.domain import Guest, remove_domain

from .exports import MIB, Bench
from .libvirt_provider.qemu_monitor import clear_bitmap

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


def test_an_increment_reads_what_changed_and_each_export_restores_its_moment(s3_bench: Bench, linux: Guest) -> None:
    bench, compression = s3_bench, "zstd"
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


def test_the_spot_check_looks_elsewhere_each_time_also_where_nothing_changes(
    bench: Bench, linux: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bitmap that lies and is empty makes every night an unchanged one."""
    shifts = []

    class Noted(SpotCheck):
        def __init__(self, size: int, count: int, shift: float, leaf_hash: LeafHash, block: int = LEAF) -> None:
            shifts.append(shift)
            super().__init__(size, count, shift, leaf_hash, block)

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
