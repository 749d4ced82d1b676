# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The virtual devices of a VM in normalised words: disks with where they are kept, network cards, drives.

Of VirtualDevice and all that is derived from it, in the vSphere Web Services API.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Sequence, Tuple

from ..spec import DiskSpec, NicSpec

KIB = 1024
# Of a controller: the bus as the .vmx file calls it, and the model.
CONTROLLERS: Mapping[str, Tuple[str, str]] = {
    "ParaVirtualSCSIController": ("scsi", "pvscsi"),
    "VirtualLsiLogicController": ("scsi", "lsilogic"),
    "VirtualLsiLogicSASController": ("scsi", "lsisas1068"),
    "VirtualBusLogicController": ("scsi", "buslogic"),
    "VirtualIDEController": ("ide", "ide"),
    "VirtualAHCIController": ("sata", "ahci"),
    "VirtualNVMEController": ("nvme", "nvme"),
}
_CARDS: Mapping[str, str] = {
    "VirtualE1000": "e1000",
    "VirtualE1000e": "e1000e",
    "VirtualPCNet32": "pcnet32",
    "VirtualSriovEthernetCard": "sriov",
    "VirtualVmxnet": "vmxnet",
    "VirtualVmxnet2": "vmxnet2",
    "VirtualVmxnet3": "vmxnet3",
    "VirtualVmxnet3Vrdma": "vmxnet3vrdma",
}
_BACKINGS: Mapping[str, str] = {
    "FlatVer1BackingInfo": "flat",
    "FlatVer2BackingInfo": "flat",
    "LocalPMemBackingInfo": "pmem",
    "PartitionedRawDiskVer2BackingInfo": "raw_device",
    "RawDiskMappingVer1BackingInfo": "rdm",
    "RawDiskVer2BackingInfo": "raw_device",
    "SeSparseBackingInfo": "sesparse",
    "SparseVer1BackingInfo": "sparse",
    "SparseVer2BackingInfo": "sparse",
}
_NETWORKS: Mapping[str, str] = {
    "DistributedVirtualPortBackingInfo": "distributed",
    "NetworkBackingInfo": "standard",
    "OpaqueNetworkBackingInfo": "opaque",
}


def leaf(value: Any) -> str:
    """The name of its class without the namespace: VirtualDisk."""
    return type(value).__name__.rpartition(".")[2]


