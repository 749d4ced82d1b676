# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hardware that an import makes on vSphere: as the VM had it, or the nearest that vSphere has.

Versions and limits: VMware, "ESXi hosts and compatible virtual machine hardware versions list" (KB 315655), and
"Configuration Maximums".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable, Iterator, Mapping, Sequence, Tuple

from ..._errors import VmferryError
from ..._images.vmdk.format import LARGEST_FILE
from ..._images.vmdk.stream_optimized import stream_optimized_bound
from ..base import Placement
from ..finding import Finding
from ..spec import DiskSpec, VmSpec

KIB = 1024
LARGEST_DISK = 62 << 40  # bytes
# Of a model: its bus and its name in a descriptor, and how many disks a VM has room for on such controllers.
MODELS: Mapping[str, Tuple[str, str, int]] = {
    "pvscsi": ("scsi", "VirtualSCSI", 60),
    "lsilogic": ("scsi", "lsilogic", 60),
    "lsisas1068": ("scsi", "lsilogicsas", 60),
    "buslogic": ("scsi", "buslogic", 60),
    "sata": ("sata", "", 120),
    "nvme": ("nvme", "", 60),
    "ide": ("ide", "", 4),
}
BUSES = (*MODELS, "scsi")
_ANY_SCSI = "pvscsi"  # where a task asks for SCSI and says no more
_ANY_GUEST = "sata"  # which systems of the last fifteen years know without drivers of VMware
_SAME = {"virtualscsi": "pvscsi", "lsilogicsas": "lsisas1068", "lsilogic-sas": "lsisas1068", "ahci": "sata"}
_ANY_OF_VMWARE = "lsilogic"  # what a descriptor means by SCSI that says no more
_OF_VMWARE = ("vsphere", "appliance", "image")
CARDS: Mapping[str, str] = {
    "e1000": "E1000",
    "e1000e": "E1000e",
    "pcnet": "PCNet32",
    "pcnet32": "PCNet32",
    "vmxnet3": "VmxNet3",
}
_ANY_CARD = "e1000e"  # which guests know without drivers of VMware
# The first version of the API whose hosts know a version of virtual hardware.
_HARDWARE = (((7, 0, 2), 19), ((7, 0, 1), 18), ((7, 0), 17), ((6, 7), 14), ((6, 5), 13))
OLDEST, NEWEST = 13, 19  # newer ones were met by hosts that refuse their own
_MOST_CPUS = 128  # of OLDEST
_WINDOWS_SERVER, _WINDOWS = "windows9Server64Guest", "windows9_64Guest"
_LINUX, _OTHER = "otherLinux64Guest", "otherGuest64"
_HAVE_UUIDS = ("vsphere", "libvirt")  # whose ids are those that guests see, or who tell these
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LINUXES = re.compile(
    r"linux|debian|ubuntu|red ?hat|rhel|centos|rocky|alma|fedora|suse|arch|alpine|oracle|photon|amazon|gentoo", re.I
)


@dataclass(frozen=True)
class NewDisk:
    """`size`: bytes, in whole kibibytes, which vSphere counts in. `model`: of its controller, as in `MODELS`."""

    spec: DiskSpec
    size: int
    file: str
    model: str


