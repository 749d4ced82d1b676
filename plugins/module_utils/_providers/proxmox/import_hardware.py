# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hardware that an import makes on Proxmox VE: as the VM had it, or the nearest that Proxmox VE has.

https://pve.proxmox.com/pve-docs/chapter-qm.html and qm.conf(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Iterator, List, Mapping, Sequence, Tuple

from ..._appliances.qm_words import NIC_MODELS, PLACES
from ..._errors import VmferryError
from ..base import Placement
from ..finding import Finding
from ..spec import DiskSpec, NicSpec, VmSpec

KIB = 1024
SCSI_CONTROLLERS = ("virtio-scsi-single", "virtio-scsi-pci", "pvscsi", "megasas", "lsi", "lsi53c810")
BUSES = (*PLACES, *SCSI_CONTROLLERS)
USUAL_SCSI = "virtio-scsi-single"
_ANY_GUEST = "sata"  # which systems of the last fifteen years know without drivers of QEMU
_NOT_BY_UEFI = ("lsi", "lsi53c810")  # OVMF has no drivers for them
_OF_VMWARE = ("vsphere", "appliance", "image")
_FIRST_CDROM = 2  # of IDE, where Proxmox VE itself has it
USUAL_CARD = "e1000"  # which guests know without drivers of QEMU
# Of which every processor is that runs Proxmox VE's nodes, and what systems of today ask for; unlike the default kvm64.
USUAL_CPU = "x86-64-v2-AES"
MOST_CPUS = 4096  # what sockets times cores may be, far above what QEMU starts
LEAST_MEMORY_MB = 16
_SYSTEMS: Sequence[Tuple[str, str]] = (  # words of a name of Windows, and what Proxmox VE calls it
    (r"\b(11|2022|2025)\b", "win11"),
    (r"\b(10|2016|2019)\b", "win10"),
    (r"\b(8|8\.1|2012)\b", "win8"),
    (r"\b2008 r2\b|\b7\b", "win7"),
    (r"\bvista\b|\b2008\b", "wvista"),
    (r"\bxp\b|\b2003\b", "wxp"),
)
_LINUXES = re.compile(
    r"linux|debian|ubuntu|red ?hat|rhel|centos|rocky|alma|fedora|suse|arch|alpine|oracle|photon|amazon|gentoo", re.I
)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HAVE_UUIDS = ("vsphere", "libvirt", "proxmox")  # whose ids are those that guests see, or who tell these


@dataclass(frozen=True)
class PlacedDisk:
    """`drive`: its key in the configuration; `size`: bytes, in whole kibibytes, which Proxmox VE counts in."""

    spec: DiskSpec
    drive: str
    size: int


@dataclass(frozen=True)
class Drives:
    """Which place each disk and each CD drive gets. `moved`: disks on another bus than they were, and why."""

    disks: Sequence[PlacedDisk]
    cdroms: Sequence[str]
    controller: str  # of those on SCSI; '' where there are none
    moved: Sequence[Tuple[DiskSpec, str]]


