# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VM Import/Export, of which moto knows nothing: tasks that make a snapshot of an image in S3, read by QEMU.

What is asked and what is answered is checked against the SDK's own model of EC2. As with AWS, a task's tags are its
own: the snapshot that it makes has none.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response
from moto.moto_api._internal import mock_random
from moto.s3.models import s3_backends

from rigs.aws.blocks import GIB, Disks, Stored
from rigs.aws.ec2_disks import Snapshots
from rigs.aws.ec2_model import answer_to, asked_of
from rigs.aws.export_tasks import Wishes
from rigs.aws.keys import ACCOUNT, REGION

_QEMU = {"VMDK": "vmdk", "VHD": "vpc", "RAW": "raw"}
TASK = "import-snap-"


@dataclass
class Task:
    id: str
    asked: Mapping[str, Any]
    wishes: Wishes
    tags: dict[str, str]
    state: str = "active"
    polls: int = 0
    snapshot: str = ""
    size: float = 0.0  # GiB

    def told(self) -> dict[str, Any]:
        container = self.asked["DiskContainer"]
        detail = {
            "Description": container.get("Description"),
            "DiskImageSize": self.size or None,
            "Encrypted": self.asked.get("Encrypted"),
            "Format": container.get("Format"),
            "KmsKeyId": self.asked.get("KmsKeyId"),
            "Progress": str(min(90, 30 * self.polls)) if self.state == "active" else None,
            "SnapshotId": self.snapshot or None,
            "Status": self.state,
            "StatusMessage": {"active": "downloading/converting", "deleted": self.wishes.message}.get(self.state),
            "UserBucket": dict(container["UserBucket"]),
        }
        return {
            "ImportTaskId": self.id,
            "Description": self.asked.get("Description", ""),
            "SnapshotTaskDetail": {name: value for name, value in detail.items() if value is not None},
            "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
        }


