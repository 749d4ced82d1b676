# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of devices that no simulator has, as the vSphere Web Services API describes them."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.describe import described
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.properties import Row

device = vim.vm.device
Disk = device.VirtualDisk
Card = device.VirtualEthernetCard
MIB = 1024 * 1024


def vm_of(*devices: Any, **values: Any) -> VmSpec:
    hardware = vim.vm.VirtualHardware(numCPU=2, memoryMB=1024, device=list(devices))
    given = {"name": "web01", "config.hardware": hardware, "config.instanceUuid": "5023", **values}
    rows = {"vm-1": Row("VirtualMachine", "vm-1", {name.replace("__", "."): one for name, one in given.items()})}
    rows["dvportgroup-7"] = Row(
        "DistributedVirtualPortgroup", "dvportgroup-7", {"name": "prod%2fweb", "key": "dvportgroup-7"}
    )
    rows["network-o9"] = Row(
        "OpaqueNetwork",
        "network-o9",
        {"name": "seg1", "summary": vim.OpaqueNetwork.Summary(opaqueNetworkId="nsx-9", opaqueNetworkType="nsx")},
    )
    (found,) = described(rows)
    return found


def controller(kind: str, key: int, bus: int = 0, **more: Any) -> Any:
    return getattr(device, kind)(key=key, busNumber=bus, **more)


def disk(key: int, on: int, unit: int, backing: Any = None, **more: Any) -> Any:
    backing = backing or Disk.FlatVer2BackingInfo(fileName=f"[ds] web01/{key}.vmdk", diskMode="persistent")
    return Disk(key=key, controllerKey=on, unitNumber=unit, backing=backing, capacityInKB=1024, **more)


@pytest.mark.parametrize(
    ("kind", "name", "model"),
    [
        ("ParaVirtualSCSIController", "scsi2:5", "pvscsi"),
        ("VirtualLsiLogicController", "scsi2:5", "lsilogic"),
        ("VirtualLsiLogicSASController", "scsi2:5", "lsisas1068"),
        ("VirtualBusLogicController", "scsi2:5", "buslogic"),
        ("VirtualIDEController", "ide2:5", "ide"),
        ("VirtualAHCIController", "sata2:5", "ahci"),
        ("VirtualNVMEController", "nvme2:5", "nvme"),
    ],
)
def test_disk_is_called_as_its_vmx_file_does(kind: str, name: str, model: str) -> None:
    (found,) = vm_of(controller(kind, 1000, bus=2), disk(2000, 1000, 5)).disks
    assert (found.name, found.bus, found.details["controller"]) == (name, name[:-3], model)


def test_boot_disk_comes_first_where_the_firmware_says_so() -> None:
    hardware = [controller("VirtualNVMEController", 31000), disk(32000, 31000, 0), disk(32001, 31000, 1)]
    assert [one.name for one in vm_of(*hardware).disks] == ["nvme0:0", "nvme0:1"]
    order = [vim.vm.BootOptions.BootableCdromDevice(), vim.vm.BootOptions.BootableDiskDevice(deviceKey=32001)]
    chosen = vm_of(*hardware, config__bootOptions=vim.vm.BootOptions(bootOrder=order)).disks
    assert [(one.id, one.name, one.boot) for one in chosen] == [
        ("disk-0", "nvme0:1", True),
        ("disk-1", "nvme0:0", False),
    ]


def test_raw_devices_are_told_with_their_mode() -> None:
    rdm = Disk.RawDiskMappingVer1BackingInfo(
        fileName="[ds] web01/rdm.vmdk", deviceName="vml.02", compatibilityMode="physicalMode", diskMode="persistent"
    )
    raw = Disk.RawDiskVer2BackingInfo(deviceName="/vmfs/devices/disks/naa.6", descriptorFileName="x")
    mapped, direct = vm_of(
        controller("ParaVirtualSCSIController", 1000), disk(2000, 1000, 0, rdm), disk(2001, 1000, 1, raw)
    ).disks
    assert (mapped.details["backing"], mapped.details["rdm_mode"], mapped.format) == ("rdm", "physical", "vmdk")
    assert (direct.details["backing"], direct.format, direct.source) == (
        "raw_device",
        "raw",
        "/vmfs/devices/disks/naa.6",
    )


def test_shared_and_encrypted_disks_are_told() -> None:
    def backing(**more: Any) -> Any:
        return Disk.FlatVer2BackingInfo(fileName="[vsan] 5f/x.vmdk", diskMode="persistent", **more)

    secret = vim.encryption.CryptoKeyId(keyId="k1")
    plain, multi, sealed = vm_of(
        controller("ParaVirtualSCSIController", 1000),
        disk(2000, 1000, 0, backing()),
        disk(2001, 1000, 1, backing(sharing="sharingMultiWriter")),
        disk(2002, 1000, 2, backing(keyId=secret)),
    ).disks
    assert [one.details["shared"] for one in (plain, multi, sealed)] == [False, True, False]
    assert [one.details["encrypted"] for one in (plain, multi, sealed)] == [False, False, True]
    bus = controller("ParaVirtualSCSIController", 1000, sharedBus="virtualSharing")
    assert vm_of(bus, disk(2000, 1000, 0)).disks[0].details["shared"] is True


