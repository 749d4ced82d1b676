# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The EBS volumes of an instance as its disks: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Volume.html"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Tuple

from ..spec import DiskSpec

GIB = 1024**3


def disks_of(instance: Mapping[str, Any], volumes: Mapping[str, Any], kind: Mapping[str, Any]) -> Tuple[DiskSpec, ...]:
    """The root device first, then by the names of devices. `volumes`: by their ids; `kind`: of the instance's type."""
    root = instance.get("RootDeviceName", "")
    mappings = [mapping for mapping in instance.get("BlockDeviceMappings") or () if "Ebs" in mapping]
    mappings.sort(key=lambda mapping: (mapping["DeviceName"] != root, mapping["DeviceName"]))
    nvme = kind.get("Hypervisor") == "nitro" or bool(kind.get("BareMetal"))
    return tuple(
        _disk(number, mapping, volumes[mapping["Ebs"]["VolumeId"]], mapping["DeviceName"] == root, nvme)
        for number, mapping in enumerate(mappings)
    )


def _disk(number: int, mapping: Mapping[str, Any], volume: Mapping[str, Any], boot: bool, nvme: bool) -> DiskSpec:
    one = volume["VolumeId"]
    return DiskSpec(
        id=f"disk-{number}",
        name=mapping["DeviceName"],
        size=int(volume["Size"]) * GIB,
        format="raw",
        bus="nvme" if nvme else "xen",
        source=one,
        storage=volume.get("VolumeType", ""),
        boot=boot,
        change_tracking=True,  # between snapshots, without anything to switch on
        serial=one.replace("-", "") if nvme else "",  # what a guest on Nitro sees
        details=_details(mapping, volume),
    )


def _details(mapping: Mapping[str, Any], volume: Mapping[str, Any]) -> Dict[str, Any]:
    return {
        "volume_type": volume.get("VolumeType", ""),
        "iops": volume.get("Iops", 0),
        "throughput": volume.get("Throughput", 0),
        "encrypted": bool(volume.get("Encrypted")),
        "kms_key": volume.get("KmsKeyId", ""),
        "state": volume.get("State", ""),
        "availability_zone": volume.get("AvailabilityZone", ""),
        "delete_on_termination": bool(mapping["Ebs"].get("DeleteOnTermination")),
        "multi_attach": bool(volume.get("MultiAttachEnabled")),
        "attached": iso_second(mapping["Ebs"].get("AttachTime")),
        "attached_to": [attachment.get("InstanceId", "") for attachment in volume.get("Attachments") or ()],
        "made_of_snapshot": volume.get("SnapshotId") or "",
        "outpost": volume.get("OutpostArn") or "",
    }


def iso_second(told: Any) -> str:
    """Of a time in UTC that boto3 told, such as 2026-11-21T06:30:00Z; '' where it told none."""
    return told.strftime("%Y-%m-%dT%H:%M:%SZ") if told else ""