def drives_of(vm: VmSpec, placement: Placement) -> Drives:
    """Raises `invalid_config` for a bus that Proxmox VE has not, `unsupported` where there are more than places."""
    if placement.disk_bus and placement.disk_bus not in BUSES:
        text = f"{placement.disk_bus} is no disk bus of Proxmox VE."
        raise VmferryError("invalid_config", text, f"Set placement.disk_bus to one of {', '.join(BUSES)}.")
    controller = _controller(vm, placement)
    free: Dict[str, List[int]] = {bus: list(range(count)) for bus, count in PLACES.items()}
    cdroms = [_take(free, "ide", at) for at in _cdroms(vm)]
    disks, moved = [], []
    for disk in vm.disks:
        asked = _bus(vm, disk, placement.disk_bus)
        bus = asked if free[asked] else "scsi"
        if not free[bus]:
            text = f"{vm.name} has {len(vm.disks)} disks, and Proxmox VE no more places for them on {bus}."
            raise VmferryError("unsupported", text, "Set placement.disk_bus: scsi, which has the most.")
        if bus != asked:
            moved.append((disk, f"there are no more places on {asked}"))
        elif not placement.disk_bus and bus != disk.bus:
            moved.append((disk, f"Proxmox VE has no {_told_bus(disk)} that this guest would know"))
        disks.append(PlacedDisk(disk, _take(free, bus, free[bus][0]), -(-disk.size // KIB) * KIB))
    on_scsi = any(disk.drive.startswith("scsi") for disk in disks)
    return Drives(disks, cdroms, controller if on_scsi else "", moved)


def _cdroms(vm: VmSpec) -> Sequence[int]:
    count = sum(kind == "cdrom" for kind, _name in vm.drives)
    order = [_FIRST_CDROM, 3, 0, 1]
    if count > len(order):
        text = f"{vm.name} has {count} CD drives, and Proxmox VE places for {len(order)}."
        raise VmferryError("unsupported", text, "Leave them out: detach: [cdrom].")
    return order[:count]


def _take(free: Mapping[str, List[int]], bus: str, at: int) -> str:
    free[bus].remove(at)
    return f"{bus}{at}"


def _bus(vm: VmSpec, disk: DiskSpec, asked: str) -> str:
    if asked:
        return "scsi" if asked in SCSI_CONTROLLERS else asked
    if disk.bus == "scsi" and vm.provider in _OF_VMWARE:
        return "scsi" if _known_controller(disk) == "pvscsi" else _ANY_GUEST
    return disk.bus if disk.bus in PLACES else _ANY_GUEST


def _controller(vm: VmSpec, placement: Placement) -> str:
    """There is one model for all of a VM's."""
    if placement.disk_bus in SCSI_CONTROLLERS:
        return placement.disk_bus
    if vm.provider == "proxmox":
        known = str(vm.details.get("scsi_controller") or "")
        return known if known in SCSI_CONTROLLERS else USUAL_SCSI
    if vm.provider in _OF_VMWARE and any(_known_controller(disk) == "pvscsi" for disk in vm.disks):
        return "pvscsi"
    return USUAL_SCSI


def _known_controller(disk: DiskSpec) -> str:
    known = str(disk.details.get("controller") or disk.details.get("controller_model") or "").lower()
    return "pvscsi" if known == "virtualscsi" else known


def _told_bus(disk: DiskSpec) -> str:
    return _known_controller(disk) or disk.bus or "such bus"


def card_of(nic: NicSpec) -> str:
    """As the configuration has its model."""
    model = "pcnet" if nic.model.lower() == "pcnet32" else nic.model.lower()
    return model if model in NIC_MODELS else USUAL_CARD


def firmware_of(vm: VmSpec, placement: Placement) -> str:
    return placement.firmware or ("uefi" if vm.firmware == "uefi" else "bios")


def is_secure(vm: VmSpec, placement: Placement) -> bool:
    return vm.secure_boot and firmware_of(vm, placement) == "uefi"


def machine_of(vm: VmSpec, placement: Placement) -> str:
    """`q35`, or '' for i440fx, which is Proxmox VE's own. Without a version: it then is the newest of the node."""
    if "q35" in vm.machine or is_secure(vm, placement):  # Secure Boot needs what only q35 protects
        return "q35"
    is_known = "pc" in vm.machine or "i440fx" in vm.machine or vm.provider == "proxmox"
    return "" if is_known or firmware_of(vm, placement) == "bios" else "q35"


def processors_of(vm: VmSpec, placement: Placement) -> Tuple[int, int]:
    """Sockets, and cores of each."""
    count = placement.cpu or vm.cpu or 1
    cores = int(vm.details.get("cores_per_socket") or vm.details.get("cores") or 0)
    return (count // cores, cores) if cores > 0 and not count % cores else (1, count)


def cpu_of(vm: VmSpec) -> str:
    """A model that a cluster has made for itself is no other's."""
    known = str(vm.details.get("cpu_type") or "") if vm.provider == "proxmox" else ""
    return USUAL_CPU if not known or known.startswith("custom-") else known


def system_of(vm: VmSpec) -> str:
    """As `ostype` calls it."""
    known = str(vm.details.get("os_type") or "") if vm.provider == "proxmox" else ""
    if known:
        return known
    name = vm.guest_os.lower()
    if "windows" in name or "microsoft" in name:
        return next((found for words, found in _SYSTEMS if re.search(words, name)), "win10")
    return "l26" if _LINUXES.search(name) else "other"


def uuid_of(vm: VmSpec) -> str:
    """That the guest sees; '' where nobody knows it."""
    known = str(vm.details.get("bios_uuid") or vm.details.get("uuid") or vm.id).lower()
    return known if vm.provider in _HAVE_UUIDS and _UUID.fullmatch(known) else ""


def hardware_findings(vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    """What Proxmox VE does not have, and what will be another thing than it was."""
    if vm.architecture not in ("x86_64", "i686", ""):
        text = f"{vm.name} is a machine of {vm.architecture}; imports make machines of x86_64 on Proxmox VE."
        yield Finding("error", text, "Import it into a hypervisor of that architecture.", "unsupported")
    if not vm.disks:
        yield Finding("error", f"{vm.name} has no disk.", "", "unsupported")
    if (placement.cpu or vm.cpu) > MOST_CPUS:
        text = f"{vm.name} has {placement.cpu or vm.cpu} processors, and is made with up to {MOST_CPUS}."
        yield Finding("error", text, "Set hardware.cpu.", "unsupported")
    if placement.keep_uuid and not uuid_of(vm):
        text = f"Nobody knows the UUID that {vm.name} had, which placement.keep_uuid asks to keep."
        yield Finding("error", text, "Leave it out.", "invalid_config")
    yield from _of_drives(vm, placement)
    yield from _of_firmware(vm, placement)
    for nic in vm.nics:
        if nic.model and card_of(nic) == USUAL_CARD and not nic.model.lower().startswith("e1000"):
            text = f"{nic.id} of {vm.name} is {nic.model}, which Proxmox VE has not; it becomes {USUAL_CARD}."
            yield Finding("warning", text, "The guest may know it under another name.")


def _of_drives(vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    known = {name for disk in vm.disks for name in (disk.id, disk.name)}
    for key in placement.storage_map:
        if key not in known:
            hint = f"It has {', '.join(sorted(known))}."
            yield Finding("error", f"storage_map names {key}, which {vm.name} does not have.", hint, "invalid_config")
    floppies = sum(kind == "floppy" for kind, _name in vm.drives)
    if floppies:
        yield Finding("warning", f"The floppy drive of {vm.name} is left behind: Proxmox VE has none.")
    drives = drives_of(vm, placement)
    for disk, reason in drives.moved:
        (drive,) = [one.drive for one in drives.disks if one.spec is disk]
        hint = "If the guest does not boot from it, set placement.disk_bus to what it has drivers for."
        yield Finding("warning", f"{disk.id} of {vm.name} was on {_told_bus(disk)} and is {drive} now: {reason}.", hint)
    if drives.controller in _NOT_BY_UEFI and firmware_of(vm, placement) == "uefi":
        text = f"UEFI on Proxmox VE does not boot from disks on {drives.controller}, on which those of {vm.name} are."
        hint = "Set placement.disk_bus to a bus that the guest has drivers for, such as sata."
        yield Finding("warning", text, hint)


def _of_firmware(vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    if placement.firmware and vm.firmware != "unknown" and placement.firmware != vm.firmware:
        text = f"{vm.name} was installed for {vm.firmware}; with {placement.firmware} it may not boot."
        yield Finding("warning", text, "Leave firmware out to keep it.")