@dataclass
class ImportTasks:
    disks: Disks
    folder: Path
    wishes: Wishes = field(default_factory=Wishes)
    all: dict[str, Task] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def look(self, task: Task) -> None:
        """Each look is a step."""
        if task.state == "deleting":
            task.state = "deleted"
        if task.state != "active" or task.wishes.ends == "never":
            return
        task.polls += 1
        if task.polls > task.wishes.polls:
            if task.wishes.ends == "completed":
                self._read(task)
            task.state = "completed" if task.wishes.ends == "completed" else "deleted"

    def _read(self, task: Task) -> None:
        container = task.asked["DiskContainer"]
        place, kind = container["UserBucket"], container["Format"]
        stored = s3_backends[ACCOUNT]["aws"].get_object(place["S3Bucket"], place["S3Key"])
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            image, raw = Path(scratch) / "image", Path(scratch) / "disk"
            image.write_bytes(stored.value)
            told = subprocess.run(
                ["qemu-img", "info", "--output=json", "-f", _QEMU[kind], str(image)], check=True, capture_output=True
            )
            about = json.loads(told.stdout).get("format-specific", {}).get("data", {})
            assert kind != "VMDK" or about["create-type"] == "streamOptimized", "AWS takes no other VMDK"
            command = ["qemu-img", "convert", "-f", _QEMU[kind], "-O", "raw", str(image), str(raw)]
            subprocess.run(command, check=True, capture_output=True)
            length, content = raw.stat().st_size, self.disks.blocks.load(raw)
        task.size = -(-length // GIB)
        made = Stored(int(task.size), content, task.id, ACCOUNT)
        asked = {
            "Description": f"Created by AWS-VMImport service for {task.id}",
            "Encrypted": task.asked.get("Encrypted", False),
            "KmsKeyArn": task.asked.get("KmsKeyId"),
        }
        task.snapshot = Snapshots(self.disks).snapshot_started(REGION, ACCOUNT, made, asked)
        self.disks.snapshots[task.snapshot] = made


def teach_import_tasks(tasks: ImportTasks) -> None:
    def import_snapshot(self: EC2Response) -> ActionResult:
        asked = asked_of(self, "ImportSnapshot")
        with tasks.lock:
            for task in tasks.all.values():
                if asked.get("ClientToken") and task.asked.get("ClientToken") == asked["ClientToken"]:
                    return answer_to("ImportSnapshot", task.told())
            self.error_on_dryrun()
            _check(asked)
            specified = asked.get("TagSpecifications", [])
            if [one for one in specified if one["ResourceType"] != "import-snapshot-task"]:
                raise EC2ClientError("InvalidParameterValue", "A task of this kind is all that can be tagged")
            tags = {tag["Key"]: tag["Value"] for one in specified for tag in one["Tags"]}
            task = Task(f"{TASK}{mock_random.get_random_hex(17)}", asked, tasks.wishes, tags)
            tasks.all[task.id] = task
            return answer_to("ImportSnapshot", task.told())

    def describe(self: EC2Response) -> ActionResult:
        asked = asked_of(self, "DescribeImportSnapshotTasks")
        assert not asked.get("Filters"), "nothing says which filters there are"
        wanted = asked.get("ImportTaskIds")
        with tasks.lock:
            found = [task for task in tasks.all.values() if wanted is None or task.id in wanted]
            for task in found:
                tasks.look(task)
            told = {"ImportSnapshotTasks": [task.told() for task in found]}
            return answer_to("DescribeImportSnapshotTasks", told)

    def cancel(self: EC2Response) -> ActionResult:
        asked = asked_of(self, "CancelImportTask")
        with tasks.lock:
            task = tasks.all.get(asked["ImportTaskId"])
            if task is None:
                raise EC2ClientError("InvalidConversionTaskId", f"There is no {asked['ImportTaskId']}")
            if task.state != "active":
                raise EC2ClientError("IncorrectState", f"The import task is {task.state}")
            task.state = "deleting"
            told = {"ImportTaskId": task.id, "PreviousState": "active", "State": "deleting"}
            return answer_to("CancelImportTask", told)

    EC2Response.import_snapshot = import_snapshot
    EC2Response.describe_import_snapshot_tasks = describe
    EC2Response.cancel_import_task = cancel
    _teach_tags(tasks)


def _teach_tags(tasks: ImportTasks) -> None:
    """moto knows no such resources."""

    def taught(change: Any, write: Any) -> Any:
        def act(self: EC2Response) -> ActionResult:
            named = self.params.get("Resources", [])
            with tasks.lock:
                for task in [tasks.all[one] for one in named if one.startswith(TASK)]:
                    write(task.tags, self.params.get("Tags", []))
            self.params["Resources"] = [one for one in named if not one.startswith(TASK)]
            return ActionResult({}) if named and not self.params["Resources"] else change(self)

        return act

    def add(tags: dict[str, str], given: list[Any]) -> None:
        tags.update({one["Key"]: one["Value"] for one in given})

    def drop(tags: dict[str, str], given: list[Any]) -> None:
        for one in given:
            if one.get("Value", tags.get(one["Key"])) == tags.get(one["Key"]):
                tags.pop(one["Key"], None)

    EC2Response.create_tags = taught(EC2Response.create_tags, add)
    EC2Response.delete_tags = taught(EC2Response.delete_tags, drop)


def _check(asked: Mapping[str, Any]) -> None:
    """https://docs.aws.amazon.com/vm-import/latest/userguide/vmimport-import-snapshot.html"""
    container = asked["DiskContainer"]
    if container.get("Format") not in _QEMU:
        raise EC2ClientError("InvalidParameter", "Parameter disk-image-size=0 has an invalid format")
    if asked.get("KmsKeyId") and not asked.get("Encrypted"):
        raise EC2ClientError("InvalidParameterCombination", "KmsKeyId goes with Encrypted")
    place = container["UserBucket"]
    buckets = s3_backends[ACCOUNT]["aws"].buckets
    if place["S3Bucket"] not in buckets or place["S3Key"] not in buckets[place["S3Bucket"]].keys:
        raise EC2ClientError("InvalidParameter", "Invalid S3 source location")
    if buckets[place["S3Bucket"]].region_name != REGION:
        raise EC2ClientError("InvalidParameter", "The given S3 bucket is not local to the Region")
