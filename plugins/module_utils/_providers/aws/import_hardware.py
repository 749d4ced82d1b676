# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hardware that an import makes on AWS: as the VM had it, or the nearest that EC2 has.

Device names: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/device_naming.html
Boot modes: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-boot.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..._errors import VmferryError
from ..base import Placement
from ..finding import Finding
from ..spec import DiskSpec, VmSpec
from .asking import every_of
from .session import Session
from .snapshot_blocks import GIB

LARGEST_DISK = 64 << 40  # bytes: what StartSnapshot takes
# Each with the sizes that it has, in GiB: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyVolume.html
# io1 and io2 want a number of operations, too.
VOLUME_TYPES: Mapping[str, Tuple[int, int]] = {
    "gp3": (1, 65536),
    "gp2": (1, 16384),
    "st1": (125, 16384),
    "sc1": (125, 16384),
    "standard": (1, 1024),
}
_NO_ROOT = ("st1", "sc1")
_USUAL = "gp3"
ARCHITECTURES: Mapping[str, str] = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
# General purpose, newest first: those that every region had by now. "Amazon EC2 instance types by Region".
FAMILIES: Mapping[str, Sequence[str]] = {"x86_64": ("m7i", "m6i", "m5"), "arm64": ("m7g", "m6g")}
_ROOT = "/dev/sda1"  # as the images of AWS for HVM have it
_OTHERS = [f"/dev/sd{letter}" for letter in "fghijklmnopbcde"] + [f"/dev/xvdb{letter}" for letter in "abcdefghij"]


@dataclass(frozen=True)
class NewDisk:
    """`size`: bytes, in whole GiB, which EBS counts in. `device`: as the image calls it."""

    spec: DiskSpec
    size: int
    device: str
    volume_type: str


@dataclass(frozen=True)
class InstanceType:
    name: str
    cpu: int
    memory_mb: int
    architectures: Sequence[str]
    boot_modes: Sequence[str]
    needs_ena: bool = False

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> InstanceType:
        return cls(
            said["InstanceType"],
            int(said["VCpuInfo"]["DefaultVCpus"]),
            int(said["MemoryInfo"]["SizeInMiB"]),
            said.get("ProcessorInfo", {}).get("SupportedArchitectures", ()),
            said.get("SupportedBootModes", ()),
            said.get("NetworkInfo", {}).get("EnaSupport") == "required",
        )