def new_disks(vm: VmSpec, placement: Placement) -> Sequence[NewDisk]:
    """Raises `invalid_config` for a bus that vSphere has not."""
    if placement.disk_bus and placement.disk_bus not in BUSES:
        text = f"{placement.disk_bus} is no disk bus of vSphere."
        raise VmferryError("invalid_config", text, f"Set placement.disk_bus to one of {', '.join(BUSES)}.")
    return tuple(
        NewDisk(disk, -(-disk.size // KIB) * KIB, f"disk-{number}.vmdk", _model(vm, disk, placement.disk_bus))
        for number, disk in enumerate(vm.disks)
    )


def _model(vm: VmSpec, disk: DiskSpec, asked: str) -> str:
    known = str(disk.details.get("controller") or disk.details.get("controller_model") or "").lower()
    known = _SAME.get(known, known)
    if asked == "scsi":
        return known if known in MODELS and MODELS[known][0] == "scsi" else _ANY_SCSI
    if asked:
        return asked
    if disk.bus in ("ide", "sata", "nvme"):
        return disk.bus
    if disk.bus == "scsi" and vm.provider in _OF_VMWARE:
        return known if known in MODELS else _ANY_OF_VMWARE
    return _ANY_GUEST


def insist_on_stream(disk: NewDisk, data: int) -> None:
    """`data`: bytes in whole grains. Raises `unsupported` where a stream of so much cannot be told to vSphere."""
    bound = stream_optimized_bound(disk.size, data)
    if bound > LARGEST_FILE:
        raise VmferryError(
            "unsupported",
            f"{disk.spec.id} may have {bound} bytes as a stream, and the VMDKs that vSphere takes have at most "
            f"{LARGEST_FILE}.",
            "Import it into another hypervisor, and copy the data between the guests.",
        )


def card_of(model: str) -> str:
    """In the words of `NicSpec.model`."""
    return model.lower() if model.lower() in CARDS else _ANY_CARD


def hardware_version(vm: VmSpec, spoken: Iterable[str]) -> str:
    """As it had it, as far as every host knows it. `spoken`: the versions of the API of the hosts."""
    known = [_known_by(version) for version in spoken]
    had = re.fullmatch(r"vmx-(\d+)", str(vm.details.get("hardware_version") or vm.machine))
    wanted = int(had[1]) if had else OLDEST
    return f"vmx-{max(OLDEST, min(wanted, NEWEST, *(known or [OLDEST])))}"


def _known_by(version: str) -> int:
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    return next((hardware for since, hardware in _HARDWARE if numbers >= since), OLDEST)


def guest_id(vm: VmSpec) -> str:
    """As vSphere calls the operating system (VirtualMachineGuestOsIdentifier)."""
    known = str(vm.details.get("guest_id") or "")
    if known:
        return known
    name = vm.guest_os.lower()
    if "windows" in name or "microsoft" in name:
        return _WINDOWS_SERVER if "server" in name else _WINDOWS
    return _LINUX if _LINUXES.search(name) else _OTHER


def uuid_of(vm: VmSpec) -> str:
    """That the guest sees; '' where nobody knows it."""
    known = str(vm.details.get("bios_uuid") or vm.id).lower()
    return known if vm.provider in _HAVE_UUIDS and _UUID.fullmatch(known) else ""


def firmware_of(vm: VmSpec, placement: Placement) -> str:
    return placement.firmware or ("uefi" if vm.firmware == "uefi" else "bios")


def cpus_of(vm: VmSpec, placement: Placement) -> int:
    return placement.cpu or vm.cpu


def hardware_findings(vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    """What vSphere does not have, and what will be another thing than it was."""
    if vm.architecture not in ("x86_64", "i686", ""):
        text = f"{vm.name} is a machine of {vm.architecture}, which ESXi hosts do not run."
        yield Finding("error", text, "Import it into a hypervisor of that architecture.", "unsupported")
    if not vm.disks:
        yield Finding("error", f"{vm.name} has no disk.", "", "unsupported")
    if cpus_of(vm, placement) > _MOST_CPUS:
        text = f"{vm.name} has {cpus_of(vm, placement)} processors, and is made with up to {_MOST_CPUS}."
        yield Finding("error", text, "Set hardware.cpu, and add more in the vSphere Client.", "unsupported")
    yield from _of_disks(vm, placement)
    if placement.firmware and vm.firmware != "unknown" and placement.firmware != vm.firmware:
        text = f"{vm.name} was installed for {vm.firmware}; with {placement.firmware} it may not boot."
        yield Finding("warning", text, "Leave firmware out to keep it.")
    if vm.tpm:
        text = f"The TPM of {vm.name}, and what it keeps, is left behind."
        yield Finding("warning", text, "Have the recovery keys of encrypted disks (BitLocker) at hand.")
    for nic in vm.nics:
        if nic.model and nic.model.lower() not in CARDS:
            text = f"{nic.id} of {vm.name} is {nic.model}, which vSphere has not; it becomes {_ANY_CARD}."
            yield Finding("warning", text, "The guest may know it under another name.")


def _of_disks(vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    if placement.disk_format not in ("", "vmdk"):
        text = f"Disks on vSphere are VMDKs, not {placement.disk_format}."
        yield Finding("error", text, "Leave placement.disk_format out.", "invalid_config")
    disks = new_disks(vm, placement)
    for disk in disks:
        if disk.size > LARGEST_DISK:
            text = f"{disk.spec.id} of {vm.name} has {disk.size} bytes, and vSphere's disks at most {LARGEST_DISK}."
            yield Finding("error", text, "", "unsupported")
        elif disk.spec.allocated is not None:  # else it is found out when its extents are known
            try:
                insist_on_stream(disk, min(disk.size, disk.spec.allocated))
            except VmferryError as error:
                yield Finding("error", error.message, error.hint, error.kind)
        if not placement.disk_bus and disk.model == _ANY_GUEST and disk.spec.bus != "sata":
            text = f"{disk.spec.id} of {vm.name} is on {disk.spec.bus or 'no known bus'}, which vSphere has not; it "
            hint = "If the guest does not boot from it, set placement.disk_bus to what it has drivers for."
            yield Finding("warning", f"{text}goes on {_ANY_GUEST}.", hint)
    drives = sum(1 for kind, _name in vm.drives if kind == "cdrom")
    for model, (_bus, _name, room) in MODELS.items():
        count = sum(1 for disk in disks if disk.model == model) + (drives if model == "ide" else 0)
        if count > room:
            text = f"{vm.name} has {count} disks and drives on {model}, and vSphere room for {room}."
            yield Finding("error", text, "Set placement.disk_bus, or leave drives out with detach.", "unsupported")
    known = {name for disk in vm.disks for name in (disk.id, disk.name)}
    for key in placement.storage_map:
        if key not in known:
            hint = f"It has {', '.join(sorted(known))}."
            yield Finding("error", f"storage_map names {key}, which {vm.name} does not have.", hint, "invalid_config")
