# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop or weaken an export from vSphere is found before anything is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.finding import Finding
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import export_checks, stream_slots
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.lease import LeaseFile
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.lease_files import (
    disk_name,
    files_of_disks,
    nvram_file,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.native_files import LARGEST, read_whole
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.stream_slots import StreamSlots
from rigs.vsphere import Disk, VSphere

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machines(server: VSphere) -> dict[str, str]:
    for state in (True, False):
        name = f"checked-{'on' if state else 'off'}"
        server.make_vm(name, [bytes(65536), Disk(bytes(65536), mode="independent_persistent")], running=state)
    return {"on": "checked-on", "off": "checked-off"}


@pytest.fixture
def on(provider: VsphereProvider, machines: dict[str, str]) -> VmSpec:
    return provider.describe(machines["on"])


@pytest.fixture
def off(provider: VsphereProvider, machines: dict[str, str]) -> VmSpec:
    return provider.describe(machines["off"])


def errors(found: Any) -> list[Finding]:
    assert all(one.hint for one in found if one.severity == "error")
    return [one for one in found if one.severity == "error"]


def changed(vm: VmSpec, disk: int, **details: Any) -> VmSpec:
    disks = list(vm.disks)
    disks[disk] = replace(disks[disk], details={**disks[disk].details, **details})
    return vm.with_disks(tuple(disks))


def test_nothing_is_wrong_with_a_usual_vm(provider: VsphereProvider, on: VmSpec, off: VmSpec) -> None:
    assert provider.check_export(off, off.disks, "auto") == []
    (left,) = provider.check_export(on, on.disks[:1], "quiesced")
    assert (left.severity, "scsi0:1" in left.message) == ("info", True)


def test_independent_disk_is_in_no_snapshot(provider: VsphereProvider, on: VmSpec, off: VmSpec) -> None:
    (found,) = errors(provider.check_export(on, on.disks, "auto"))
    assert (found.kind, "scsi0:1" in found.message) == ("unsupported", True)
    assert "Shut it down" in found.hint


@pytest.mark.parametrize(
    "details", [{"shared": True}, {"rdm_mode": "physical"}, {"backing": "raw_device"}, {"encrypted": True}]
)
def test_disk_that_vsphere_does_not_export_is_refused(
    provider: VsphereProvider, on: VmSpec, off: VmSpec, details: dict[str, Any]
) -> None:
    for vm in (on, off):
        unfit = changed(vm, 0, **details)
        found = errors(provider.check_export(unfit, unfit.disks[:1], "auto"))
        assert [(one.kind, "scsi0:0" in one.message) for one in found] == [("unsupported", True)]


def test_disk_of_which_there_is_no_snapshot_stops_a_vm_that_runs_although_it_is_left_out(
    provider: VsphereProvider, on: VmSpec, off: VmSpec
) -> None:
    unfit = changed(on, 1, shared=True)
    assert [one.kind for one in errors(provider.check_export(unfit, unfit.disks[:1], "auto"))] == ["unsupported"]
    still = changed(off, 1, shared=True)
    assert errors(provider.check_export(still, still.disks[:1], "auto")) == []


@pytest.mark.parametrize(
    ("what", "words", "kind"),
    [
        ({"tpm": True}, "virtual TPM", "unsupported"),
        ({"power_state": "unknown"}, "unknown", "conflict"),
        ({"encrypted": True}, "encrypted", "unsupported"),
        ({"template": True}, "template", "unsupported"),
        ({"connection_state": "disconnected"}, "disconnected", "conflict"),
    ],
)
def test_vm_that_vsphere_does_not_export_is_refused(
    provider: VsphereProvider, on: VmSpec, what: dict[str, Any], words: str, kind: str
) -> None:
    own = {name: value for name, value in what.items() if name in ("tpm", "power_state")}
    vm = replace(on, details={**on.details, **what}, **own)
    found = errors(provider.check_export(vm, vm.disks[:1], "auto"))
    assert [(one.kind, words in one.message) for one in found] == [(kind, True)]


def test_guest_that_cannot_be_quiesced_is_told(provider: VsphereProvider, on: VmSpec) -> None:
    deaf = replace(on, guest_agent=False)
    found = provider.check_export(deaf, deaf.disks, "auto")
    assert [one.message for one in found if one.severity == "warning"] != []
    assert "unsupported" in [one.kind for one in errors(provider.check_export(deaf, deaf.disks[:1], "quiesced"))]
    assert errors(provider.check_export(deaf, deaf.disks[:1], "crash_consistent")) == []
    assert [one.kind for one in errors(provider.check_export(on, on.disks[:1], "powered_off"))] == ["conflict"]


def test_privileges_that_are_missing_are_told(
    provider: VsphereProvider, vcenter: VSphere, on: VmSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def lacking(_session: object, vm: VmSpec, privilege: str) -> list[Finding]:
        asked.append(privilege)
        return [Finding("error", f"{vm.name}: {privilege}", "Give it.", "permission_denied")]

    monkeypatch.setattr(export_checks, "of_privilege", lacking)
    found = errors(provider.check_export(on, on.disks[:1], "auto"))
    assert [one.kind for one in found] == ["permission_denied"] * 3
    assert asked == [
        "VirtualMachine.State.CreateSnapshot",
        "VirtualMachine.State.RemoveSnapshot",
        "VApp.Export",
    ]


# --- which file of a lease is which disk ------------------------------------------------------------------------------


def file(key: str, is_disk: bool = True) -> LeaseFile:
    return LeaseFile(key, f"https://esx/nfc/{key.rpartition('/')[2]}", "", is_disk, "")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("/vm-42/ParaVirtualSCSIController0:1", "scsi0:1"),
        ("/7/VirtualLsiLogicController1:15", "scsi1:15"),
        ("/vm-42/VirtualLsiLogicSASController0:0", "scsi0:0"),
        ("/vm-42/VirtualIDEController1:0", "ide1:0"),
        ("/vm-42/VirtualAHCIController0:2", "sata0:2"),
        ("/vm-42/VirtualNVMEController0:0", "nvme0:0"),
        ("/vm-42/nvram", ""),
        ("/vm-42/VirtualUnknownController0:0", ""),
    ],
)
def test_key_of_a_lease_names_the_disk(key: str, name: str) -> None:
    assert disk_name(key) == name


