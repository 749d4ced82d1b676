# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Proxmox VE is asked to make: the parameters of `POST /nodes/{node}/qemu`, whose disks are new and empty.

https://pve.proxmox.com/pve-docs/api-viewer/#/nodes/{node}/qemu and qm.conf(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ..._appliances.qm_words import EFI_DISK, TPM_STATE
from ..base import Placement
from ..spec import NicSpec, VmSpec
from .import_hardware import (
    KIB,
    LEAST_MEMORY_MB,
    Drives,
    PlacedDisk,
    card_of,
    cpu_of,
    drives_of,
    firmware_of,
    is_secure,
    machine_of,
    processors_of,
    system_of,
    uuid_of,
)
from .import_places import ImportPlaces, Storage

LONGEST_NOTES = 8192  # characters
LONGEST_SERIAL = 20  # characters that a disk of QEMU shows
_KIB_PER_GIB = Decimal(1 << 20)
_SERIAL = re.compile(rf"[A-Za-z0-9_.-]{{1,{LONGEST_SERIAL}}}")
_NO_TAG = re.compile(r"[^a-z0-9_.+-]+")
_TAG = re.compile(r"[a-z0-9_][a-z0-9_.+-]*")  # pve-tag in PVE::JSONSchema
_KNOW_RO = ("virtio", "scsi")


@dataclass(frozen=True)
class NewVolume:
    disk: PlacedDisk
    storage: Storage
    format: str


@dataclass(frozen=True)
class ImportPlan:
    """All that was decided before Proxmox VE is asked."""

    vm: VmSpec
    placement: Placement
    node: str
    drives: Drives
    volumes: Sequence[NewVolume]  # in the order of the VM's disks
    home: Optional[Storage]  # of the machine's own volumes; None where it has none
    networks: Sequence[Tuple[str, Optional[int]]]  # of each network card: bridge and VLAN

    @classmethod
    def of(cls, vm: VmSpec, placement: Placement, places: ImportPlaces) -> ImportPlan:
        """Raises what `drives_of` and the places do."""
        drives = drives_of(vm, placement)
        volumes = []
        for disk in drives.disks:
            storage = places.storage_of(disk.spec)
            volumes.append(NewVolume(disk, storage, storage.format_of(placement.disk_format)))
        has_own = firmware_of(vm, placement) == "uefi" or vm.tpm
        return cls(
            vm=vm,
            placement=placement,
            node=places.node,
            drives=drives,
            volumes=volumes,
            home=_home(volumes, placement, places) if has_own else None,
            networks=[places.network_of(nic) for nic in vm.nics],
        )

    def parameters(self, vmid: int, name: str, notes: str) -> Dict[str, Any]:
        """`name` and `notes`: as long as the VM is not whole."""
        return {"vmid": vmid, "name": name, "description": notes, **dict(self._values())}

    def _values(self) -> Iterator[Tuple[str, Any]]:
        vm, placement = self.vm, self.placement
        sockets, cores = processors_of(vm, placement)
        yield "sockets", sockets
        yield "cores", cores
        yield "cpu", cpu_of(vm)
        yield "memory", str(max(LEAST_MEMORY_MB, placement.memory_mb or vm.memory_mb))
        yield "ostype", system_of(vm)
        has_agent = vm.guest_agent or bool(vm.details.get("agent_enabled"))  # else a shutdown waits for none
        yield "agent", f"enabled={int(has_agent)}"
        machine = machine_of(vm, placement)
        if machine:
            yield "machine", machine
        uuid = uuid_of(vm) if placement.keep_uuid else ""
        if uuid:
            yield "smbios1", f"uuid={uuid}"
        yield from self._firmware()
        yield from self._disks()
        yield "boot", f"order={';'.join(disk.drive for disk in self.drives.disks[:1])}"
        for number, (nic, (bridge, vlan)) in enumerate(zip(vm.nics, self.networks)):
            yield f"net{number}", self._card(nic, bridge, vlan)
        tags = tags_of(vm)
        if tags:
            yield "tags", ";".join(tags)
        if placement.resource_pool:
            yield "pool", placement.resource_pool

    def _firmware(self) -> Iterator[Tuple[str, str]]:
        """Proxmox VE itself fills the firmware's variables, with the keys of Secure Boot where that is on."""
        is_uefi = firmware_of(self.vm, self.placement) == "uefi"
        yield "bios", "ovmf" if is_uefi else "seabios"
        if self.home is None:
            return
        made = f"{self.home.name}:1,format=raw"
        if is_uefi:
            keys = int(is_secure(self.vm, self.placement))
            yield EFI_DISK, f"{made},efitype=4m,pre-enrolled-keys={keys}"
        if self.vm.tpm:
            yield TPM_STATE, f"{made},version=v2.0"

    def _disks(self) -> Iterator[Tuple[str, str]]:
        if self.drives.controller:
            yield "scsihw", self.drives.controller
        for volume in self.volumes:
            yield volume.disk.drive, self._disk(volume)
        for drive in self.drives.cdroms:
            yield drive, "none,media=cdrom"

    def _disk(self, volume: NewVolume) -> str:
        spec, bus = volume.disk.spec, volume.disk.drive.rstrip("0123456789")
        options = [f"{volume.storage.name}:{gibibytes(volume.disk.size)}", f"format={volume.format}", "discard=on"]
        if bus == "virtio" or (bus == "scsi" and self.drives.controller == "virtio-scsi-single"):
            options.append("iothread=1")
        if spec.read_only and bus in _KNOW_RO:
            options.append("ro=1")
        if _SERIAL.fullmatch(spec.serial):
            options.append(f"serial={spec.serial}")
        return ",".join(options)

    def _card(self, nic: NicSpec, bridge: str, vlan: Optional[int]) -> str:
        model = card_of(nic)
        address = f"={nic.mac.upper()}" if self.placement.keep_mac and nic.mac else ""
        tag = f",tag={vlan}" if vlan is not None else ""
        return f"{model}{address},bridge={bridge}{tag}"


def gibibytes(size: int) -> str:
    """Exact, as `STORAGE:SIZE` has a size; `size` in bytes, of whole kibibytes."""
    return f"{(Decimal(size // KIB) / _KIB_PER_GIB).normalize():f}"


def tags_of(vm: VmSpec) -> List[str]:
    """As Proxmox VE can have them: in small letters, and with - for what else they have."""
    made = (_NO_TAG.sub("-", tag.lower()).strip("-.+") for tag in vm.tags)
    return sorted({tag for tag in made if _TAG.fullmatch(tag)})


def fitting_notes(notes: str, mark: str) -> str:
    """What people wrote, cut so that the mark behind it fits."""
    return notes[: LONGEST_NOTES - len(mark) - 1]


def _home(volumes: Sequence[NewVolume], placement: Placement, places: ImportPlaces) -> Storage:
    return places.home() if placement.storage or not volumes else volumes[0].storage
