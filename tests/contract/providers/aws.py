# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider `aws`, on an account of the rig; what people do there is done with AWS's own client."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec
from rigs.aws import AwsServer
from rigs.aws.blocks import BLOCK, GIB
from rigs.ports import free_port

from .base import Abilities, Broken, Driver, Fate, Power


class AwsDriver(Driver):
    name = "aws"
    sources = "plugins/module_utils/_providers/aws"
    guests_decide = False  # AWS cuts the power of one that does not hear
    abilities = Abilities(
        live=True,
        powered_off=True,
        tracking=True,
        snapshots=True,
        reverts=False,
        imports=True,
        power=True,
        removal=True,
    )
    failpoints: ClassVar[Mapping[str, Mapping[str, Fate]]] = {
        **{
            power: {"snapshots_begun": "undone", "snapshots_made": "undone", "snapshots_unneeded": "whole"}
            for power in ("on", "off")
        },
        "import": {
            "snapshot_begun": "undone",
            "snapshots_completed": "undone",
            "image_registered": "undone",
            "instance_made": "undone",
            "instance_finished": "whole",
        },
    }
    apart = True
    granule = BLOCK

    def __init__(self, server: AwsServer) -> None:
        self._server = server
        self._prefix = f"contract-{secrets.token_hex(4)}"
        self._made: dict[str, str] = {}  # ids by name

    @classmethod
    def started(cls, fixture: Callable[[str], Any], folder: Path) -> AwsDriver:
        return cls(fixture("aws_server"))

    def close(self) -> None:
        """With all that exports and imports left."""
        left = self._server.leftovers()
        self._server.terminate(*self._made.values(), *left.instances)
        for image in left.images:
            self._server.ec2.deregister_image(ImageId=image)
        for snapshot in left.snapshots:
            self._server.ec2.delete_snapshot(SnapshotId=snapshot)

    @property
    def spec(self) -> ProviderSpec:
        return ProviderSpec("aws", self._server.settings())

    @property
    def broken(self) -> Broken:
        nowhere = f"http://127.0.0.1:{free_port()}"
        return Broken(ProviderSpec("aws", {**self._server.settings(), "endpoint_url": nowhere}), "network")

    def with_secrets(self, fixture: Callable[[str], Any], data: bytes) -> tuple[str, ProviderSpec, Sequence[str]]:
        return self.make_vm(data), self.spec, [self._server.settings()["secret_key"]]

    def size_of(self, size: int) -> int:
        return -(-size // GIB) * GIB

    def make_vm(self, *disks: bytes, power: Power = "off") -> str:
        name = f"{self._prefix}-{len(self._made)}"
        self._made[name] = self._server.make_instance(name, disks, running=power == "on")
        return name

    def power(self, vm: str, power: Power) -> None:
        change = self._server.ec2.start_instances if power == "on" else self._server.ec2.stop_instances
        change(InstanceIds=[self._id(vm)])

    def is_on(self, vm: str) -> bool:
        return bool(self._instance(vm)["State"]["Name"] == "running")

    def write(self, vm: str, disk: int, offset: int, data: bytes) -> None:
        self._server.write(self._volumes(vm)[disk], offset, data)

    def zero(self, vm: str, disk: int, offset: int, length: int) -> None:
        self.write(vm, disk, offset, bytes(length))

    def discard(self, vm: str, disk: int, offset: int, length: int) -> None:
        self._server.discard(self._volumes(vm)[disk], offset, length)

    def read(self, vm: str, disk: int) -> bytes:
        return self._server.volume_bytes(self._volumes(vm)[disk])

    def add_disk(self, vm: str, data: bytes) -> None:
        ec2, zone = self._server.ec2, f"{self._server.region}a"
        volume = ec2.create_volume(Size=self.size_of(len(data)) // GIB, AvailabilityZone=zone)["VolumeId"]
        self._server.load(volume, data)
        ec2.attach_volume(
            VolumeId=volume, InstanceId=self._id(vm), Device=f"/dev/sd{chr(ord('a') + len(self._volumes(vm)))}"
        )

    def remove_disk(self, vm: str) -> None:
        last = self._volumes(vm)[-1]
        self._server.ec2.detach_volume(VolumeId=last, InstanceId=self._id(vm))
        self._server.ec2.delete_volume(VolumeId=last)

    def grow(self, vm: str, disk: int, size: int) -> None:
        self._server.ec2.modify_volume(VolumeId=self._volumes(vm)[disk], Size=self.size_of(size) // GIB)

    def lose_tracking(self, vm: str) -> None:
        """Snapshots are removed by many a cleaner that knows no tags."""
        for snapshot, tags in self._server.leftovers().snapshots.items():
            if tags["vmferry:vm"] == self._id(vm):
                self._server.ec2.delete_snapshot(SnapshotId=snapshot)

    def leftovers(self, vm: str, tokens: Set[str]) -> Iterator[str]:
        left = self._server.leftovers()
        for snapshot, tags in left.snapshots.items():
            name = f"vmferry-{tags.get('vmferry:chain')}-{tags.get('vmferry:attempt')}"
            mine = tags.get("vmferry:vm") == self._id(vm)
            if mine and (tags.get("vmferry:state"), name in tokens) != ("token", True):
                yield f"the snapshot {snapshot} is there: {dict(tags)}"

    @property
    def wrong_name(self) -> str:
        return "back" * 100

    @property
    def other_hardware(self) -> tuple[Mapping[str, Any], int, int]:
        """Machines are bought by type."""
        return {"instance_type": "t3.small"}, 2, 2048

    @property
    def wrong_placements(self) -> Sequence[tuple[Mapping[str, Any], Kind, str]]:
        return (
            ({"instance_type": "t9.micro"}, "not_found", "t9.micro"),
            ({"subnet_id": "subnet-0123456789abcdef0"}, "not_found", "subnet-0123456789abcdef0"),
            ({"folder": "Nowhere"}, "unsupported", "folder"),
        )

    def left_of_imports(self) -> Iterator[str]:
        left = self._server.leftovers()
        for things in (left.snapshots, left.images, left.volumes, left.instances):
            for name, tags in things.items():
                if "vmferry:import" in tags:
                    yield f"{name} is there: {dict(tags)}"

    def remove_vm(self, vm: str) -> None:
        self._server.terminate(self._id(vm))

    def _id(self, vm: str) -> str:
        return self._made.get(vm) or str(self._instance(vm)["InstanceId"])

    def _instance(self, vm: str) -> Any:
        named = [{"Name": "tag:Name", "Values": [vm]}]
        states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
        ((found,),) = [
            one["Instances"] for one in self._server.ec2.describe_instances(Filters=named + states)["Reservations"]
        ]
        return found

    def _volumes(self, vm: str) -> list[str]:
        return list(self._server.volumes(self._id(vm)).values())
