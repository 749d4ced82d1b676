# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between a machine as an appliance describes it and a VM in the words of all providers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Mapping, Sequence

from ..._appliances.appliance import Appliance
from ..._appliances.machine import Disk, Machine, Nic, Product, Property
from ..._errors import VmferryError
from ..._providers.spec import DiskSpec, NicSpec, VmSpec

_MIB = 1 << 20
_CARRIED = "appliance"  # in a VM's details: what no provider has words for
CONTROLLER = "controller_model"  # in the details of a disk of an appliance
# CIM_OperatingSystem's numbers, of what vSphere and VirtualBox show
_LINUX, _LINUX_64, _WINDOWS = 36, 101, 67
_MODELS: Mapping[str, str] = {"pcnet32": "pcnet", "e1000": "e1000", "e1000e": "e1000e", "vmxnet3": "vmxnet3"}


def vm_of(machine: Machine, where: str) -> VmSpec:
    """`where`: its address. What no provider has words for is in `details`."""
    disks = tuple(
        DiskSpec(
            id=f"disk-{number}",
            name=disk.id,
            size=disk.capacity,
            format=disk.format,
            bus=disk.bus,
            source=disk.file,
            boot=not number,
            details={CONTROLLER: disk.controller} if disk.controller else {},
        )
        for number, disk in enumerate(machine.disks)
    )
    nics = tuple(
        NicSpec(
            f"nic-{number}", nic.mac.lower(), nic.network, _MODELS.get(nic.model.lower(), nic.model.lower()), "network"
        )
        for number, nic in enumerate(machine.nics)
    )
    return VmSpec(
        provider=_CARRIED,
        id=machine.name,
        name=machine.name,
        path=where,
        power_state="powered_off",
        cpu=machine.cpus,
        memory_mb=-(-machine.memory // _MIB),
        firmware="uefi" if machine.firmware == "uefi" else "bios",
        disks=disks,
        nics=nics,
        secure_boot=machine.secure_boot,
        tpm=machine.tpm,
        architecture=machine.architecture or "x86_64",
        machine=machine.machine,
        guest_os=machine.os_name,
        details={
            _CARRIED: _carried(machine),
            "cdroms": [{"name": "", "source": ""} for kind in machine.removable if kind == "cdrom"],
            "floppies": [{"name": "", "source": ""} for kind in machine.removable if kind == "floppy"],
        },
    )


def vm_in(appliance: Appliance) -> VmSpec:
    """As `vm_of`. Its disks take about so much room as they say, or else as their files, which may be compressed."""
    vm = vm_of(appliance.machine, appliance.where)
    sizes = [
        disk.populated if disk.populated is not None else appliance.member(disk).size if disk.file else 0
        for disk in appliance.machine.disks
    ]
    return vm.with_disks(tuple(replace(disk, allocated=size) for disk, size in zip(vm.disks, sizes)))


def machine_of(vm: VmSpec, files: Sequence[str], format: str) -> Machine:
    """`files`: of its disks in their order, each of the `format`. Raises `unsupported` where they are not so many."""
    if len(files) != len(vm.disks):
        raise VmferryError("internal", f"{vm.name} has {len(vm.disks)} disks, and {len(files)} files are written.")
    carried = vm.details.get(_CARRIED, {})
    cores = carried.get("cores_per_socket", 0)
    return Machine(
        name=vm.name,
        cpus=vm.cpu,
        memory=vm.memory_mb * _MIB,
        disks=tuple(
            Disk(f"vmdisk{number}", file, disk.size, format, disk.bus, disk.details.get(CONTROLLER, ""))
            for number, (disk, file) in enumerate(zip(vm.disks, files), 1)
        ),
        nics=tuple(
            Nic(f"Network adapter {number}", nic.network or "network", nic.model, nic.mac)
            for number, nic in enumerate(vm.nics, 1)
        ),
        firmware="uefi" if vm.firmware == "uefi" else "bios",
        secure_boot=vm.secure_boot,
        tpm=vm.tpm,
        os_type=carried.get("os_type") or _os_type(vm),
        os_name=vm.guest_os,
        virtual_system_type=carried.get("virtual_system_type", ""),
        architecture=vm.architecture,
        machine=vm.machine,
        cores_per_socket=cores if cores and not vm.cpu % cores else 0,  # VMware takes no socket that is not full
        networks=carried.get("networks", {}),
        annotation=carried.get("annotation", ""),
        eulas=tuple(carried.get("eulas", ())),
        products=tuple(Product(**product) for product in carried.get("products", ())),
        properties=tuple(Property(**one) for one in carried.get("properties", ())),
        removable=tuple(kind for kind, _name in vm.drives),
    )


def _carried(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = {
        "os_type": machine.os_type,
        "virtual_system_type": machine.virtual_system_type,
        "cores_per_socket": machine.cores_per_socket,
        "networks": dict(machine.networks),
        "annotation": machine.annotation,
        "eulas": list(machine.eulas),
        "products": [vars(product).copy() for product in machine.products],
        "properties": [vars(one).copy() for one in machine.properties],
        "made_of": machine.made_of,
        "made_as": machine.made_as,
    }
    return {key: value for key, value in found.items() if value}


def _os_type(vm: VmSpec) -> int:
    name = vm.guest_os.lower()
    if "windows" in name or "microsoft" in name:
        return _WINDOWS
    return _LINUX_64 if vm.architecture in ("x86_64", "aarch64") else _LINUX
