# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VM Import/Export, of which moto knows nothing: tasks that export an AMI's disk to S3, written by QEMU.

What is asked and what is answered is checked against the SDK's own model of EC2.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError, InvalidAMIIdError
from moto.ec2.responses import EC2Response
from moto.moto_api._internal import mock_random
from moto.s3.models import s3_backends

from rigs.aws.blocks import GIB, Content, Disks
from rigs.aws.ec2_model import answer_to, asked_of
from rigs.aws.keys import ACCOUNT

# By what a task asks for: the ending of the file, and QEMU's words. RAW would take as much memory as the disk is long.
_FORMATS = {
    "VMDK": ("vmdk", ("vmdk", "-o", "subformat=streamOptimized")),
    "VHD": ("vhd", ("vpc",)),
}
ENDS = ("completed", "failed", "never")


@dataclass
class Wishes:
    """Of the tasks that begin from now on. `polls`: how often one is told to be active before it ends."""

    polls: int = 1
    ends: str = "completed"
    message: str = ""  # why one failed


@dataclass
class Task:
    id: str
    asked: Mapping[str, Any]
    wishes: Wishes
    state: str = "active"
    polls: int = 0

    def told(self) -> dict[str, Any]:
        asked = self.asked
        said = {
            "ExportImageTaskId": self.id,
            "ImageId": asked["ImageId"],
            "Description": asked.get("Description"),
            "S3ExportLocation": dict(asked["S3ExportLocation"]),
            "Status": self.state,
            "StatusMessage": {"active": "converting", "deleted": self.wishes.message}.get(self.state) or None,
            "Progress": str(min(90, 30 * self.polls)) if self.state == "active" else None,
            "Tags": [tag for one in asked.get("TagSpecifications", []) for tag in one["Tags"]],
        }
        return {name: value for name, value in said.items() if value is not None}


@dataclass
class ExportTasks:
    disks: Disks
    folder: Path
    wishes: Wishes = field(default_factory=Wishes)
    all: dict[str, Task] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def look(self, backend: Any, task: Task) -> None:
        """Each look is a step."""
        if task.state == "deleting":
            task.state = "deleted"
        if task.state != "active" or task.wishes.ends == "never":
            return
        task.polls += 1
        if task.polls > task.wishes.polls:
            if task.wishes.ends == "completed":
                self._write(backend, task)
            task.state = "completed" if task.wishes.ends == "completed" else "deleted"

    def _write(self, backend: Any, task: Task) -> None:
        (mapping,) = backend.amis[task.asked["ImageId"]].block_device_mappings
        stored = self.disks.snapshots[mapping["Ebs"]["SnapshotId"]]
        place, kind = task.asked["S3ExportLocation"], task.asked["DiskImageFormat"]
        where = (place["S3Bucket"], f"{place.get('S3Prefix', '')}{task.id}")
        self.write(stored.content, stored.size, kind, *where)

    def write(self, content: Content, size: int, kind: str, bucket: str, stem: str) -> str:
        """The key of the object. `size`: GiB; `stem`: the key without its ending."""
        ending, words = _FORMATS[kind]
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            raw, image = Path(scratch) / "disk", Path(scratch) / "image"
            with raw.open("wb") as file:
                for index, block in content.items():
                    file.seek(index * (512 << 10))
                    file.write(self.disks.blocks.read(block))
                file.truncate(size * GIB)
            command = ["qemu-img", "convert", "-f", "raw", "-O", *words, str(raw), str(image)]
            subprocess.run(command, check=True, capture_output=True)
            s3_backends[ACCOUNT]["aws"].put_object(bucket, f"{stem}.{ending}", image.read_bytes())
        return f"{stem}.{ending}"


def teach_export_tasks(tasks: ExportTasks) -> None:
    def export_image(self: EC2Response) -> ActionResult:
        asked = asked_of(self, "ExportImage")
        with tasks.lock:
            for task in tasks.all.values():
                if asked.get("ClientToken") and task.asked.get("ClientToken") == asked["ClientToken"]:
                    return answer_to("ExportImage", {**task.told(), "DiskImageFormat": asked["DiskImageFormat"]})
            self.error_on_dryrun()
            _check(self.ec2_backend, asked)
            task = Task(f"export-ami-{mock_random.get_random_hex(17)}", asked, tasks.wishes)
            tasks.all[task.id] = task
            return answer_to("ExportImage", {**task.told(), "DiskImageFormat": asked["DiskImageFormat"]})

    def describe(self: EC2Response) -> ActionResult:
        asked = asked_of(self, "DescribeExportImageTasks")
        assert not asked.get("Filters"), "the rig knows no filters of tasks"
        wanted = asked.get("ExportImageTaskIds")
        with tasks.lock:
            if missing := [one for one in wanted or () if one not in tasks.all]:
                words = f"The export task ID {missing[0]} does not exist"
                raise EC2ClientError("InvalidExportTaskID.NotFound", words)
            found = [task for task in tasks.all.values() if wanted is None or task.id in wanted]
            for task in found:
                tasks.look(self.ec2_backend, task)
            return answer_to("DescribeExportImageTasks", {"ExportImageTasks": [task.told() for task in found]})

    def cancel(self: EC2Response) -> ActionResult:
        asked = asked_of(self, "CancelExportTask")
        with tasks.lock:
            task = tasks.all.get(asked["ExportTaskId"])
            if task is None:
                raise EC2ClientError("InvalidExportTaskID.NotFound", f"There is no {asked['ExportTaskId']}")
            if task.state != "active":
                raise EC2ClientError("IncorrectState", f"The export task is {task.state}")
            task.state = "deleting"
        return ActionResult({})

    EC2Response.export_image = export_image
    EC2Response.describe_export_image_tasks = describe
    EC2Response.cancel_export_task = cancel


def _check(backend: Any, asked: Mapping[str, Any]) -> None:
    """https://docs.aws.amazon.com/vm-import/latest/userguide/limits-image-export.html"""
    image = backend.amis.get(asked["ImageId"])
    if image is None:
        raise InvalidAMIIdError(asked["ImageId"])
    mapped = [one["Ebs"] for one in image.block_device_mappings if "Ebs" in one]
    assert len(mapped) == 1, "the rig does not know what AWS calls the files of several disks"
    if any(backend.snapshots[one["SnapshotId"]].encrypted for one in mapped):
        raise EC2ClientError("NotExportable", f"{image.id} has encrypted snapshots")
    bucket = asked["S3ExportLocation"]["S3Bucket"]
    if bucket not in s3_backends[ACCOUNT]["aws"].buckets:
        raise EC2ClientError("InvalidParameter", f"The bucket {bucket} does not exist")
