# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Increments from vSphere: what changed and nothing else is read, every byte is right, and doubt is a full export."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ProviderSpec,
    SnapshotOptions,
    SnapshotRequest,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import readers, tracking
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.changed_areas import ChangedAreas
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.temporary_snapshot import (
    TemporarySnapshot,
)
from rigs.vsphere import Disk, VSphere

from .vddk import fake_nbdkit

pytestmark = pytest.mark.slow
MIB, LEAF = 1 << 20, 65536
SIZE = 6 * MIB
DATA = Random(5).randbytes(2 * MIB)
_numbers = count(1)

KILLED_EXPORT = """
import json, sys
from {package}._operations.export_vm import export_vm
from {package}._operations.jobs.requests import ExportRequest, ProviderSpec, StoreSpec, TransferOptions
given = json.loads(sys.argv[1])
export_vm(ExportRequest(
    vm=given["vm"], provider=ProviderSpec("vsphere", given["settings"]), store=StoreSpec(given["store"], {{}}),
    transfer=TransferOptions(state_dir=given["state"]),
), False)
"""


class Site:
    """One VM in the simulator, and a store on a path."""

    def __init__(self, vcenter: VSphere, settings: dict[str, Any], folder: Path) -> None:
        self.vcenter, self.settings, self.folder = vcenter, settings, folder
        (folder / "store").mkdir()
        self.name = ""

    def make_vm(self, *disks: Disk, **hardware: Any) -> None:
        self.name = f"increments-{next(_numbers)}"
        wanted = {"running": True, "tracking": True, **hardware}
        self.moref = self.vcenter.make_vm(self.name, disks or [Disk(DATA, size=SIZE)], **wanted)

    def write(self, offset: int, data: bytes, disk: int = 0) -> None:
        self.vcenter.write(self.moref, disk, offset, data)

    def export(self, check_mode: bool = False, settings: dict[str, Any] | None = None, **options: Any) -> Any:
        """What the VM has at the moment of the export is what has to be in the store, and is returned with it."""
        transfer = TransferOptions(state_dir=str(self.folder / "state"), max_retries=2, idle_timeout=60.0)
        spec = ProviderSpec("vsphere", {**self.settings, **(settings or {})})
        store = StoreSpec((self.folder / "store").as_uri(), {})
        request = ExportRequest(vm=self.name, store=store, provider=spec, transfer=transfer, **options)
        return export_vm(request, check_mode)

    def content(self, result: dict[str, Any], disk: int = 0) -> bytes:
        """As qemu-img reads the whole chain."""
        stored = Path(result["export"]["disks"][disk]["url"].removeprefix("file://"))
        target = self.folder / "read"
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", stored, target], check=True)
        return target.read_bytes()

    def now(self, disk: int = 0) -> bytes:
        return self.vcenter.disk_bytes(self.moref, disk)

    def assert_nothing_left(self) -> None:
        left = self.vcenter.leftovers()
        assert not [name for name in left.snapshots if name.startswith(f"{self.name}/")]
        assert not left.leases


@pytest.fixture
def site(vcenter: VSphere, settings: dict[str, Any], tmp_path: Path) -> Iterator[Site]:
    made = Site(vcenter, settings, tmp_path)
    yield made
    vcenter.heal()
    vcenter.settings(folder_ranges=True, locked_flats="active", page=4)
    made.assert_nothing_left()
    vcenter.expire_sessions()  # of whoever was killed


def read_by(result: dict[str, Any]) -> list[str]:
    return [disk["read_by"] for disk in result["export"]["disks"]]


def bytes_read(result: dict[str, Any]) -> int:
    return sum(int(disk["bytes_read"]) for disk in result["export"]["disks"])


def test_increments_read_what_changed_and_every_moment_is_exact(site: Site) -> None:
    random = Random(17)
    site.make_vm(Disk(DATA, size=SIZE), Disk(b"second", size=MIB))
    moments = []
    for turn in range(3):
        plan = site.export(check_mode=True)["plan"]
        result = site.export(spot_check=0)
        moments.append((result, site.now(), site.now(1)))
        export = result["export"]
        assert export["mode"] == ("incremental" if turn else "full")
        if turn:
            assert export["fell_back"] == ""
            told = sum(int(disk["bytes_changed"]) for disk in export["disks"])
            assert plan["mode"] == "incremental"
            assert told <= plan["bytes_to_read"] <= 12 * LEAF, "zeros over zeros are told of, and are no change"
            assert read_by(result) == ["datastore", "datastore"]
            assert bytes_read(result) <= 12 * LEAF + 4 * MIB // 2, "and the ends of the disks, for the spot check"
            assert export["disks"][0]["bytes_changed"] <= 12 * LEAF
        for _unused in range(6):
            length = random.randrange(1, LEAF)
            offset = random.randrange(SIZE - length)
            site.write(offset, random.choice([bytes(length), random.randbytes(length)]))
    for result, first, second in moments:
        assert site.content(result) == first
        assert site.content(result, 1) == second
    assert site.export(mode="incremental", spot_check=0)["changed"]
    assert site.export()["changed"] is False, "nothing was written since"


