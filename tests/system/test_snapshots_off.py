# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of VMs that are off: what they hold, what removing them leaves, and what is refused."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind, VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt import snapshot_room
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.connection import Connection
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.describe import describe
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.scratch import reserve_of
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.snapshot_remove import give_up
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.snapshot_room import ROOT
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.work_folder import WorkFolder
from rigs.domain import Disk, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .exports import MIB, Bench, compare
from .libvirt_provider.harness import new_job
from .snapshots import DISK, SnapshotBench, contents, create_image, define_off, overlay_on, remove_with_images, write


@pytest.fixture
def off_vm(rig: LibvirtRig, bench: Bench) -> Iterator[SnapshotBench]:
    """A qcow2 and a raw disk, each with something on it."""
    name = f"snap-{secrets.token_hex(3)}"
    domain = define_off(rig, name)
    vm = SnapshotBench(bench, name)
    write_all(vm, 0x11)
    yield vm
    vm.assert_nothing_left()
    remove_with_images(rig, domain)


@pytest.fixture
def qcow2_vm(rig: LibvirtRig, bench: Bench) -> Iterator[SnapshotBench]:
    """Of which libvirt can make internal snapshots too."""
    name = f"snap-{secrets.token_hex(3)}"
    domain = define_off(rig, name, raw=False)
    vm = SnapshotBench(bench, name)
    write_all(vm, 0x11)
    yield vm
    vm.assert_nothing_left()
    remove_with_images(rig, domain)


def write_all(vm: SnapshotBench, pattern: int, offset: int = MIB) -> None:
    for path in vm.images().values():
        write(path, pattern, offset)


def test_what_was_written_since_is_gone_after_a_revert_and_nothing_else(off_vm: SnapshotBench) -> None:
    before = contents(off_vm.images())
    made = off_vm.task(name="before-upgrade")["snapshot"]
    assert (made["method"], made["consistency"], made["ours"], made["whole"]) == ("external", "powered_off", True, True)
    write_all(off_vm, 0x22)
    write_all(off_vm, 0x33, 6 * MIB)
    for _turn in range(2):
        result = off_vm.task("reverted", name="before-upgrade")
        assert result["changed"]
        assert contents(off_vm.images()) == before
        off_vm.assert_nothing_left()
        write_all(off_vm, 0x44)
    assert off_vm.names() == ["before-upgrade"]
    after = contents(off_vm.images())
    assert off_vm.task("absent", name="before-upgrade")["removed"] == ["before-upgrade"]
    assert contents(off_vm.images()) == after


def test_removing_the_oldest_of_a_chain_changes_nothing_but_the_chain(off_vm: SnapshotBench) -> None:
    own = off_vm.images()
    for number, name in enumerate(("one", "two", "three")):
        off_vm.task(name=name)
        write_all(off_vm, 0x20 + number, (2 + number) * MIB)
    images, data = off_vm.images(), contents(off_vm.images())
    second = {disk["name"]: disk["overlay"] for disk in off_vm.task(name="two")["snapshot"]["disks"]}
    off_vm.task("absent", name="one")
    assert off_vm.images() == images, "the newest image stays"
    assert contents(images) == data
    two = off_vm.task(name="two")
    assert not two["changed"]
    assert {disk["name"]: disk["overlay"] for disk in two["snapshot"]["disks"]} == second
    assert {disk["name"]: disk["image"] for disk in two["snapshot"]["disks"]} == {
        target: str(path) for target, path in own.items()
    }
    off_vm.assert_nothing_left()
    off_vm.task("absent", name="two")
    write_all(off_vm, 0x55)
    off_vm.task("reverted", name="three")
    off_vm.task("absent", name="three")
    assert off_vm.images() == own


def test_consolidating_merges_all_of_ours_and_says_which(off_vm: SnapshotBench) -> None:
    own = off_vm.images()
    for number in range(3):
        off_vm.task(name=f"layer-{number}")
        write_all(off_vm, 0x60 + number, number * MIB)
    data = contents(off_vm.images())
    result = off_vm.task("consolidated")
    assert (result["changed"], result["removed"]) == (True, ["layer-0", "layer-1", "layer-2"])
    assert result["snapshots"] == []
    assert off_vm.images() == own
    assert contents(own) == data
    assert not off_vm.task("consolidated")["changed"]


def test_going_back_past_a_later_snapshot_is_refused_and_names_it(off_vm: SnapshotBench) -> None:
    off_vm.task(name="early")
    off_vm.task(name="late")
    error = off_vm.refused("unsupported", "late", "reverted", name="early")
    assert "late" in error.hint
    off_vm.task("absent")


def test_an_image_that_another_vm_stands_on_is_not_changed(off_vm: SnapshotBench, rig: LibvirtRig) -> None:
    off_vm.task(name="shared")
    write_all(off_vm, 0x77)
    frozen = off_vm.images()["vda"].with_name(f"{off_vm.vm}.qcow2")
    clone = rig.directory / f"clone-{off_vm.vm}.qcow2"
    overlay_on(frozen, clone)
    domain = rig.connect().defineXML(domain_xml(Machine(f"clone-{off_vm.vm}", disks=(Disk(clone),)), rig.directory))
    try:
        data = contents({"vda": clone})
        for state in ("absent", "consolidated"):
            off_vm.refused("conflict", f"clone-{off_vm.vm}", state)
        assert contents({"vda": clone}) == data
    finally:
        remove_domain(domain)
        clone.unlink()
    off_vm.task("absent")


