# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs made on vSphere: of every byte that was read, with the hardware and in the place that a task asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.import_mark import (
    ImportMark,
    mark_in,
    notes_of,
    with_mark,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import NicSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.import_hardware import (
    guest_id,
    hardware_version,
    new_disks,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from rigs.vsphere import VSphere

from .importing import DATA, EXPORT, SMALL, SYSTEM, Import, a_vm, config_of, in_datacenter

pytestmark = pytest.mark.slow


@pytest.fixture
def importing(vcenter: VSphere, provider: VsphereProvider) -> Import:
    return Import(provider, vcenter)


def whole(data: bytes) -> bytes:
    return data + bytes(-len(data) % 1024)


def test_every_byte_of_every_disk_arrives(vcenter: VSphere, importing: Import) -> None:
    made = importing.run(a_vm(SYSTEM, DATA, SMALL), [SYSTEM, DATA, SMALL], name="bytes")
    assert [vcenter.disk_bytes("bytes", number) for number in range(3)] == [whole(SYSTEM), whole(DATA), whole(SMALL)]
    assert (made.name, made.power_state, made.cpu, made.memory_mb) == ("bytes", "powered_off", 2, 512)
    (lease,) = set(vcenter.leases()) - set(importing.leases_before)
    assert vcenter.leases()[lease] == "completed"
    assert vcenter.progress()[lease][-1] == 100
    sent = vcenter.calls("POST /nfc/")
    assert sum(call.bytes for call in sent) < len(SYSTEM) + len(DATA)  # zeros are not sent


def test_disks_are_sent_several_at_once_but_no_more_than_an_esxi_host_bears(
    vcenter: VSphere, importing: Import
) -> None:
    disks = [SMALL] * 6
    assert importing.together(a_vm(*disks), disks, 4, 30.0, name="six") == 4
    assert importing.together(a_vm(*disks[:2]), disks[:2], 2, 0.2, name="one by one", workers=1) == 1


def test_disk_whose_size_vsphere_cannot_have_is_rounded_up_with_zeros(vcenter: VSphere, importing: Import) -> None:
    odd = SMALL[:-11]
    importing.run(a_vm(odd), [odd], name="odd")
    assert vcenter.disk_bytes("odd") == odd + bytes(11)


def test_the_notes_say_what_a_vm_was_made_of_and_keep_what_people_wrote(
    vcenter: VSphere, provider: VsphereProvider, importing: Import
) -> None:
    notes = "Ask Ann & Bob.\nSecond line"
    importing.run(a_vm(SMALL, details={"description": notes}), [SMALL], name="noted")
    found = provider.imported("noted")
    assert found is not None
    assert found[1] == EXPORT
    said = found[0].details["description"]
    assert said.startswith(notes + "\n")
    mark = mark_in(said)
    assert mark is not None
    assert (mark.state, mark.attempt, mark.owner) == ("whole", "0badcafe", {})
    again = replace(found[0], provider="vsphere", nics=())
    importing.run(again, [SMALL], name="noted again", export="vsphere:another one")
    twice = provider.imported("noted again")
    assert twice is not None
    assert twice[1] == "vsphere:another one"
    assert twice[0].details["description"].count("vmferry-import") == 1
    assert twice[0].details["description"].startswith(notes + "\n")


AS_IT_WAS = (
    ("sata", {}, vim.vm.device.VirtualAHCIController),
    ("nvme", {}, vim.vm.device.VirtualNVMEController),
    ("ide", {}, vim.vm.device.VirtualIDEController),
    ("virtio", {}, vim.vm.device.VirtualAHCIController),
    ("scsi", {"controller": "pvscsi"}, vim.vm.device.ParaVirtualSCSIController),
    ("scsi", {"controller": "lsisas1068"}, vim.vm.device.VirtualLsiLogicSASController),
    ("scsi", {"controller_model": "VirtualSCSI"}, vim.vm.device.ParaVirtualSCSIController),
    ("scsi", {}, vim.vm.device.VirtualLsiLogicController),
)


def test_disks_are_on_the_buses_that_they_had_as_far_as_vsphere_has_them(vcenter: VSphere, importing: Import) -> None:
    sizes = [bytes(1024 * (number + 1)) for number in range(len(AS_IT_WAS))]
    vm = a_vm(*sizes, buses=[bus for bus, _details, _kind in AS_IT_WAS], provider="vsphere")
    pairs = zip(vm.disks, AS_IT_WAS)
    vm = vm.with_disks(tuple(replace(disk, details=details) for disk, (_bus, details, _kind) in pairs))
    importing.run(vm, sizes, name="all buses")
    devices = config_of(importing.provider, "all buses").hardware.device
    controllers = {one.key: type(one) for one in devices}
    found = {one.capacityInKB: controllers[one.controllerKey] for one in devices if hasattr(one, "capacityInKB")}
    assert [found[number] for number in sorted(found)] == [kind for _bus, _details, kind in AS_IT_WAS]


def test_disks_are_on_the_bus_that_is_asked_for(vcenter: VSphere, importing: Import) -> None:
    importing.run(a_vm(SMALL), [SMALL], name="on buslogic", disk_bus="buslogic")
    devices = config_of(importing.provider, "on buslogic").hardware.device
    assert any(isinstance(one, vim.vm.device.VirtualBusLogicController) for one in devices)


@pytest.mark.parametrize(
    ("asked", "bus", "had", "becomes"),
    [
        ("pvscsi", "sata", "", "pvscsi"),
        ("scsi", "scsi", "lsilogic", "lsilogic"),
        ("scsi", "sata", "", "pvscsi"),
        ("", "scsi", "", "sata"),  # of QEMU, whose SCSI is virtio
        ("", "usb", "", "sata"),
    ],
)
def test_bus_is_chosen_for_each_disk(asked: str, bus: str, had: str, becomes: str) -> None:
    vm = a_vm(SMALL, buses=[bus])
    vm = vm.with_disks((replace(vm.disks[0], details={"controller": had} if had else {}),))
    assert [disk.model for disk in new_disks(vm, Placement("new", disk_bus=asked))] == [becomes]


def test_hardware_is_what_it_was(vcenter: VSphere, importing: Import) -> None:
    vm = a_vm(
        SMALL,
        provider="vsphere",
        firmware="uefi",
        secure_boot=True,
        cpu=4,
        nics=(
            NicSpec("nic-0", "00:50:56:00:00:01", "VM Network", "e1000"),
            NicSpec("nic-1", "00:50:56:00:00:02", "VM Network", "vmxnet3"),
            NicSpec("nic-2", "00:50:56:00:00:03", "VM Network", "virtio"),
        ),
        details={
            "hardware_version": "vmx-17",
            "cores_per_socket": 2,
            "guest_id": "rhel9_64Guest",
            "cdroms": [{"name": "ide0:0"}],
        },
    )
    importing.run(vm, [SMALL], native={"web01.nvram": b"variables"}, name="same")
    config = config_of(importing.provider, "same")
    assert (config.firmware, config.bootOptions.efiSecureBootEnabled) == ("efi", True)
    assert (config.hardware.numCPU, config.hardware.numCoresPerSocket, config.version) == (
        4,
        2,
        "vmx-13",
    )  # as of hosts of 6.5
    assert config.guestId == "rhel9_64Guest"
    kinds = [type(one).__name__.rpartition(".")[2] for one in config.hardware.device if hasattr(one, "macAddress")]
    assert kinds == ["VirtualE1000", "VirtualVmxnet3", "VirtualE1000e"]
    assert any(isinstance(one, vim.vm.device.VirtualCdrom) for one in config.hardware.device)
    (sent,) = vcenter.calls("PUT /nfc/")
    assert (sent.bytes, sent.ended) == (len(b"variables"), "")


def test_variables_that_vsphere_does_not_take_are_a_warning(vcenter: VSphere, importing: Import) -> None:
    vcenter.settings(takes_nvram=False)
    opened: list[Any] = []
    try:
        vm = a_vm(SMALL, provider="vsphere", firmware="uefi")
        importing.run(vm, [SMALL], native={"web01.nvram": b"variables"}, name="forgetful", opened=opened)
    finally:
        vcenter.settings(takes_nvram=True)
    assert vcenter.calls("PUT /nfc/") == []
    (warning,) = opened[0].warnings
    assert warning.startswith("This vSphere does not take the firmware's variables of forgetful")


@pytest.mark.parametrize(
    "notes",
    [
        "A guest of ours\n[vmferry-import state=unfinished export=other job=2 attempt=3 name=web01]",
        "[vmferry-[vmferry-import x]import state=unfinished export=other job=2 attempt=3 name=web01]",
        "[vmferry-import state=unfinished export=other name=web01",
    ],
)
def test_notes_of_a_vm_are_never_taken_for_the_mark_of_its_import(notes: str) -> None:
    job = Job("1" * 32, "0badcafe")
    mark = ImportMark.of(job, EXPORT, "web01").text("whole")
    found = mark_in(with_mark(notes_of({"description": notes}), mark))
    assert found is not None
    assert (found.state, found.export, found.job, found.name) == ("whole", EXPORT, job.job_id, "")


@pytest.mark.parametrize(
    ("had", "hosts", "becomes"),
    [
        ("vmx-19", ["7.0.2.0", "8.0.2.0"], "vmx-19"),
        ("vmx-21", ["8.0.2.0"], "vmx-19"),
        ("vmx-19", ["7.0.1.0", "8.0"], "vmx-18"),
        ("vmx-15", ["7.0"], "vmx-15"),
        ("vmx-10", ["7.0"], "vmx-13"),
        ("pc-q35-8.2", ["8.0"], "vmx-13"),
        ("vmx-19", [], "vmx-13"),
    ],
)
def test_hardware_is_of_a_version_that_every_host_knows(had: str, hosts: list[str], becomes: str) -> None:
    assert hardware_version(a_vm(SMALL, machine=had), hosts) == becomes


@pytest.mark.parametrize(
    ("guest", "becomes"),
    [
        ("Microsoft Windows Server 2019", "windows9Server64Guest"),
        ("Windows 11", "windows9_64Guest"),
        ("http://debian.org/debian/12", "otherLinux64Guest"),
        ("FreeBSD", "otherGuest64"),
    ],
)
def test_guests_system_is_told_as_far_as_it_is_known(guest: str, becomes: str) -> None:
    assert guest_id(a_vm(SMALL, guest_os=guest)) == becomes


def test_hardware_that_the_task_asks_for_goes_before(vcenter: VSphere, importing: Import) -> None:
    importing.run(a_vm(SMALL), [SMALL], name="asked", cpu=3, memory_mb=1024, firmware="uefi")
    config = config_of(importing.provider, "asked")
    assert (config.hardware.numCPU, config.hardware.memoryMB, config.firmware) == (3, 1024, "efi")


@pytest.mark.parametrize(("how", "thin", "eager"), [("", True, False), ("thick", False, False), ("eager", False, True)])
def test_disks_are_provisioned_as_asked(vcenter: VSphere, importing: Import, how: str, thin: bool, eager: bool) -> None:
    importing.run(a_vm(SMALL), [SMALL], name=f"made {how}", disk_provisioning=how)
    assert importing.provider.describe(f"made {how}").disks[0].details["thin"] is thin
    devices: list[Any] = list(config_of(importing.provider, f"made {how}").hardware.device)
    (backing,) = [one.backing for one in devices if hasattr(one, "capacityInKB")]
    assert bool(backing.eagerlyScrub) is eager


def test_network_cards_go_where_the_map_says_and_keep_their_addresses_only_if_asked(
    vcenter: VSphere, importing: Import
) -> None:
    nics = (
        NicSpec("nic-0", "00:50:56:00:00:01", "blue", "vmxnet3"),
        NicSpec("nic-1", "00:50:56:00:00:02", "blue", "vmxnet3"),
    )
    by_both = {"blue": "VM Network", "00:50:56:00:00:02": "DC0_DVPG0"}
    kept = importing.run(a_vm(SMALL, nics=nics), [SMALL], name="kept", network_map=by_both, keep_mac=True)
    assert {(nic.network, nic.mac) for nic in kept.nics} == {
        ("VM Network", "00:50:56:00:00:01"),
        ("DC0_DVPG0", "00:50:56:00:00:02"),
    }
    group = in_datacenter(importing.provider, vim.dvs.DistributedVirtualPortgroup, "DC0_DVPG0")
    fresh = importing.run(a_vm(SMALL, nics=nics), [SMALL], name="fresh", network_map={"blue": group._moId})
    assert [nic.network for nic in fresh.nics] == ["DC0_DVPG0"] * 2
    assert not {nic.mac for nic in fresh.nics} & {nic.mac for nic in nics}


def test_uuid_is_kept_only_if_asked(vcenter: VSphere, importing: Import) -> None:
    vm = a_vm(SMALL)
    assert importing.run(vm, [SMALL], name="a uuid", keep_uuid=True).details["bios_uuid"] == vm.id
    assert importing.run(vm, [SMALL], name="another").details["bios_uuid"] != vm.id


def test_vm_is_started_only_if_asked(vcenter: VSphere, importing: Import) -> None:
    assert importing.run(a_vm(SMALL), [SMALL], name="started", power_on=True).power_state == "powered_on"


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ({"folder": "/DC0/vm/Landed"}, {"folder": "/DC0/vm/Landed"}),
        ({"folder": "Landed"}, {"folder": "/DC0/vm/Landed"}),
        ({"cluster": "DC0_C0", "host": ""}, {"cluster": "DC0_C0"}),
        ({"host": "DC0_C0_H1"}, {"cluster": "DC0_C0", "host": "DC0_C0_H1"}),
        ({"resource_pool": "DC0_C0_RP1", "host": ""}, {"cluster": "DC0_C0", "resource_pool": "DC0_C0_RP1"}),
        ({"storage": "LocalDS_1"}, {"storage": "LocalDS_1"}),
        ({"storage": "a pod"}, {"storage": "LocalDS_1"}),
        ({"storage_map": {"vda": "LocalDS_1"}}, {"storage": "LocalDS_1"}),
    ],
    ids=lambda value: "-".join(value),
)
def test_vm_lands_where_the_task_says(
    vcenter: VSphere, importing: Import, asked: dict[str, Any], where: dict[str, str]
) -> None:
    importing.have_folder("Landed")
    if "a pod" in asked.values():
        importing.have_pod("a pod", "LocalDS_1")
    made: VmSpec = importing.run(
        a_vm(SMALL), [SMALL], name=f"at {' '.join(asked)} {asked}".replace("/", "|")[:70], **asked
    )
    told = {**made.details, "host": made.host, "storage": made.disks[0].storage}
    assert {key: told[key] for key in where} == where
    assert vcenter.disk_bytes(made.details["moref"]) == whole(SMALL)