@dataclass(frozen=True)
class Devices:
    """Of one VM. `boot_order`: as its firmware has it; `layout`: of its files."""

    devices: Sequence[Any]
    boot_order: Sequence[Any]
    layout: Layout
    storage_kinds: Mapping[str, str]  # of datastores, by MoRef
    networks: Mapping[str, str]  # names, by MoRef and by the key of a distributed port group
    tracking: bool  # whether the VM keeps track of what changes

    def disks(self) -> Tuple[DiskSpec, ...]:
        """The boot disk first, then as the VM numbers them."""
        found = [device for device in self.devices if leaf(device) == "VirtualDisk"]
        first = next((one.deviceKey for one in self.boot_order if leaf(one) == "BootableDiskDevice"), None)
        found.sort(key=lambda disk: (disk.key != first, disk.key))
        return tuple(self._disk(number, disk) for number, disk in enumerate(found))

    def _disk(self, number: int, disk: Any) -> DiskSpec:
        backing = disk.backing
        source = getattr(backing, "fileName", None) or getattr(backing, "deviceName", None) or ""
        bus, model = CONTROLLERS.get(leaf(self._controller(disk)), ("", ""))
        mode = getattr(backing, "diskMode", None) or ""
        return DiskSpec(
            id=f"disk-{number}",
            name=self.name_of(disk),
            size=int(disk.capacityInBytes or disk.capacityInKB * KIB),
            format="vmdk" if getattr(backing, "fileName", None) else "raw",
            bus=bus,
            source=source,
            storage=source[1:].partition("]")[0] if source.startswith("[") else "",
            allocated=self.layout.allocated(disk.key),
            boot=number == 0,
            change_tracking=self.tracking and bool(getattr(backing, "changeId", None)),
            serial=getattr(backing, "uuid", None) or "",
            details={
                "key": disk.key,
                "label": disk.deviceInfo.label if disk.deviceInfo else "",
                "controller": model,
                "backing": _BACKINGS.get(leaf(backing).replace("VirtualDisk", ""), leaf(backing)),
                "mode": mode,
                "datastore_kind": self.storage_kinds.get(_moref(getattr(backing, "datastore", None)), ""),
                "thin": getattr(backing, "thinProvisioned", None),
                "rdm_mode": {"physicalMode": "physical", "virtualMode": "virtual"}.get(
                    getattr(backing, "compatibilityMode", None) or "", ""
                ),
                "shared": (getattr(backing, "sharing", None) or "sharingNone") != "sharingNone"
                or (getattr(self._controller(disk), "sharedBus", None) or "noSharing") != "noSharing",
                "encrypted": getattr(backing, "keyId", None) is not None,
                "in_snapshots": not mode.startswith("independent"),
            },
        )

    def name_of(self, device: Any) -> str:
        """As the .vmx file has it: scsi0:1."""
        controller = self._controller(device)
        bus, _unused = CONTROLLERS.get(leaf(controller), ("", ""))
        return f"{bus}{controller.busNumber}:{device.unitNumber}" if bus else f"device-{device.key}"

    def nics(self) -> Tuple[NicSpec, ...]:
        cards = sorted((one for one in self.devices if hasattr(one, "macAddress")), key=lambda one: one.key)
        return tuple(
            NicSpec(
                id=f"nic-{number}",
                mac=(card.macAddress or "").lower(),
                network=self._network(card.backing),
                model=_CARDS.get(leaf(card), leaf(card)),
                kind=_NETWORKS.get(leaf(card.backing).replace("VirtualEthernetCard", ""), leaf(card.backing)),
            )
            for number, card in enumerate(cards)
        )

    def _network(self, backing: Any) -> str:
        port = getattr(backing, "port", None)
        keys = [
            getattr(port, "portgroupKey", None),
            _moref(getattr(backing, "network", None)),
            getattr(backing, "opaqueNetworkId", None),
        ]
        named = next((self.networks[key] for key in keys if key and key in self.networks), "")
        return named or getattr(backing, "deviceName", None) or next((key for key in keys if key), "")

    def drives(self, kind: str) -> list[dict[str, str]]:
        """`kind`: VirtualCdrom or VirtualFloppy."""
        found = sorted((one for one in self.devices if leaf(one) == kind), key=lambda one: one.key)
        return [
            {
                "name": f"floppy{one.unitNumber}" if kind == "VirtualFloppy" else self.name_of(one),
                "source": getattr(one.backing, "fileName", None) or getattr(one.backing, "deviceName", None) or "",
            }
            for one in found
        ]

    def has(self, kind: str) -> bool:
        return any(leaf(one) == kind for one in self.devices)

    def _controller(self, device: Any) -> Any:
        return next((one for one in self.devices if one.key == device.controllerKey), None)


class Layout:
    """Which files a disk has, and how many bytes they take, as vCenter knew it last (VirtualMachineFileLayoutEx)."""

    def __init__(self, disks: Sequence[Any], files: Sequence[Any]) -> None:
        self._sizes = {one.key: one.size for one in files if one.size is not None}
        self._files = {one.key: list(_files_of(one)) for one in disks}

    def allocated(self, disk: int) -> int | None:
        known = [self._sizes[key] for key in self._files.get(disk, ()) if key in self._sizes]
        return sum(known) if known else None


def _files_of(disk: Any) -> Iterator[int]:
    for unit in disk.chain or ():
        yield from unit.fileKey or ()


def _moref(reference: Any) -> str:
    return reference._moId if reference is not None else ""
