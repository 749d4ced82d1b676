# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs of libvirt, and files, become VMs of libvirt with no store between; killed anywhere, nothing of them is left."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    JobRequest,
    MigrateRequest,
    ProviderSpec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.migrate_vm import migrate_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.import_session import LibvirtImport
from rigs import guests
from rigs.domain import Guest, boot_and_expect, remove_domain

from .conftest import OffVm
from .exports import MIB, PATIENCE, Bench, compare, refused
from .leftovers import backup_under_way, left_in_folder

NEW = "moved"
WALK = ("backup_begun", "migration_read", "migration_verified", "settled", "defined")
WHOLE = ("defined",)  # from here on there is a VM


@pytest.fixture
def moved(bench: Bench) -> Iterator[str]:
    """A name for the new VM, which is removed afterwards."""
    yield NEW
    for domain in bench.rig.connect().listAllDomains():
        if domain.name() == NEW:
            remove_domain(domain)


def migrate(
    bench: Bench, vm: str, *, check_mode: bool = False, transfer: dict[str, Any] | None = None, **asked: Any
) -> dict[str, Any]:
    placement = Placement(NEW, **{"storage": str(bench.images), **asked.pop("placement", {})})
    source = asked.pop("source", bench.provider)
    fields = {"transfer": bench.transfer(**(transfer or {})), **asked}
    return migrate_vm(MigrateRequest(source, bench.provider, vm, placement, **fields), check_mode)


def module_arguments(bench: Bench, vm: str) -> dict[str, Any]:
    end = {"provider": "libvirt", "libvirt": {"uri": bench.rig.uri, "scratch_dir": str(bench.scratch)}}
    placement = {"storage": str(bench.images), "disk_format": "raw"}
    common = {"state_dir": str(bench.state), "parallel": 1}
    return {"source": end, "destination": end, "vm": vm, "name": NEW, "placement": placement, **common}


def test_a_running_vm_is_copied_as_it_was_at_one_moment_and_runs_on(bench: Bench, small: Guest, moved: str) -> None:
    result = migrate(bench, "small", placement={"power_on": True})
    assert (result["migration"]["consistency"], result["migration"]["verified"]) == ("crash_consistent", "content")
    assert result["vm"]["power_state"] == "powered_on"
    domain = bench.rig.connect().lookupByName(moved)
    domain.destroy()
    compare(bench.images / f"{NEW}-disk-0.qcow2", "qcow2", bench.rig.directory / "small.qcow2", "qcow2")
    boot_and_expect(bench.rig, domain, guests.boot_marker("small"))
    assert bench.rig.connect().lookupByName("small").isActive()
    bench.assert_nothing_left("small")
    again = migrate(bench, "small")
    assert (again["changed"], again["vm"]["id"]) == (False, result["vm"]["id"])


def test_a_vm_that_is_off_stays_off_and_its_zeros_take_no_room(bench: Bench, vm: OffVm, moved: str) -> None:
    result = migrate(bench, vm.name, consistency="powered_off", placement={"disk_format": "raw"})
    assert result["source"]["power_state"] == "powered_off"
    image = bench.images / f"{NEW}-disk-0.img"
    compare(image, "raw", vm.disk, "raw")
    assert image.stat().st_blocks * 512 <= 9 * MIB  # of 16, one half of which is zeros
    assert result["migration"]["disks"][0]["bytes_written"] == 8 * MIB
    bench.assert_nothing_left(vm.name, runs=False)