def test_tracking_is_switched_on_once_and_its_snapshots_are_gone(site: Site) -> None:
    site.make_vm(tracking=False)
    first = site.export()
    assert f"Change tracking of {site.name} was switched on, for the next increment." in first["warnings"]
    assert first["export"]["change_token"].startswith("vsphere-1-")
    assert len(site.vcenter.calls("CreateSnapshot_Task")) == 2
    site.write(3 * MIB, b"new")
    site.vcenter.forget_calls()
    second = site.export()
    assert (second["export"]["mode"], read_by(second), second["warnings"]) == ("incremental", ["datastore"], [])
    assert len(site.vcenter.calls("CreateSnapshot_Task")) == 1
    assert site.content(second) == site.now()


def test_tracking_is_left_alone_where_it_is_not_asked_for(site: Site) -> None:
    site.make_vm(tracking=False)
    result = site.export(track_changes=False)
    assert (result["export"]["change_token"], read_by(result)) == ("", ["lease"])
    assert not site.vcenter.calls("ReconfigVM_Task")


@pytest.mark.parametrize("asked", [SnapshotOptions(keep=2), SnapshotOptions(source="before")])
def test_export_of_a_snapshot_is_refused_before_one_is_made(site: Site, asked: SnapshotOptions) -> None:
    site.make_vm()
    found = site.export(check_mode=True, snapshot=asked)["findings"]
    assert [(one["severity"], one["kind"]) for one in found] == [("error", "unsupported")]
    with pytest.raises(VmferryError, match="Snapshots on vsphere cannot be exported") as refused:
        site.export(snapshot=asked)
    assert "Leave snapshot out" in refused.value.hint
    assert not site.vcenter.calls("CreateSnapshot_Task") + site.vcenter.calls("CreateSnapshotEx_Task")


def test_vm_that_is_off_is_tracked_too(site: Site) -> None:
    site.make_vm(running=False, tracking=False)
    assert site.export()["export"]["consistency"] == "powered_off"
    site.write(3 * MIB, b"new")
    result = site.export()
    assert (result["export"]["mode"], result["export"]["consistency"]) == ("incremental", "powered_off")
    assert read_by(result) == ["datastore"]
    assert site.content(result) == site.now()


def test_lost_tracking_is_a_full_export_and_said(site: Site) -> None:
    site.make_vm()
    site.export()
    site.write(3 * MIB, b"new")
    site.vcenter.reset_tracking(site.moref)
    result = site.export()
    assert result["export"]["mode"] == "full"
    assert "was reset since the last export" in result["export"]["fell_back"]
    assert site.content(result) == site.now()


def test_tracking_that_lies_is_found_out_and_the_export_is_a_full_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.make_vm()
    site.export()
    site.write(0, b"a boot sector that is not told of")
    told = tracking.changes_since

    def lies(*arguments: Any) -> Any:
        since = told(*arguments)
        return tracking.Since({name: ChangedAreas(SIZE) for name in since.areas})

    monkeypatch.setattr(tracking, "changes_since", lies)
    result = site.export()
    assert (result["export"]["mode"], "did not say so" in result["export"]["fell_back"]) == ("full", True)
    assert site.content(result) == site.now()


def test_increment_of_what_only_a_lease_reads_is_found_by_digests(site: Site) -> None:
    site.make_vm()
    site.vcenter.settings(folder_ranges=False)
    site.export()
    site.write(3 * MIB, b"new")
    result = site.export()
    assert (result["export"]["mode"], read_by(result)) == ("incremental", ["lease"])
    assert "compared by digests" in result["export"]["reason"]
    assert result["export"]["disks"][0]["bytes_changed"] == LEAF
    assert site.content(result) == site.now()


def test_where_a_vm_may_go_back_to_an_older_snapshot_nothing_is_taken_for_unchanged(site: Site) -> None:
    """What vSphere knows of changes goes back with it."""
    site.make_vm()
    spec = ProviderSpec("vsphere", site.settings)
    manage_snapshots(SnapshotRequest(spec, site.name, "present", name="older"), False)
    site.write(MIB, b"of the first export")
    first = site.export()
    manage_snapshots(SnapshotRequest(spec, site.name, "reverted", name="older"), False)
    manage_snapshots(SnapshotRequest(spec, site.name, "absent", name="older"), False)
    site.write(3 * MIB, b"new")
    site.vcenter.forget_calls()
    second = site.export()
    assert first["export"]["mode"] == "full"
    assert "compared by digests" in second["export"]["reason"]
    assert not site.vcenter.calls("QueryChangedDiskAreas")
    assert site.content(second) == site.now()