def spec(name: str) -> DiskSpec:
    return DiskSpec("disk-0", name, 65536, "vmdk", "scsi", "")


def machine(*disks: str) -> VmSpec:
    specs = tuple(map(spec, disks))
    return VmSpec("vsphere", "id", "web", "/DC/vm/web", "powered_off", 1, 64, "bios", specs)


def test_disk_is_never_taken_for_another() -> None:
    vm = machine("scsi0:0", "scsi0:1")
    known = [file("/vm-1/ParaVirtualSCSIController0:1"), file("/vm-1/ParaVirtualSCSIController0:0")]
    assert files_of_disks(known, vm, vm.disks) == {"scsi0:0": known[1], "scsi0:1": known[0]}
    unknown = [known[0], file("/vm-1/Something0:0")]
    with pytest.raises(VmferryError, match="does not export scsi0:0 of web") as refused:
        files_of_disks(unknown, vm, vm.disks)
    assert (refused.value.kind, refused.value.retryable) == ("conflict", True)
    assert files_of_disks(unknown, vm, vm.disks[1:])["scsi0:1"] is known[0]
    one = machine("scsi0:0")
    assert files_of_disks([unknown[1]], one, one.disks) == {"scsi0:0": unknown[1]}


def test_variables_are_known_by_their_key() -> None:
    found = file("/vm-1/nvram", is_disk=False)
    assert nvram_file([file("/vm-1/nvram"), found]) is found
    assert nvram_file([file("/vm-1/ParaVirtualSCSIController0:1")]) is None


def test_what_is_no_small_file_is_not_held_in_memory() -> None:
    parts = [b"ab", b"c", b""]
    assert read_whole(lambda _count: parts.pop(0), "They") == b"abc"
    with pytest.raises(VmferryError, match=f"more than {LARGEST} bytes"):
        read_whole(lambda count: bytes(count), "They")


# --- how many streams a host sends ------------------------------------------------------------------------------------


def test_host_sends_so_many_streams_at_once_and_no_more() -> None:
    slots = StreamSlots(2)
    first, _second = slots.take("esx1", lambda: False), slots.take("esx1", lambda: False)
    slots.take("esx2", lambda: False)
    with pytest.raises(VmferryError) as closed:
        slots.take("esx1", lambda: True)
    assert closed.value.kind == "cancelled"
    slots.give_back("esx1", first)
    slots.give_back("esx1", first)
    slots.take("esx1", lambda: True)


def test_stream_that_nobody_reads_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_slots, "IDLE", 0.0)
    slots = StreamSlots(1)
    taken = slots.take("esx1", lambda: False)
    with taken.reading(), pytest.raises(VmferryError):
        slots.take("esx1", lambda: True)
    slots.take("esx1", lambda: False)