def test_tracking_needs_the_vm_and_the_disk() -> None:
    def found(tracking: bool, change_id: str | None) -> bool:
        backing = Disk.FlatVer2BackingInfo(fileName="[ds] a.vmdk", diskMode="persistent", changeId=change_id)
        hardware = [controller("ParaVirtualSCSIController", 1000), disk(2000, 1000, 0, backing)]
        return vm_of(*hardware, config__changeTrackingEnabled=tracking).disks[0].change_tracking

    assert [found(True, "52/1"), found(True, None), found(False, "52/1")] == [True, False, False]


def test_bytes_on_the_datastore_are_those_of_the_whole_chain() -> None:
    layout = vim.vm.FileLayoutEx
    files = [
        layout.FileInfo(key=key, name=f"{key}", type="diskExtent", size=size) for key, size in ((1, 10), (2, 7), (3, 5))
    ]
    chain = [layout.DiskUnit(fileKey=[1]), layout.DiskUnit(fileKey=[2])]
    values = {"layoutEx.disk": [layout.DiskLayout(key=2000, chain=chain)], "layoutEx.file": files}
    hardware = [controller("ParaVirtualSCSIController", 1000), disk(2000, 1000, 0), disk(2001, 1000, 1)]
    assert [one.allocated for one in vm_of(*hardware, **values).disks] == [17, None]


def test_sizes_are_exact_where_a_disk_is_no_whole_number_of_kib() -> None:
    hardware = [controller("ParaVirtualSCSIController", 1000), disk(2000, 1000, 0, capacityInBytes=1024 * 1024 + 512)]
    assert vm_of(*hardware).disks[0].size == MIB + 512


def test_network_cards_are_named_by_port_group_and_segment() -> None:
    port = vim.dvs.PortConnection(portgroupKey="dvportgroup-7", switchUuid="50 1a")
    unknown = vim.dvs.PortConnection(portgroupKey="dvportgroup-404", switchUuid="50 1a")
    cards = vm_of(
        device.VirtualVmxnet3(
            key=4000, macAddress="00:50:56:AB:00:01", backing=Card.DistributedVirtualPortBackingInfo(port=port)
        ),
        device.VirtualE1000e(
            key=4001,
            macAddress="00:50:56:ab:00:02",
            backing=Card.OpaqueNetworkBackingInfo(opaqueNetworkId="nsx-9", opaqueNetworkType="nsx"),
        ),
        device.VirtualE1000(
            key=4002, macAddress="00:50:56:ab:00:03", backing=Card.NetworkBackingInfo(deviceName="VM Network")
        ),
        device.VirtualPCNet32(
            key=4003, macAddress="00:50:56:ab:00:04", backing=Card.DistributedVirtualPortBackingInfo(port=unknown)
        ),
    ).nics
    assert [(one.network, one.kind, one.model) for one in cards] == [
        ("prod/web", "distributed", "vmxnet3"),
        ("seg1", "opaque", "e1000e"),
        ("VM Network", "standard", "e1000"),
        ("dvportgroup-404", "distributed", "pcnet32"),
    ]
    assert cards[0].mac == "00:50:56:ab:00:01"


def test_drives_for_media_are_told_with_what_is_in_them() -> None:
    iso = device.VirtualCdrom.IsoBackingInfo(fileName="[iso] debian.iso")
    image = device.VirtualFloppy.ImageBackingInfo(fileName="[iso] drivers.flp")
    vm = vm_of(
        controller("VirtualAHCIController", 15000),
        device.VirtualCdrom(key=16000, controllerKey=15000, unitNumber=0, backing=iso),
        device.VirtualFloppy(key=8000, controllerKey=400, unitNumber=0, backing=image),
        device.VirtualSIOController(key=400, busNumber=0),
    )
    assert vm.drives == (("cdrom", "sata0:0"), ("floppy", "floppy0"))
    assert vm.details["cdroms"][0]["source"] == "[iso] debian.iso"


def test_tpm_encryption_and_passthrough_are_told() -> None:
    label = vim.Description(label="PCI device 0", summary="")
    vm = vm_of(
        device.VirtualTPM(key=11000),
        device.VirtualPCIPassthrough(key=13000, deviceInfo=label),
        config__keyId=vim.encryption.CryptoKeyId(keyId="k1"),
    )
    assert (vm.tpm, vm.details["encrypted"], vm.details["passthrough"]) == (True, True, ["PCI device 0"])


@pytest.mark.parametrize("state", ["disconnected", "inaccessible", "orphaned", "invalid"])
def test_power_of_a_vm_that_nobody_reaches_is_unknown(state: str) -> None:
    vm = vm_of(**{"runtime.connectionState": state, "runtime.powerState": "poweredOn", "config.hardware": None})
    assert (vm.power_state, vm.details["connection_state"], vm.disks, vm.cpu) == ("unknown", state, (), 0)


def test_a_vm_without_uuid_goes_by_its_moref() -> None:
    assert vm_of(**{"config.instanceUuid": "", "config.uuid": ""}).id == "vm-1"
