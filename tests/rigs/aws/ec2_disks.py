# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What moto does not know of volumes and snapshots: their blocks, and that a snapshot takes its time; and of starts."""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError, InvalidSnapshotInUse
from moto.ec2.models import ec2_backends
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.models.elastic_block_store import EBSBackend, Snapshot
from moto.ec2.models.instances import Instance
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_snapshot_id

from rigs.aws.blocks import BLOCK, Disks, Stored

NO_VOLUME = "vol-ffffffff"  # of snapshots that were made of no volume

FILTER_VALUES = 200  # that one filter may have


@dataclass(frozen=True)
class Taken:
    """A volume as it was when its snapshot was made."""

    id: str
    size: int  # GiB


class Snapshots:
    """EC2's side of the snapshots that EBS direct makes and reads."""

    def __init__(self, disks: Disks) -> None:
        self._disks = disks

    def has_snapshot(self, region: str, account: str, snapshot: str) -> bool:
        return snapshot in ec2_backends[account][region].snapshots

    def snapshot_started(self, region: str, account: str, stored: Stored, asked: Mapping[str, Any]) -> str:
        """Its id."""
        backend = ec2_backends[account][region]
        encrypted, key = asked.get("Encrypted", False), asked.get("KmsKeyArn")
        if stored.parent:
            parent = backend.snapshots[stored.parent]
            encrypted, key = parent.encrypted, parent.kms_key_id
        if encrypted and not key:
            key = backend.default_kms_key_id or backend._create_default_encryption_key()
        made: Any = Snapshot(
            backend,
            random_snapshot_id(),
            Taken(NO_VOLUME, stored.size),
            asked.get("Description", ""),
            bool(encrypted or key),
            key,
        )
        backend.snapshots[made.id] = made
        made.add_tags({tag["Key"]: tag.get("Value", "") for tag in asked.get("Tags", [])})
        return str(made.id)

    def described(self, region: str, account: str, snapshot: str) -> dict[str, Any]:
        """As StartSnapshot tells it."""
        made = ec2_backends[account][region].snapshots[snapshot]
        return {
            "Description": made.description or None,
            "StartTime": calendar.timegm(made.start_time.timetuple()),
            "Tags": [{"Key": tag["key"], "Value": tag["value"]} for tag in made.get_tags()],
            "KmsKeyArn": made.kms_key_id,
        }


def teach_disks(disks: Disks) -> None:
    _teach_tags()
    _teach_starts()
    _teach_volumes(disks)
    _teach_snapshots(disks)
    _teach_removal(disks)


def _teach_tags() -> None:
    def get_tags(self: Any) -> list[dict[str, str]]:
        """moto compares every tag of the account with a pattern."""
        tags = self.ec2_backend.tags.get(self.id, {})
        return [{"resource_id": self.id, "key": key, "value": value} for key, value in tags.items()]

    TaggedEC2Resource.get_tags = get_tags


def _teach_starts() -> None:
    """An instance tells when it was last launched, which is whenever it is started."""
    start = Instance.start

    def started(self: Any) -> Any:
        self.launch_time = utcnow()
        return start(self)

    Instance.start = started


def _teach_volumes(disks: Disks) -> None:
    create_volume, delete_volume = EBSBackend.create_volume, EBSBackend.delete_volume

    def create(self: Any, size: int, zone_name: str, snapshot_id: str | None = None, *more: Any, **named: Any) -> Any:
        content = {}
        if snapshot_id:
            snapshot, stored = self.get_snapshot(snapshot_id), disks.snapshots[snapshot_id]
            if stored.state != "completed":
                raise EC2ClientError("IncorrectState", f"Snapshot is in invalid state - {stored.state}")
            if size is not None and size < stored.size:
                words = (
                    f"Volume of size {size}GB is smaller than snapshot '{snapshot_id}', expect size>= {stored.size}GB"
                )
                raise EC2ClientError("InvalidParameterValue", words)
            size = size or stored.size
            if snapshot.encrypted:
                named.update(encrypted=True, kms_key_id=named.get("kms_key_id") or snapshot.kms_key_id)
            content = dict(stored.content)
        volume = create_volume(self, size, zone_name, snapshot_id, *more, **named)
        disks.volumes[volume.id] = content
        return volume

    def delete(self: Any, volume_id: str) -> Any:
        volume = delete_volume(self, volume_id)
        disks.volumes.pop(volume_id, None)
        self.tags.pop(volume_id, None)
        return volume

    EBSBackend.create_volume, EBSBackend.delete_volume = create, delete