def test_an_image_becomes_a_vm(bench: Bench, moved: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    disk = guests.mbr_disk(tmp_path / "images" / "web.raw", "moved")
    files = ProviderSpec("image", {"url": (tmp_path / "images").as_uri(), "storage": {}})
    result = migrate(bench, "web", source=files, networks=())
    assert (result["vm"]["firmware"], result["source"]["provider"]) == ("bios", "image")
    compare(bench.images / f"{NEW}-disk-0.qcow2", "qcow2", disk, "raw")
    boot_and_expect(bench.rig, bench.rig.connect().lookupByName(moved), guests.boot_marker("moved"))
    assert not migrate(bench, "web", source=files, networks=())["changed"]


@pytest.mark.parametrize("format", ["qcow2", "raw"])
def test_an_image_that_does_not_end_with_a_sector_becomes_a_proved_vm(
    format: str, bench: Bench, moved: str, tmp_path: Path
) -> None:
    (tmp_path / "odd.raw").write_bytes(Random(3).randbytes(MIB + 100))
    files = ProviderSpec("image", {"url": tmp_path.as_uri(), "storage": {}})
    result = migrate(bench, "odd", source=files, networks=(), placement={"disk_format": format})
    assert (result["migration"]["verified"], result["migration"]["disks"][0]["size"]) == ("content", MIB + 100)
    image = bench.images / f"{NEW}-disk-0.{'qcow2' if format == 'qcow2' else 'img'}"
    compare(image, format, tmp_path / "odd.raw", "raw")


def test_a_vm_goes_into_an_ova_and_back(bench: Bench, vm: OffVm, moved: str, tmp_path: Path) -> None:
    files = ProviderSpec("image", {"url": tmp_path.as_uri(), "storage": {}})
    asked = MigrateRequest(
        bench.provider, files, vm.name, Placement("packed", disk_format="ova"), transfer=bench.transfer()
    )
    there = migrate_vm(asked, check_mode=False)
    assert [path.name for path in tmp_path.iterdir()] == ["packed.ova"]
    assert not migrate_vm(asked, check_mode=False)["changed"]
    back = migrate(bench, "packed", source=files)
    compare(bench.images / f"{NEW}-disk-0.qcow2", "qcow2", vm.disk, "raw")
    roots = [told["migration"]["disks"][0]["digest_root"] for told in (there, back)]
    assert roots[:1] * 2 == roots
    bench.assert_nothing_left(vm.name, runs=False)


def test_what_the_storage_did_not_keep_becomes_no_vm(
    bench: Bench, vm: OffVm, moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_back = LibvirtImport.read_back

    def after_damage(session: LibvirtImport) -> Any:
        session._serving.close()
        with session._disks[0].part.open("r+b") as file:
            file.seek(3 * MIB)
            file.write(b"rot")
        return read_back(session)

    monkeypatch.setattr(LibvirtImport, "read_back", after_damage)
    how = {"placement": {"disk_format": "raw"}}
    error = refused(lambda: migrate(bench, vm.name, **how), "checksum_mismatch", f"bytes {3 * MIB} to ")
    assert (error.job or {})["vm"] == vm.name
    bench.assert_no_machine(moved)
    bench.assert_nothing_left(vm.name, runs=False)
    assert migrate(bench, vm.name, verify="none", **how)["changed"]  # which looks at nothing


def test_both_ends_are_looked_at_before_anything_happens(bench: Bench, small: Guest, moved: str) -> None:
    asked: dict[str, Any] = {"consistency": "powered_off", "placement": {"storage": "/nowhere"}}
    found = migrate(bench, "small", check_mode=True, **asked)
    assert {one["kind"] for one in found["findings"] if one["severity"] == "error"} == {"conflict", "not_found"}
    assert not found["changed"]
    with pytest.raises(VmferryError):
        migrate(bench, "small", **asked)
    bench.assert_nothing_left("small")
    assert migrate(bench, "small", check_mode=True)["changed"]
    assert not bench.images.joinpath(f"{NEW}-disk-0.qcow2").exists()


def kill(bench: Bench, monkeypatch: pytest.MonkeyPatch, failpoint: str) -> str:
    """A migration, at this point; its job's id."""
    monkeypatch.setenv("VMFERRY_FAILPOINT", failpoint)
    with bench.running_module("vm_migrate", module_arguments(bench, "small")) as killed:
        assert killed.process.wait(PATIENCE * 2) == -signal.SIGKILL
    monkeypatch.delenv("VMFERRY_FAILPOINT")
    return killed.job


@pytest.mark.parametrize("failpoint", WALK)
def test_a_migration_that_is_killed_anywhere_leaves_nothing_to_the_next_run(
    failpoint: str, bench: Bench, small: Guest, moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, failpoint)
    result = migrate(bench, "small", placement={"disk_format": "raw"})
    assert result["changed"] is (failpoint not in WHOLE)
    compare(bench.images / f"{NEW}-disk-0.img", "raw", bench.rig.directory / "small.qcow2", "qcow2")
    assert sorted(path.name for path in bench.images.iterdir()) == [f"{NEW}-disk-0.img"]
    assert bench.rig.connect().lookupByName("small").isActive()
    assert not backup_under_way(bench.rig.connect().lookupByName("small"))
    assert not list(left_in_folder(bench.scratch))


def test_what_a_killed_migration_left_is_undone_by_whoever_cancels_its_job(
    bench: Bench, small: Guest, moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = kill(bench, monkeypatch, "window-copied:3")
    asked = JobRequest(job, "cancelled", PATIENCE, str(bench.state), provider=bench.provider)
    assert end_job(asked, check_mode=False)["job"]["phase"] == "cancelled"
    bench.assert_no_machine(moved)
    bench.assert_nothing_left("small")


def test_a_migration_that_is_told_to_end_undoes_itself_and_nobody_comes_between(
    bench: Bench, small: Guest, moved: str
) -> None:
    arguments = {**module_arguments(bench, "small"), "bandwidth_limit": "4MiB/s"}
    with bench.running_module("vm_migrate", arguments) as running:
        record = running._wait(lambda one: one["phase"] == "transferring" and one["bytes_read"] > 0, "bytes")
        assert (record["kind"], record["disk_count"]) == ("migrate", 1)
        refused(lambda: migrate(bench, "small"), "busy", f"job {running.job}")
        running.signal(signal.SIGTERM)
        assert running.result()["error"]["kind"] == "cancelled"
    bench.assert_no_machine(moved)
    bench.assert_nothing_left("small")
