# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image (AMI) made of the snapshots of an import.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RegisterImage.html
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..._errors import VmferryError
from ..._transfer.flow import Flow
from ..base import Placement
from ..spec import VmSpec
from .asking import every, literal, of
from .errors import was_sent_again
from .import_hardware import NewDisk, architecture_of, boot_mode_of, has_ena
from .import_waits import KNOWN_WITHIN, wait_for
from .new_snapshot import LONGEST_DESCRIPTION
from .session import Session
from .snapshot_blocks import GIB
from .tags import tag_specification

AVAILABLE_WITHIN = 1800.0  # seconds
_NO_NAME = re.compile(r"[^A-Za-z0-9()\[\] ./\-'@_]")
_LONGEST_NAME = 128  # characters, of an image


def image_name(name: str, attempt: str) -> str:
    """Another one for each attempt: names of images are unique in an account."""
    clean = _NO_NAME.sub("-", name)
    return f"{clean[: _LONGEST_NAME - len(attempt) - 1]}-{attempt}"


def image_request(
    vm: VmSpec,
    placement: Placement,
    disks: Sequence[NewDisk],
    snapshots: Sequence[str],
    tags: Mapping[str, str],
    name: str,
) -> Dict[str, Any]:
    """`snapshots`: of each disk."""
    return {
        "Name": name,
        "Description": f"{placement.name}, imported by vmferry.migrate"[:LONGEST_DESCRIPTION],
        "Architecture": architecture_of(vm),
        "VirtualizationType": "hvm",
        "RootDeviceName": disks[0].device,
        "BootMode": boot_mode_of(vm, placement),
        "EnaSupport": has_ena(vm),
        "BlockDeviceMappings": [_mapping(disk, snapshot) for disk, snapshot in zip(disks, snapshots)],
        "TagSpecifications": [tag_specification("image", tags)],
    }


def _mapping(disk: NewDisk, snapshot: str) -> Dict[str, Any]:
    volume = {
        "SnapshotId": snapshot,
        "VolumeSize": disk.size // GIB,
        "VolumeType": disk.volume_type,
        "DeleteOnTermination": True,
    }
    return {"DeviceName": disk.device, "Ebs": volume}


def register(session: Session, flow: Flow, asked: Mapping[str, Any]) -> str:
    """The id of the image. A request whose answer was lost is sent again, and refused: the first one has the name."""
    name = asked["Name"]
    try:
        with session.doing(f"Registering the image {name}"):
            return str(session.client("ec2").register_image(**asked)["ImageId"])
    except VmferryError as error:
        if error.kind != "conflict" or not was_sent_again(error):
            raise
        return wait_for(flow, lambda: _called(session, name), KNOWN_WITHIN, f"the image {name} to appear")


def _called(session: Session, name: str) -> Optional[str]:
    doing = f"Looking for the image {name}"
    found = every(session, "describe_images", doing, [of("name", [literal(name)])], Owners=["self"])
    return str(found[0]["ImageId"]) if found else None


def wait_available(session: Session, flow: Flow, image: str) -> None:
    def look() -> Optional[bool]:
        with session.doing(f"Looking at the image {image}"):
            found: List[Mapping[str, Any]] = session.client("ec2").describe_images(ImageIds=[image])["Images"]
        state = found[0]["State"] if found else "pending"
        if state in ("invalid", "failed", "error", "deregistered"):
            said = (found[0].get("StateReason") or {}).get("Message") or state
            raise VmferryError("internal", f"AWS did not make the image {image}: {said}.", "Try again.")
        return True if state == "available" else None

    wait_for(flow, look, AVAILABLE_WITHIN, f"the image {image} to be available")