def test_volumes_of_a_pool_are_merged_back_into_the_volumes(rig: LibvirtRig, bench: Bench) -> None:
    name = f"pooled-{secrets.token_hex(3)}"
    folder = rig.directory / name
    folder.mkdir()
    create_image(folder / f"{name}.qcow2")
    pool = rig.connect().storagePoolCreateXML(
        f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
    )
    text = domain_xml(Machine(name, disks=(Disk(folder / f"{name}.qcow2"),), memory_mib=32), rig.directory)
    text = text.replace('<disk type="file"', '<disk type="volume"')
    text = text.replace(f'file="{folder}/{name}.qcow2"', f'pool="{name}" volume="{name}.qcow2"')
    domain = rig.connect().defineXML(text)
    vm = SnapshotBench(bench, name)
    try:
        for running in (False, True):
            if running:
                domain.create()
            vm.task(name="one")
            vm.task(name="two")
            assert len(list(folder.iterdir())) == 3
            vm.task("consolidated")
            assert [path.name for path in folder.iterdir()] == [f"{name}.qcow2"]
    finally:
        remove_domain(domain)
        pool.destroy()
        shutil.rmtree(folder)


def test_an_internal_snapshot_comes_back_and_is_not_lost_in_a_merge(qcow2_vm: SnapshotBench) -> None:
    qcow2_vm.task(name="outer")
    write_all(qcow2_vm, 0x22)
    data = contents(qcow2_vm.images())
    made = qcow2_vm.task(name="inner", method="internal")["snapshot"]
    assert (made["method"], made["parent"]) == ("internal", "outer")
    write_all(qcow2_vm, 0x33)
    qcow2_vm.refused("conflict", "inner", "absent", name="outer")
    qcow2_vm.refused("unsupported", "inner", "reverted", name="outer")
    qcow2_vm.task("reverted", name="inner")
    assert contents(qcow2_vm.images()) == data
    planned = qcow2_vm.task("absent", check_mode=True)
    assert (planned["plan"]["remove"], planned["findings"]) == (["inner", "outer"], [])
    qcow2_vm.task("absent")
    assert contents(qcow2_vm.images()) == data


def test_an_internal_snapshot_below_an_external_one_is_left_until_that_is_gone(qcow2_vm: SnapshotBench) -> None:
    qcow2_vm.task(name="inner", method="internal")
    before = contents(qcow2_vm.images())
    qcow2_vm.task(name="outer")
    write_all(qcow2_vm, 0x33)
    data = contents(qcow2_vm.images())
    for state in ("reverted", "absent"):
        assert "outer" in qcow2_vm.refused("conflict", "inner", state, name="inner").hint
    assert contents(qcow2_vm.images()) == data
    qcow2_vm.task("absent", name="outer")
    assert contents(qcow2_vm.images()) == data
    qcow2_vm.task("reverted", name="inner")
    assert contents(qcow2_vm.images()) == before
    qcow2_vm.task("absent", name="inner")


@pytest.mark.parametrize("kind", ["timeout", "network", "no_space"])
def test_what_libvirt_may_still_be_making_is_not_removed(off_vm: SnapshotBench, kind: Kind) -> None:
    """It would go on to run the VM on a file that is not there."""
    with closing(Connection(off_vm.bench.rig.uri)) as connection:
        vm = describe(connection, off_vm.vm)
        folder = WorkFolder.create(str(off_vm.bench.scratch), "snapshot", vm.id, vm.name, new_job())
        overlay = off_vm.bench.rig.directory / f"{vm.name}.qcow2.vmferry-0a0b0c0d"
        folder.will_make(overlay=str(overlay))
        overlay.touch()
        give_up(connection, vm, folder, VmferryError(kind, "Making the snapshot failed."))
        gone = kind == "no_space"
        assert (overlay.exists(), folder.path.exists()) == (not gone, not gone)
        if not gone:
            folder.remove()
            overlay.unlink()


def test_check_mode_tells_all_findings_and_the_plan_and_makes_nothing(off_vm: SnapshotBench) -> None:
    result = off_vm.task(name="{vm}-now", check_mode=True)
    assert result["changed"]
    assert (result["plan"]["create"], result["plan"]["method"]) == (f"{off_vm.vm}-now", "external")
    assert result["diff"] == {"before": {"snapshots": []}, "after": {"snapshots": [f"{off_vm.vm}-now"]}}
    refused = off_vm.task(name="now", method="internal", check_mode=True)
    assert not refused["changed"]
    assert [finding["kind"] for finding in refused["findings"]] == ["unsupported"]
    assert "vdb" in refused["findings"][0]["message"]
    assert off_vm.names() == []
    result = off_vm.task(name="{vm}-now")
    assert result["diff"] == {"before": {"snapshots": []}, "after": {"snapshots": [f"{off_vm.vm}-now"]}}
    assert not off_vm.task(name="{vm}-now")["changed"]
    assert off_vm.task("absent", name="{vm}-now", check_mode=True)["plan"]["remove"] == [f"{off_vm.vm}-now"]
    off_vm.task("absent", name="{vm}-now")


