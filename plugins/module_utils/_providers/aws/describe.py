# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances described: what is asked for in few round trips, and what is made of the answers.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Instance.html
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ..._errors import VmferryError
from ..spec import Firmware, NicSpec, PowerState, SnapshotSpec, VmSpec
from .asking import every_of, instances, instances_of
from .filters import passed_on
from .import_mark import mark_in
from .session import Session
from .snapshot_sets import OURS_BY, sets_of
from .tags import NAME, tags_of
from .volumes import disks_of, iso_second

_STATES: Mapping[str, PowerState] = {
    "pending": "powered_on",
    "running": "powered_on",
    "stopping": "powered_on",
    "stopped": "powered_off",
}
_HIBERNATED = "Client.UserInitiatedHibernate"
_FIRMWARE: Mapping[str, Firmware] = {"legacy-bios": "bios", "uefi": "uefi"}
_ARCHITECTURES = {"arm64": "aarch64", "arm64_mac": "aarch64", "x86_64_mac": "x86_64", "i386": "i686"}
_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)  # seconds before each look at an instance whose volumes change meanwhile


def describe_all(session: Session, filters: Mapping[str, str]) -> List[VmSpec]:
    """All that are there and fit; the filters are those of `vm_info`."""
    doing = "Listing the instances"
    return specs(session, doing, instances(session, doing, passed_on(filters)))


def specs(session: Session, doing: str, found: Sequence[Any]) -> List[VmSpec]:
    """Of what DescribeInstances told, in its order. A call for so many instances as one filter takes tells their
    volumes, and one their snapshots; one the types that they have.
    """
    known = {instance["InstanceId"]: instance for instance in found}
    volumes = _volumes(session, doing, known)
    types = _types(session, doing, found)
    snapshots = _snapshots(session, doing, list(known))
    return [
        _spec(session, known[one], volumes, types.get(known[one]["InstanceType"], {}), snapshots.get(one, ()))
        for one in known
    ]


def _volumes(session: Session, doing: str, known: Dict[str, Any]) -> Dict[str, Any]:
    """By their ids; those of every instance. `known` is brought up to date, where disks came or went meanwhile."""
    missing = [one for one in known if _attached(known[one])]
    found: Dict[str, Any] = {}
    for pause in _PAUSES:
        time.sleep(pause)
        told = every_of(session, "describe_volumes", doing, "attachment.instance-id", missing)
        found.update((volume["VolumeId"], volume) for volume in told)
        missing = [one for one in missing if not _attached(known[one]) <= found.keys()]
        if not missing:
            return found
        again = instances_of(session, doing, "instance-id", missing)
        known.update((one["InstanceId"], one) for one in again)
    raise VmferryError(
        "busy",
        f"{doing} failed: the volumes of {', '.join(missing[:5])} change all the time.",
        "Run it again once nobody attaches or detaches any.",
        retryable=True,
    )


def _attached(instance: Mapping[str, Any]) -> set[str]:
    return {mapping["Ebs"]["VolumeId"] for mapping in instance.get("BlockDeviceMappings") or () if "Ebs" in mapping}


def _types(session: Session, doing: str, found: Sequence[Any]) -> Dict[str, Any]:
    names = sorted({instance["InstanceType"] for instance in found})
    told = every_of(session, "describe_instance_types", doing, "instance-type", names)
    return {kind["InstanceType"]: kind for kind in told}


def _snapshots(session: Session, doing: str, ids: Sequence[str]) -> Dict[str, Tuple[SnapshotSpec, ...]]:
    """Those that tasks asked for, by the instance's id."""
    told = every_of(session, "describe_snapshots", doing, OURS_BY, ids, OwnerIds=["self"])
    found: Dict[str, List[SnapshotSpec]] = defaultdict(list)
    for one in sets_of(told):
        if one.ours:
            found[one.vm].append(SnapshotSpec(one.name, one.created, one.description))
    return {vm: tuple(sets) for vm, sets in found.items()}


def _spec(
    session: Session,
    instance: Mapping[str, Any],
    volumes: Mapping[str, Any],
    kind: Mapping[str, Any],
    snapshots: Sequence[SnapshotSpec],
) -> VmSpec:
    tags = tags_of(instance)
    one = instance["InstanceId"]
    architecture = instance.get("Architecture", "x86_64")
    return VmSpec(
        provider="aws",
        id=one,
        name=tags.get(NAME) or one,
        path=f"{session.region}/{one}",
        power_state=power_state(instance),
        cpu=_cpu(instance, kind),
        memory_mb=int(kind.get("MemoryInfo", {}).get("SizeInMiB", 0)),
        firmware=_firmware(instance, kind),
        disks=disks_of(instance, volumes, kind),
        nics=_nics(instance),
        snapshots=tuple(snapshots),
        tpm=bool(instance.get("TpmSupport")),
        architecture=_ARCHITECTURES.get(architecture, architecture),
        guest_os=instance.get("PlatformDetails", ""),
        tags=tuple(f"{key}={value}" if value else key for key, value in sorted(tags.items())),
        host=instance.get("Placement", {}).get("HostId", ""),
        details=_details(instance, kind, tags),
    )


