# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What moto does not know of images and instances: which disks an image has, and what an instance type asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import (
    EC2ClientError,
    InvalidAMIIdError,
    InvalidParameterValueError,
    InvalidSnapshotIdError,
    MissingParameterError,
)
from moto.ec2.models.amis import Ami, AmiBackend
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_ami_id

from rigs.aws.blocks import Disks

ROOT = "/dev/sda1"


class Image(Ami):
    """As it was registered."""

    def __init__(self, backend: Any, image_id: str, asked: Mapping[str, Any], mappings: list[dict[str, Any]]) -> None:
        self.mappings: list[dict[str, Any]] = []
        super().__init__(
            backend,
            image_id,
            name=asked["Name"],
            description=asked.get("Description"),
            architecture=asked.get("Architecture", "i386"),
            virtualization_type=asked.get("VirtualizationType", "paravirtual"),
            root_device_name=asked.get("RootDeviceName", ROOT),
            root_device_type="ebs",
            hypervisor="xen",
            boot_mode=asked.get("BootMode"),
            sriov=asked.get("SriovNetSupport"),
            region_name=f"{backend.region_name}a",
            image_location=f"{backend.account_id}/{asked['Name']}",
        )
        backend.delete_snapshot(self.ebs_snapshot.id)  # of no volume of ours
        self.mappings = mappings
        self.ena_support = asked.get("EnaSupport", False)
        self.tpm_support = asked.get("TpmSupport")
        self.imds_support = asked.get("ImdsSupport")

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        return self.mappings

    def get_filter_value(self, filter_name: str, method_name: str | None = None) -> Any:
        if filter_name == "block-device-mapping.snapshot-id":
            return [one.get("Ebs", {}).get("SnapshotId") for one in self.mappings]
        return super().get_filter_value(filter_name, method_name)


def teach_images(disks: Disks) -> None:
    deregister_image = AmiBackend.deregister_image

    def register(self: EC2Response) -> ActionResult:
        asked = _asked(self)
        backend = self.ec2_backend
        if "Name" not in asked:
            raise MissingParameterError("name")
        if asked["Name"] in [image.name for image in backend.amis.values()]:
            raise EC2ClientError("InvalidAMIName.Duplicate", f"AMI name {asked['Name']} is already in use")
        root = asked.get("RootDeviceName", ROOT)
        mappings = [_mapping(backend, disks, one, root) for one in asked.get("BlockDeviceMappings", [])]
        if root not in [one["DeviceName"] for one in mappings if "SnapshotId" in one.get("Ebs", {})]:
            words = f"No snapshot is mapped to the root device {root}"
            raise EC2ClientError("InvalidBlockDeviceMapping", words)
        self.error_on_dryrun()
        image = Image(backend, random_ami_id(), asked, mappings)
        backend.amis[image.id] = image
        image.add_tags(self._parse_tag_specification().get("image", {}))
        return ActionResult({"ImageId": image.id})

    def deregister(self: Any, ami_id: str) -> None:
        deregister_image(self, ami_id)
        self.tags.pop(ami_id, None)

    EC2Response.register_image = register
    AmiBackend.deregister_image = deregister
    _teach_instances()


def _asked(response: EC2Response) -> dict[str, Any]:
    """Checked against the model, which the SDK does not do with values."""
    from botocore.session import get_session

    shape: Any = get_session().get_service_model("ec2").operation_model("RegisterImage").input_shape
    asked = dict(response.params)
    for name, value in asked.items():
        allowed = getattr(shape.members[name], "enum", None)
        if allowed and value not in allowed:
            raise InvalidParameterValueError(value)
    return asked