def test_same_name_in_another_folder_is_no_obstacle(
    vcenter: VSphere, provider: VsphereProvider, importing: Import
) -> None:
    importing.have_folder("Landed")
    vcenter.make_vm("everywhere")
    importing.run(a_vm(SMALL), [SMALL], name="everywhere", folder="/DC0/vm/Landed")
    assert provider.imported("everywhere", "/DC0/vm/Landed") is not None
    found = provider.imported("everywhere", "/DC0/vm")
    assert found is not None
    assert found[1] == ""
    taken = provider.check_import(
        a_vm(SMALL), Placement("everywhere", host="DC0_H0", storage="LocalDS_0", folder="/DC0/vm"), EXPORT
    )
    assert [one.kind for one in taken if one.severity == "error"] == ["conflict"]


def test_session_that_is_ended_meanwhile_ends_no_import(vcenter: VSphere, importing: Import) -> None:
    importing.run(a_vm(SYSTEM), [SYSTEM], name="two sessions", before=vcenter.expire_sessions)
    assert vcenter.disk_bytes("two sessions") == whole(SYSTEM)


def test_esxi_host_of_its_own_is_enough() -> None:
    """It names no host in its leases, and has one folder and one pool."""
    with VSphere(esxi=True) as esxi:
        opened = VsphereProvider({
            "hostname": esxi.host, "port": esxi.port, "username": esxi.user, "password": esxi.password,
            "thumbprint": esxi.thumbprint,
        })  # fmt: skip
        try:
            made = Import(opened).run(a_vm(SMALL), [SMALL], host="", power_on=True)
            assert (made.power_state, esxi.disk_bytes("new")) == ("powered_on", SMALL)
        finally:
            opened.close()