def test_export_over_nbd(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.make_vm()
    asked = fake_nbdkit(tmp_path, site.settings["password"], monkeypatch)
    program = tmp_path / "programs" / "nbdkit"
    image = tmp_path / "frozen" / "2000"
    image.parent.mkdir()
    image.write_bytes(site.now())
    # Which snapshot it will be is not known before.
    program.write_text(program.read_text().replace('given["snapshot"]', '"frozen"'))
    result = site.export(settings={"vddk_libdir": "/opt/vddk"})
    assert (read_by(result), result["warnings"]) == (["nbd"], [])
    assert json.loads(asked.read_text())["parameters"]["snapshot"].startswith("snapshot-")
    assert site.content(result) == site.now()


def test_thick_disk_of_a_vm_that_is_off_is_read_in_ranges(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_is_mostly_allocated", lambda disk: True)  # the simulator tells of no disk's files
    site.make_vm(running=False, tracking=False)
    result = site.export(track_changes=False)
    assert (read_by(result), result["export"]["consistency"]) == (["datastore"], "powered_off")
    assert not site.vcenter.calls("ExportVm")
    assert site.content(result) == site.now()


@pytest.mark.parametrize("asked", ["auto", "powered_off"])
def test_vm_that_is_started_meanwhile_was_not_off(site: Site, monkeypatch: pytest.MonkeyPatch, asked: Any) -> None:
    site.make_vm(running=False)
    make = TemporarySnapshot.make

    def started(self: TemporarySnapshot, consistency: Any) -> Any:
        machine = self._session.managed("VirtualMachine", site.moref)
        self._session.once("Starting it", lambda _content: machine.PowerOnVM_Task())
        return make(self, consistency)

    monkeypatch.setattr(TemporarySnapshot, "make", started)
    if asked == "powered_off":
        with pytest.raises(VmferryError, match="was started meanwhile"):
            site.export(consistency=asked)
    else:
        result = site.export(consistency=asked)
        assert result["export"]["consistency"] == "crash_consistent"
        assert site.content(result) == site.now()


def test_vm_that_is_off_and_takes_no_snapshot_is_exported_all_the_same(site: Site) -> None:
    site.make_vm(running=False)
    site.vcenter.fault("CreateSnapshot_Task", "fault", fault="NoPermission")
    result = site.export()
    assert read_by(result) == ["lease"]
    assert any("is read by a lease, without a snapshot" in warning for warning in result["warnings"])
    assert site.content(result) == site.now()


def test_variables_of_the_firmware_are_kept_where_no_disk_needs_a_lease(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_is_mostly_allocated", lambda disk: True)
    site.make_vm(firmware="efi", nvram=b"variables")
    before = site.vcenter.leases()
    result = site.export()
    assert read_by(result) == ["datastore"]
    folder = Path(result["export"]["url"].removeprefix("file://"))
    assert (folder / "native" / "vm.nvram").read_bytes() == b"variables"
    assert [how for name, how in site.vcenter.leases().items() if name not in before] == ["completed"]


def test_snapshot_that_is_removed_under_the_export_ends_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_is_mostly_allocated", lambda disk: True)
    site.make_vm()
    confirm = readers.Readers.confirm

    def removed(self: readers.Readers) -> None:
        snapshot = self._session.managed("VirtualMachineSnapshot", self._frozen.snapshot)
        self._session.once("Removing it", lambda _content: snapshot.RemoveSnapshot_Task(False, True))
        confirm(self)

    monkeypatch.setattr(readers.Readers, "confirm", removed)
    with pytest.raises(VmferryError, match="somebody removed it"):
        site.export()
    assert not list((site.folder / "store").rglob("manifest.json"))


def test_snapshot_that_began_the_tracking_is_removed_by_the_next_run_where_one_is_killed_over_it(site: Site) -> None:
    site.make_vm(tracking=False)
    package = export_vm.__module__.rpartition("._operations")[0]
    given = {"vm": site.name, "settings": site.settings, "store": (site.folder / "store").as_uri()}
    given["state"] = str(site.folder / "state")
    command = [sys.executable, "-c", KILLED_EXPORT.format(package=package), json.dumps(given)]
    where = {**os.environ, "VMFERRY_FAILPOINT": "tracking_begun", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [name for name in site.vcenter.leftovers().snapshots if name.startswith(f"{site.name}/")]
    result = site.export()
    site.assert_nothing_left()
    assert site.content(result) == site.now()
