# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs of vSphere that are removed: they alone, and with their disks only what is theirs alone."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.bring_vm import bring_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec, VmRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from rigs.vsphere import VSphere

from .importing import SMALL, in_datacenter

pytestmark = pytest.mark.slow


def remove(settings: dict[str, Any], vm: str, *, disks: bool, check_mode: bool = False) -> dict[str, Any]:
    request = VmRequest(ProviderSpec("vsphere", settings), vm, "absent", timeout=30.0, force=False, remove_disks=disks)
    return bring_vm(request, check_mode)


def test_vm_goes_with_its_disks_only_where_that_is_asked(vcenter: VSphere, settings: dict[str, Any]) -> None:
    before = vcenter.leftovers()
    for name in ("removed-kept", "removed-gone"):
        vcenter.make_vm(name, [SMALL])
    assert remove(settings, "removed-kept", disks=False)["changed"] is True
    assert (len(vcenter.calls("UnregisterVM")), vcenter.calls("Destroy_Task")) == (1, [])
    there = vcenter.leftovers()
    assert remove(settings, "removed-gone", disks=True)["changed"] is True
    after = vcenter.leftovers()
    assert after.machines == before.machines
    assert (
        [file for file in after.files if file not in before.files]
        == [file for file in there.files if "removed-kept" in file]
        != []
    )
    assert remove(settings, "removed-gone", disks=True) == {
        "changed": False,
        "vm": None,
        "diff": {"before": {}, "after": {}},
    }


def test_check_mode_says_what_would_be_removed_and_removes_nothing(vcenter: VSphere, settings: dict[str, Any]) -> None:
    vcenter.make_vm("removed-looked-at", [SMALL])
    before = vcenter.leftovers()
    told = remove(settings, "removed-looked-at", disks=True, check_mode=True)
    assert (told["changed"], told["diff"]) == (True, {"before": {"vm": "removed-looked-at"}, "after": {}})
    assert vcenter.leftovers() == before


def test_vm_that_runs_is_not_removed(vcenter: VSphere, settings: dict[str, Any], provider: VsphereProvider) -> None:
    vcenter.make_vm("removed-running", [SMALL])
    seen = provider.describe("removed-running")
    provider.start(seen)
    for act in (lambda: remove(settings, "removed-running", disks=True), lambda: provider.remove(seen, disks=True)):
        with pytest.raises(VmferryError, match="removed-running is powered_on, not powered_off") as refused:
            act()
        assert refused.value.kind == "conflict"
    assert "removed-running" in vcenter.leftovers().machines


def test_disk_that_another_vm_has_as_well_stays(
    vcenter: VSphere, settings: dict[str, Any], provider: VsphereProvider
) -> None:
    vcenter.make_vm("removed-one", [SMALL[:4096]])
    vcenter.make_vm("removed-two", [SMALL])
    shared = provider.describe("removed-two").disks[0].source
    _attach(provider, "removed-one", shared)
    (number,) = [at for at, disk in enumerate(provider.describe("removed-one").disks) if disk.source == shared]
    told = remove(settings, "removed-one", disks=True)
    assert told["warnings"] == [f"disk-{number} ({shared}) of removed-one stays: removed-two has it, too."]
    assert "removed-one" not in vcenter.leftovers().machines
    assert vcenter.disk_bytes("removed-two") == SMALL


def test_disk_that_only_a_snapshot_of_another_vm_has_stays(
    vcenter: VSphere, settings: dict[str, Any], provider: VsphereProvider
) -> None:
    vcenter.make_vm("rolled-back", [SMALL[:4096], SMALL])
    vcenter.make_vm("removed-before", [SMALL[:4096]])
    shared = provider.describe("rolled-back").disks[1].source
    _take_snapshot(provider, "rolled-back")
    _detach_last(provider, "rolled-back")
    _attach(provider, "removed-before", shared)
    (number,) = [at for at, disk in enumerate(provider.describe("removed-before").disks) if disk.source == shared]
    (warning,) = remove(settings, "removed-before", disks=True)["warnings"]
    assert warning == f"disk-{number} ({shared}) of removed-before stays: rolled-back has it, too."
    assert remove(settings, "rolled-back", disks=True)["changed"] is True


def test_vm_whose_snapshot_another_stands_on_keeps_its_files(
    vcenter: VSphere, settings: dict[str, Any], provider: VsphereProvider
) -> None:
    """A linked clone stands on the disk of a snapshot, which goes with the VM whatever is detached."""
    vcenter.make_vm("cloned", [SMALL])
    vcenter.make_vm("clone", [SMALL[:4096]])
    base = provider.describe("cloned").disks[0].source
    _take_snapshot(provider, "cloned")
    _attach(provider, "clone", base)
    before = vcenter.leftovers()
    with pytest.raises(VmferryError, match="would take it along") as refused:
        remove(settings, "cloned", disks=True)
    assert (refused.value.kind, f"hold {base}, which clone has" in refused.value.message) == ("conflict", True)
    after = vcenter.leftovers()
    assert (after.machines, after.files) == (before.machines, before.files)
    assert vcenter.disk_bytes("clone", 1) == SMALL
    assert remove(settings, "cloned", disks=False)["changed"] is True
    assert "[LocalDS_0] cloned" in vcenter.leftovers().files


def _take_snapshot(provider: VsphereProvider, vm: str) -> None:
    in_datacenter(provider, vim.VirtualMachine, vm).CreateSnapshot_Task("first", "", False, False)


def _detach_last(provider: VsphereProvider, vm: str) -> None:
    machine = in_datacenter(provider, vim.VirtualMachine, vm)
    disk = [one for one in machine.config.hardware.device if isinstance(one, vim.vm.device.VirtualDisk)][-1]
    change = vim.vm.device.VirtualDeviceSpec(operation="remove", device=disk)
    machine.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change]))


def _attach(provider: VsphereProvider, vm: str, file: str) -> None:
    machine = in_datacenter(provider, vim.VirtualMachine, vm)
    controller = vim.vm.device.ParaVirtualSCSIController(key=-1, busNumber=0, sharedBus="noSharing")
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=file, diskMode="persistent")
    disk = vim.vm.device.VirtualDisk(
        key=-2, controllerKey=-1, unitNumber=0, backing=backing, capacityInKB=len(SMALL) // 1024
    )
    changes = [vim.vm.device.VirtualDeviceSpec(operation="add", device=one) for one in (controller, disk)]
    machine.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=changes))