def new_disks(vm: VmSpec, placement: Placement) -> Sequence[NewDisk]:
    """The one that boots first. Raises `unsupported` for more than there are names for."""
    if len(vm.disks) > 1 + len(_OTHERS):
        text = f"{vm.name} has {len(vm.disks)} disks, and an instance has room for {1 + len(_OTHERS)}."
        raise VmferryError("unsupported", text, "Leave some out.")
    return tuple(
        NewDisk(disk, max(GIB, -(-disk.size // GIB) * GIB), device, volume_type(disk, placement))
        for disk, device in zip(vm.disks, [_ROOT, *_OTHERS])
    )


def volume_type(disk: DiskSpec, placement: Placement) -> str:
    mapped = placement.storage_map
    return mapped.get(disk.id) or mapped.get(disk.name) or placement.volume_type or _USUAL


def architecture_of(vm: VmSpec) -> str:
    """Raises `unsupported` for one that EC2 has not."""
    known = ARCHITECTURES.get(vm.architecture or "x86_64")
    if known is None:
        text = f"{vm.name} is a machine of {vm.architecture}, which EC2 has not."
        raise VmferryError("unsupported", text, f"It has {', '.join(sorted(set(ARCHITECTURES.values())))}.")
    return known


def boot_mode_of(vm: VmSpec, placement: Placement) -> str:
    firmware = placement.firmware or vm.firmware
    if vm.provider == "aws" and not placement.firmware and vm.details.get("boot_mode"):
        return str(vm.details["boot_mode"])  # such as uefi-preferred, which is more than a firmware
    return "uefi" if firmware == "uefi" or architecture_of(vm) == "arm64" else "legacy-bios"


def has_ena(vm: VmSpec) -> bool:
    """Guests of other hypervisors are taken at their word: no type that is made today has another network card."""
    return vm.provider != "aws" or vm.details.get("ena") is not False


def cpus_of(vm: VmSpec, placement: Placement) -> int:
    return placement.cpu or vm.cpu or 1


def memory_of(vm: VmSpec, placement: Placement) -> int:
    """In MiB."""
    return placement.memory_mb or vm.memory_mb or 1


def instance_type(session: Session, vm: VmSpec, placement: Placement, zone: str = "") -> InstanceType:
    """That was asked for, or that an instance had, or the smallest with as many CPUs and as much memory. `zone`: in
    which it is to be; empty: AWS chooses. Raises `not_found` for one that the region has not, and `unsupported` for one
    that the zone has not, and where none is large enough."""
    had = "" if placement.cpu or placement.memory_mb or vm.provider != "aws" else vm.details.get("instance_type", "")
    asked = placement.instance_type or str(had)
    if asked:
        found = next(iter(_types(session, [{"Name": "instance-type", "Values": [asked]}])), None)
        if found is None:
            text = f"There is no instance type {asked} in {session.region}."
            raise VmferryError("not_found", text, "Set placement.instance_type to one that this region has.")
        zones = zones_by_type(session, [asked])[asked] if zone else ()
        if zone and zone not in zones:
            text = f"Instances of the type {asked} are not offered in {zone}, where the subnet of {placement.name} is."
            hint = f"Set placement.instance_type to another one, or take a subnet in {', '.join(zones)}."
            raise VmferryError("unsupported", text, hint)
        return found
    architecture = architecture_of(vm)
    families = FAMILIES[architecture]
    wanted = [{"Name": "instance-type", "Values": [f"{family}.*" for family in families]}]
    cpus, memory = cpus_of(vm, placement), memory_of(vm, placement)
    fitting = [
        one
        for one in _types(session, wanted)
        if one.cpu >= cpus and one.memory_mb >= memory and not one.name.endswith("metal")
    ]
    if zone and fitting:
        zones_of = zones_by_type(session, [one.name for one in fitting])
        fitting = [one for one in fitting if zone in zones_of[one.name]]
    fitting.sort(key=lambda one: (one.cpu, one.memory_mb, families.index(one.name.split(".")[0])))
    if not fitting:
        where = f" in {zone}" if zone else ""
        text = f"No instance type of {', '.join(families)}{where} has {cpus} CPUs and {memory} MiB of memory."
        raise VmferryError("unsupported", text, "Set placement.instance_type, or take a subnet in another zone.")
    return fitting[0]


def zones_by_type(session: Session, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The availability zones of the region that offer each of these types, in order."""
    told = every_of(
        session,
        "describe_instance_type_offerings",
        "Looking where instance types are offered",
        "instance-type",
        names,
        LocationType="availability-zone",
    )
    zones: Dict[str, List[str]] = {name: [] for name in names}
    for one in told:
        zones[one["InstanceType"]].append(one["Location"])
    return {name: sorted(found) for name, found in zones.items()}


def _types(session: Session, filters: Sequence[Mapping[str, Any]]) -> List[InstanceType]:
    with session.doing("Looking for instance types"):
        pages = session.client("ec2").get_paginator("describe_instance_types").paginate(Filters=filters)
        return [InstanceType.of(one) for page in pages for one in page["InstanceTypes"]]


def hardware_findings(vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    """Of what can be told without AWS."""
    yield from _of_firmware(vm, placement)
    yield from _of_disks(vm, placement, new_disks(vm, placement))
    if vm.provider != "aws" and placement.stop_at != "snapshot":
        text = f"{vm.name} did not run on AWS: its guest needs drivers for NVMe disks and for the network card ENA."
        hint = "Linux has them since 4.9, where its initramfs has nvme, too; install those of AWS into Windows before."
        yield Finding("warning", text, hint)
    if vm.drives:
        drives = ", ".join(sorted({kind for kind, _name in vm.drives}))
        yield Finding("warning", f"Instances have no drives for media: {vm.name} is made without its {drives}.")


def _of_firmware(vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    firmware = placement.firmware or vm.firmware
    if firmware not in ("bios", "uefi", "unknown"):
        yield Finding("error", f"{firmware} is no firmware.", "Use bios or uefi.", "invalid_config")
    if firmware == "unknown":
        text = f"Nobody knows which firmware {vm.name} was installed for; the image is made for a BIOS."
        yield Finding("warning", text, "Set placement.firmware.")
    elif placement.firmware and placement.firmware != vm.firmware:
        text = f"{vm.name} was installed for {vm.firmware}; with {placement.firmware} it may not boot."
        yield Finding("warning", text, "Leave firmware out to keep it.")
    left_out = [word for word, had in (("Secure Boot", vm.secure_boot), ("its TPM", vm.tpm)) if had]
    if left_out:
        text = f"{vm.name} is made without {' and '.join(left_out)}: the variables of its firmware begin anew."
        yield Finding("warning", text, "What is sealed to them, such as BitLocker's keys, asks for its recovery key.")


def _of_disks(vm: VmSpec, placement: Placement, disks: Sequence[NewDisk]) -> Iterator[Finding]:
    for number, disk in enumerate(disks):
        if disk.size > LARGEST_DISK:
            text = f"{disk.spec.id} of {vm.name} has {disk.spec.size} bytes, and volumes of EBS at most {LARGEST_DISK}."
            yield Finding("error", text, "", "unsupported")
        if disk.volume_type not in VOLUME_TYPES:
            text = f"{disk.volume_type} is no type of volume for {disk.spec.id}."
            yield Finding("error", text, f"Use one of {', '.join(VOLUME_TYPES)}.", "invalid_config")
        elif number == 0 and disk.volume_type in _NO_ROOT:
            text = f"{disk.spec.id} of {vm.name} boots, which volumes of the type {disk.volume_type} cannot."
            yield Finding("error", text, "Use gp3, and storage_map for the other disks.", "invalid_config")
        elif disk.size <= LARGEST_DISK:
            yield from _of_size(vm, disk)
        if disk.spec.size % GIB:
            text = f"{disk.spec.id} of {vm.name} becomes {disk.size // GIB} GiB, since volumes have whole ones."
            yield Finding("info", text)
    yield from _of_map(vm, placement)


def _of_size(vm: VmSpec, disk: NewDisk) -> Iterator[Finding]:
    least, most = VOLUME_TYPES[disk.volume_type]
    if not least <= disk.size // GIB <= most:
        text = f"{disk.spec.id} of {vm.name} has {disk.size // GIB} GiB, and volumes of the type {disk.volume_type}"
        yield Finding("error", f"{text} have {least} to {most}.", "Use gp3 for it, by storage_map.", "invalid_config")


def _of_map(vm: VmSpec, placement: Placement) -> Iterable[Finding]:
    known = {name for disk in vm.disks for name in (disk.id, disk.name)}
    for key in placement.storage_map:
        if key not in known:
            hint = f"It has {', '.join(sorted(known))}."
            yield Finding("error", f"storage_map names {key}, which {vm.name} does not have.", hint, "invalid_config")


def fit_findings(
    vm: VmSpec, placement: Placement, chosen: InstanceType, mode: Optional[str] = None
) -> Iterator[Finding]:
    """Whether an instance of this type can be of this VM."""
    architecture, mode = architecture_of(vm), mode or boot_mode_of(vm, placement)
    if chosen.architectures and architecture not in chosen.architectures:
        text = f"{vm.name} is a machine of {architecture}, and {chosen.name} of {', '.join(chosen.architectures)}."
        yield Finding("error", text, "Set placement.instance_type to another one.", "invalid_config")
    if chosen.boot_modes and mode in ("uefi", "legacy-bios") and mode not in chosen.boot_modes:
        text = f"{chosen.name} cannot boot in the mode {mode}, for which {vm.name} was installed."
        yield Finding("error", text, "Set placement.instance_type to another one.", "invalid_config")
    if chosen.needs_ena and not has_ena(vm):
        text = f"{chosen.name} has the network card ENA alone, which {vm.name} is not marked to have a driver for."
        hint = "Install that driver, mark the instance with enaSupport, and export it again; or choose an older type."
        yield Finding("error", text, hint, "invalid_config")
    cpus, memory = cpus_of(vm, placement), memory_of(vm, placement)
    if chosen.cpu < cpus or chosen.memory_mb < memory:
        text = f"{chosen.name} has {chosen.cpu} CPUs and {chosen.memory_mb} MiB of memory"
        yield Finding("warning", f"{text}, less than the {cpus} and {memory} MiB of {vm.name}.")