def _teach_snapshots(disks: Disks) -> None:
    create_snapshot, describe_snapshots = EBSBackend.create_snapshot, EBSBackend.describe_snapshots

    def create(self: Any, volume_id: str, description: str, *more: Any, **named: Any) -> Any:
        volume = self.get_volume(volume_id)
        with disks.lock:
            content = dict(disks.volumes[volume_id])
        snapshot = create_snapshot(self, volume_id, description, *more, **named)
        snapshot.volume, snapshot.kms_key_id = Taken(volume.id, volume.size), volume.kms_key_id
        stored = Stored(volume.size, content, volume.id, self.account_id, polls=disks.polls)
        disks.snapshots[snapshot.id] = stored
        return snapshot

    def describe(self: Any, snapshot_ids: list[str] | None = None, filters: Any = None) -> Any:
        if any(len(values) > FILTER_VALUES for values in (filters or {}).values()):
            words = f"The maximum number of filter values specified on a single call is {FILTER_VALUES}"
            raise EC2ClientError("FilterLimitExceeded", words)
        found = describe_snapshots(self, snapshot_ids)
        for snapshot in found:
            stored = disks.snapshots[snapshot.id]
            if not stored.open and stored.polls > 0:
                stored.polls -= 1
        return describe_snapshots(self, snapshot_ids, filters)

    def create_set(self: Any) -> ActionResult:
        """Of all volumes at one moment; moto knows not all that may be asked."""
        given = self._get_param("InstanceSpecification", {})
        tags = self._parse_tag_specification().get("snapshot", {})
        backend = self.ec2_backend
        instance = backend.get_instance(given["InstanceId"])
        self.error_on_dryrun()
        volumes = [
            block.volume_id
            for device, block in instance.get_block_device_mapping
            if not (given.get("ExcludeBootVolume") and device == instance.root_device_name)
            and block.volume_id not in given.get("ExcludeDataVolumeIds", ())
        ]
        made = []
        with disks.lock:
            for volume in volumes:
                snapshot = backend.create_snapshot(volume, self._get_param("Description", ""))
                if self._get_param("CopyTagsFromSource") == "volume":
                    snapshot.add_tags(dict(backend.tags.get(volume, {})))
                snapshot.add_tags(tags)
                made.append(snapshot)
        return ActionResult({"Snapshots": made})

    def state(self: Any) -> str:
        return disks.snapshots[self.id].state if self.id in disks.snapshots else "pending"

    def ignored(self: Any, _value: str) -> None:
        """moto sets it to completed."""

    EBSBackend.create_snapshot, EBSBackend.describe_snapshots = create, describe
    EC2Response.create_snapshots = create_set
    Snapshot.status = property(state, ignored)
    Snapshot.state = property(state)
    Snapshot.full_snapshot_size_in_bytes = property(lambda self: len(disks.snapshots[self.id].content) * BLOCK)
    Snapshot.progress = property(lambda self: "100%" if state(self) == "completed" else "0%")


def _teach_removal(disks: Disks) -> None:
    delete_snapshot = EBSBackend.delete_snapshot

    def delete(self: Any, snapshot_id: str) -> Any:
        for image in self.amis.values():
            if snapshot_id in [one.get("Ebs", {}).get("SnapshotId") for one in image.block_device_mappings]:
                raise InvalidSnapshotInUse(snapshot_id, image.id)
        snapshot = delete_snapshot(self, snapshot_id)
        with disks.lock:
            disks.snapshots.pop(snapshot_id, None)
        self.tags.pop(snapshot_id, None)
        return snapshot

    EBSBackend.delete_snapshot = delete