def _mapping(backend: Any, disks: Disks, given: Mapping[str, Any], root: str) -> dict[str, Any]:
    if "Ebs" not in given:
        return dict(given)
    ebs = dict(given["Ebs"])
    if "SnapshotId" in ebs:
        name = ebs["SnapshotId"]
        if name not in backend.snapshots:
            raise InvalidSnapshotIdError()
        stored, snapshot = disks.snapshots[name], backend.snapshots[name]
        if stored.state != "completed":
            raise EC2ClientError("IncorrectState", f"Snapshot {name} is {stored.state}")
        if ebs.setdefault("VolumeSize", stored.size) < stored.size:
            words = f"Volume of size {ebs['VolumeSize']}GB is smaller than snapshot '{name}'"
            raise EC2ClientError("InvalidBlockDeviceMapping", words)
        if ebs.get("Encrypted", snapshot.encrypted) != snapshot.encrypted:
            raise EC2ClientError("InvalidBlockDeviceMapping", f"Encrypted is that of the snapshot {name}")
        ebs["Encrypted"] = snapshot.encrypted
    elif "VolumeSize" not in ebs:
        raise MissingParameterError("size or snapshotId")
    ebs.setdefault("DeleteOnTermination", given.get("DeviceName") == root)
    ebs.setdefault("VolumeType", "gp2")
    return {**given, "Ebs": ebs}


def _teach_instances() -> None:
    run_instances = EC2Response.run_instances
    answered: dict[str, tuple[dict[str, Any], ActionResult]] = {}  # by the client's token

    def run(self: EC2Response) -> ActionResult:
        token = self.params.get("ClientToken", "")
        asked = {name: value for name, value in self.params.items() if name != "ClientToken"}
        if token in answered:
            before, made = answered[token]
            if before != asked:
                raise EC2ClientError("IdempotentParameterMismatch", "The token was used with other parameters")
            return made
        image = self.ec2_backend.amis.get(asked.get("ImageId"))
        if image is None:
            raise InvalidAMIIdError(asked.get("ImageId", ""))
        _check_type(image, asked.get("InstanceType", "m1.small"))
        self.params["BlockDeviceMappings"] = _merged(image, asked.get("BlockDeviceMappings", []))
        answer: Any = run_instances(self)
        for instance in answer.result.instances:
            instance.boot_mode = image.boot_mode
            instance.ena_support = image.ena_support
            instance.root_device_name = image.root_device_name
        if token:
            answered[token] = (asked, answer)
        return answer

    EC2Response.run_instances = run


def _check_type(image: Image, name: str) -> None:
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/errors-overview.html, InvalidParameterCombination"""
    if name not in INSTANCE_TYPES:
        raise EC2ClientError("InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")
    known = INSTANCE_TYPES[name]
    if image.architecture not in known["ProcessorInfo"]["SupportedArchitectures"]:
        words = f"The architecture '{image.architecture}' of the specified AMI does not match that of {name}."
        raise EC2ClientError("InvalidParameterValue", words)
    if image.virtualization_type not in known["SupportedVirtualizationTypes"]:
        words = f"Virtualization type '{image.virtualization_type}' is not supported for instances of type '{name}'."
        raise EC2ClientError("InvalidParameterCombination", words)
    if image.boot_mode not in (None, "uefi-preferred", *known.get("SupportedBootModes", ())):
        words = f"The boot mode {image.boot_mode} is not supported for instances of type '{name}'."
        raise EC2ClientError("InvalidParameterCombination", words)
    if known["NetworkInfo"]["EnaSupport"] == "required" and not image.ena_support:
        words = f"Enhanced networking with the Elastic Network Adapter (ENA) is required for '{name}'."
        raise EC2ClientError("InvalidParameterCombination", words)


def _merged(image: Image, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The image's disks, and what the request says of them or adds."""
    merged = {one["DeviceName"]: dict(one) for one in image.block_device_mappings if "Ebs" in one}
    for one in given:
        device = one["DeviceName"]
        if "NoDevice" in one:
            merged.pop(device, None)
        elif "Ebs" in one:
            merged[device] = {"DeviceName": device, "Ebs": {**merged.get(device, {}).get("Ebs", {}), **one["Ebs"]}}
    return list(merged.values())
