# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vSphere is asked to make: a descriptor of ours, which it reads itself, and what no descriptor can say.

OvfManager.CreateImportSpec and VirtualMachineImportSpec in the vSphere Web Services API.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..._appliances.machine import Disk, Machine, Nic
from ..._appliances.ovf_writer import write_descriptor
from ..._errors import VmferryError
from ..base import Placement
from ..spec import VmSpec
from .devices import leaf
from .faults import said_by
from .import_hardware import (
    CARDS,
    MODELS,
    NewDisk,
    card_of,
    cpus_of,
    firmware_of,
    guest_id,
    hardware_version,
    new_disks,
    uuid_of,
)
from .import_places import ImportPlaces, name_of
from .session import Session

_MIB = 1 << 20
_NVRAM_FILE = "variables.nvram"
PROVISIONING: Mapping[str, str] = {"thin": "thin", "thick": "thick", "eager": "eagerZeroedThick"}
_FIRMWARE = {"bios": "bios", "uefi": "efi"}


@dataclass(frozen=True)
class ImportPlan:
    """All that was decided before vSphere is asked. MoRefs but for the names."""

    name: str
    vm: VmSpec
    placement: Placement
    disks: Sequence[NewDisk]
    folder: str
    pool: str
    host: str
    home: str  # the datastore of the VM's own files
    datastores: Sequence[tuple[str, str]]  # of each disk: MoRef and name
    networks: Sequence[tuple[str, str]]  # of each network card: type and MoRef
    version: str
    nvram: bytes = b""

    @classmethod
    def of(cls, vm: VmSpec, placement: Placement, places: ImportPlaces, nvram: bytes = b"") -> ImportPlan:
        stores = [places.datastore_of(disk) for disk in vm.disks]
        return cls(
            name=placement.name,
            vm=vm,
            placement=placement,
            disks=new_disks(vm, placement),
            folder=places.folder,
            pool=places.pool,
            host=places.host,
            home=places.home().moref if placement.storage or not stores else stores[0].moref,
            datastores=[(store.moref, name_of(store)) for store in stores],
            networks=[(found.kind, found.moref) for found in map(places.network_of, vm.nics)],
            version=hardware_version(vm, places.versions()),
            nvram=nvram,
        )

    @property
    def firmware(self) -> str:
        return firmware_of(self.vm, self.placement)

    def descriptor(self) -> bytes:
        """Its networks are called by what they are mapped to, so that two cards of one network may part."""
        placement, vm = self.placement, self.vm
        machine = Machine(
            name=self.name,
            cpus=cpus_of(vm, placement),
            memory=(placement.memory_mb or vm.memory_mb) * _MIB,
            disks=tuple(
                Disk(f"vmdisk{number}", disk.file, disk.size, "vmdk", *MODELS[disk.model][:2])
                for number, disk in enumerate(self.disks, 1)
            ),
            nics=tuple(
                Nic(f"Network adapter {number}", network, CARDS[card_of(nic.model)])
                for number, (nic, (_kind, network)) in enumerate(zip(vm.nics, self.networks), 1)
            ),
            firmware=self.firmware,
            secure_boot=vm.secure_boot and self.firmware == "uefi",
            os_name=vm.guest_os,
            virtual_system_type=self.version,
            removable=tuple(kind for kind, _name in vm.drives),
            nvram=_NVRAM_FILE if self.nvram else "",
        )
        return write_descriptor(machine)


@dataclass(frozen=True)
class ImportSpec:
    """`spec`: for ImportVApp. `files`: of the descriptor, by the keys under which the lease names them."""

    spec: Any
    files: Mapping[str, str]
    warnings: Sequence[str]


def create_import_spec(session: Session, plan: ImportPlan, notes: str) -> ImportSpec:
    """`notes`: those of the VM. Raises `unsupported` where vSphere does not take the descriptor."""
    from pyVmomi import vim

    parameters = vim.OvfManager.CreateImportSpecParams(
        entityName=plan.name,
        diskProvisioning=PROVISIONING[plan.placement.disk_provisioning or "thin"],
        networkMapping=[
            vim.OvfManager.NetworkMapping(name=moref, network=session.managed(kind, moref))
            for kind, moref in dict.fromkeys(plan.networks)
        ],
        locale="",
        deploymentOption="",
    )
    if plan.host:
        parameters.hostSystem = session.managed("HostSystem", plan.host)
    doing = f"Planning {plan.name}"
    result = session.read(
        doing,
        lambda content: content.ovfManager.CreateImportSpec(
            plan.descriptor().decode(),
            session.managed("ResourcePool", plan.pool),
            session.managed("Datastore", plan.home),
            parameters,
        ),
    )
    if result.error:
        said = "; ".join(dict.fromkeys(said_by(one) for one in result.error))
        hint = "Another placement.disk_bus may do, or leaving drives out with detach."
        raise VmferryError("unsupported", f"{doing} failed: vSphere cannot make it: {said}.", hint)
    _complete(session, result.importSpec.configSpec, plan, notes)
    return ImportSpec(
        result.importSpec,
        {item.deviceId: item.path for item in result.fileItem or ()},
        [f"vSphere says of {plan.name}: {said_by(one)}." for one in result.warning or ()],
    )


def _complete(session: Session, config: Any, plan: ImportPlan, notes: str) -> None:
    settle(config, plan, notes)
    config.guestId = guest_id(plan.vm)
    cores = int(plan.vm.details.get("cores_per_socket") or 0)
    if cores > 1 and not cpus_of(plan.vm, plan.placement) % cores:
        config.numCoresPerSocket = cores
    devices = [change.device for change in config.deviceChange or ()]
    for disk, (moref, name) in zip((one for one in devices if leaf(one) == "VirtualDisk"), plan.datastores):
        if moref != plan.home:
            disk.backing.fileName = f"[{name}]"
            disk.backing.datastore = session.managed("Datastore", moref)
    if plan.placement.keep_mac:
        for card, nic in zip((one for one in devices if hasattr(one, "macAddress")), plan.vm.nics):
            if nic.mac:
                card.addressType, card.macAddress = "manual", nic.mac


def settle(config: Any, plan: ImportPlan, notes: str) -> None:
    """What is said once more when the VM is whole, for vSphere may have left it out of what it was to make."""
    from pyVmomi import vim

    config.annotation = notes
    config.firmware = _FIRMWARE[plan.firmware]
    if plan.firmware == "uefi":
        config.bootOptions = vim.vm.BootOptions(efiSecureBootEnabled=plan.vm.secure_boot)
    if plan.placement.keep_uuid:
        config.uuid = uuid_of(plan.vm)