@pytest.mark.parametrize(
    ("failpoint", "name"),
    [("merged", "one"), ("merged", "two")],
)
def test_a_removal_from_a_chain_that_was_killed_goes_on(off_vm: SnapshotBench, failpoint: str, name: str) -> None:
    own = off_vm.images()
    off_vm.task(name="one")
    write_all(off_vm, 0x22)
    off_vm.task(name="two")
    write_all(off_vm, 0x33, 3 * MIB)
    data = contents(off_vm.images())
    off_vm.killed_at(failpoint, name=name, state="absent")
    assert contents(off_vm.images()) == data
    off_vm.refused("conflict", "not whole", "reverted", name=name)
    off_vm.task("absent", name=name)
    assert contents(off_vm.images()) == data
    off_vm.assert_nothing_left()
    off_vm.task("absent")
    assert off_vm.images() == own


def test_a_chain_of_exports_goes_on_over_snapshots_and_ends_at_a_revert(qcow2_vm: SnapshotBench) -> None:
    bench = qcow2_vm.bench

    def export(at: int) -> str:
        """Writes, exports, compares; the export's mode."""
        write_all(qcow2_vm, at, at * MIB)
        exported = bench.export(qcow2_vm.vm)
        compare(bench.stored(exported), "qcow2", qcow2_vm.images()["vda"], "qcow2")
        made = exported["export"]
        assert made["disks"][0]["bytes_read"] <= 4 * MIB, "all of it was read, as without tracking"
        return str(made["mode"])

    assert export(1) == "full"
    qcow2_vm.task(name="one")
    write_all(qcow2_vm, 0x22, 2 * MIB)
    qcow2_vm.task("absent", name="one")
    assert export(3) == "incremental", "what was written before the merge and after it is known"
    qcow2_vm.task(name="one")
    assert export(4) == "incremental", "also while the snapshot is there"
    qcow2_vm.task(name="two")
    write_all(qcow2_vm, 0x55, 5 * MIB)
    qcow2_vm.task("absent", name="one")
    qcow2_vm.task("absent", name="two")
    qcow2_vm.task(name="inner", method="internal")
    assert export(6) == "incremental", "also where the last export stood on a snapshot that is gone"
    result = qcow2_vm.task("reverted", name="inner")
    assert any("full" in warning for warning in result["warnings"])
    assert qcow2_vm.domain.listAllCheckpoints() == []
    write_all(qcow2_vm, 0x66)
    exported = bench.export(qcow2_vm.vm, track_changes=False)["export"]
    assert (exported["mode"], bool(exported["fell_back"])) == ("full", True)
    qcow2_vm.task("absent")


def test_room_is_counted_for_all_disks_of_a_file_system_together(
    off_vm: SnapshotBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(off_vm.bench.rig.directory)
    one_disk_only = reserve_of(folder) + DISK // 10 + 1
    monkeypatch.setattr(snapshot_room, "free_bytes", lambda _folder: one_disk_only)
    (finding,) = off_vm.task(check_mode=True)["findings"]
    assert (finding["severity"], finding["kind"]) == ("warning", "no_space")
    assert finding["message"].startswith(f"{folder} has ")
    assert "what the guest writes from now on may take 2 MiB there" in finding["message"]
    monkeypatch.setattr(snapshot_room, "free_bytes", lambda _folder: 0)
    off_vm.refused("no_space", "must stay free", "present", name="tight")


def test_folders_that_may_not_be_written_to_are_told_before_anything_is_touched(
    off_vm: SnapshotBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def may_write(*but: Path) -> None:
        monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) not in but)

    def told(state: str = "present", **options: Any) -> list[str]:
        found = off_vm.task(state, check_mode=True, **options)["findings"]
        assert all(one["kind"] == "permission_denied" and one["hint"] == ROOT for one in found)
        return [one["message"] for one in found]

    images, scratch = off_vm.bench.rig.directory, off_vm.bench.scratch
    may_write(images)
    assert told() == [f"{images} cannot be written to, and an overlay has to lie there."]
    off_vm.refused("permission_denied", "overlay", "present", name="locked")
    may_write()
    off_vm.task(name="there")
    may_write(images)
    assert told("absent", name="there") == [f"{images} cannot be written to, and an image in it has to be removed."]
    assert told("reverted", name="there") == [f"{images} cannot be written to, and a fresh overlay has to lie there."]
    may_write(scratch)
    for state in ("absent", "reverted"):
        assert [message.split(" cannot ")[0] for message in told(state, name="there")] == [str(scratch)]
    may_write()
    scratch.rmdir()
    off_vm.refused("not_found", f"The scratch folder {scratch} does not exist", "absent", name="there")
    scratch.mkdir()
    off_vm.task("absent", name="there")