def power_state(instance: Mapping[str, Any]) -> PowerState:
    state = instance["State"]["Name"]
    if state == "stopped" and instance.get("StateReason", {}).get("Code") == _HIBERNATED:
        return "suspended"
    return _STATES.get(state, "unknown")


def _cpu(instance: Mapping[str, Any], kind: Mapping[str, Any]) -> int:
    """As they were chosen for this instance, which may be fewer than the type has."""
    chosen = instance.get("CpuOptions", {})
    count = int(chosen.get("CoreCount", 0)) * int(chosen.get("ThreadsPerCore", 1))
    return count or int(kind.get("VCpuInfo", {}).get("DefaultVCpus", 0))


def _firmware(instance: Mapping[str, Any], kind: Mapping[str, Any]) -> Firmware:
    """What it booted with, or will: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-boot.html"""
    wanted = instance.get("CurrentInstanceBootMode") or instance.get("BootMode") or ""
    if wanted in _FIRMWARE:
        return _FIRMWARE[wanted]
    offered = kind.get("SupportedBootModes") or ()
    if instance.get("Architecture") == "arm64" or list(offered) == ["uefi"]:
        return "uefi"
    if not offered:
        return "unknown"
    return "uefi" if wanted == "uefi-preferred" and "uefi" in offered else "bios"


def _nics(instance: Mapping[str, Any]) -> Tuple[NicSpec, ...]:
    def place(nic: Mapping[str, Any]) -> Tuple[int, int]:
        attachment = nic.get("Attachment") or {}
        return attachment.get("NetworkCardIndex", 0), attachment.get("DeviceIndex", 0)

    model = "ena" if instance.get("EnaSupport") else ""
    nics = sorted(instance.get("NetworkInterfaces") or (), key=place)
    return tuple(
        NicSpec(f"nic-{number}", nic["MacAddress"], nic.get("SubnetId", ""), model, nic.get("InterfaceType", ""))
        for number, nic in enumerate(nics)
    )


def _imported_from(tags: Mapping[str, str]) -> Dict[str, str]:
    """The export, and the VM that was exported; empty for an instance that no import of ours made, or not yet."""
    mark = mark_in(tags)
    return mark.imported_from if mark is not None and not mark.unfinished else {}


def _details(instance: Mapping[str, Any], kind: Mapping[str, Any], tags: Mapping[str, str]) -> Dict[str, Any]:
    placement = instance.get("Placement", {})
    return {
        "instance_type": instance["InstanceType"],
        "image_id": instance.get("ImageId", ""),
        "state": instance["State"]["Name"],
        "state_reason": instance.get("StateReason", {}).get("Message", ""),
        "launched": iso_second(instance.get("LaunchTime")),
        "boot_mode": instance.get("BootMode", ""),
        "current_boot_mode": instance.get("CurrentInstanceBootMode", ""),
        "supported_boot_modes": list(kind.get("SupportedBootModes") or ()),
        "ena": bool(instance.get("EnaSupport")),
        "hypervisor": kind.get("Hypervisor", ""),
        "virtualization": instance.get("VirtualizationType", ""),
        "platform": instance.get("Platform", ""),
        "root_device": instance.get("RootDeviceName", ""),
        "root_device_type": instance.get("RootDeviceType", ""),
        "instance_store_gb": int(kind.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0)),
        "availability_zone": placement.get("AvailabilityZone", ""),
        "tenancy": placement.get("Tenancy", ""),
        "vpc": instance.get("VpcId", ""),
        "subnet": instance.get("SubnetId", ""),
        "private_ip": instance.get("PrivateIpAddress", ""),
        "public_ip": instance.get("PublicIpAddress", ""),
        "security_groups": [group["GroupId"] for group in instance.get("SecurityGroups") or ()],
        "key_name": instance.get("KeyName", ""),
        "instance_profile": (instance.get("IamInstanceProfile") or {}).get("Arn", ""),
        "product_codes": [code["ProductCodeId"] for code in instance.get("ProductCodes") or ()],
        "lifecycle": instance.get("InstanceLifecycle", ""),
        "hibernation": bool((instance.get("HibernationOptions") or {}).get("Configured")),
        "outpost": instance.get("OutpostArn", ""),
        "auto_scaling_group": tags.get("aws:autoscaling:groupName", ""),
        "imported_from": _imported_from(tags),
        "tags": dict(tags),
    }
