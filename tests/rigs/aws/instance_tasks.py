# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VM Import/Export, of which moto knows nothing: tasks that export an instance to S3, written by QEMU.

What is asked and what is answered is checked against the SDK's own model of EC2. They begin, fail and end as those that
export images do; the instance is taken as it is when its task begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response
from moto.moto_api._internal import mock_random
from moto.s3.models import s3_backends

from rigs.aws.blocks import Content
from rigs.aws.ec2_model import answer_to, asked_of
from rigs.aws.export_tasks import ExportTasks, Wishes
from rigs.aws.keys import ACCOUNT

TASK = "export-i-"


@dataclass
class InstanceTask:
    id: str
    asked: Mapping[str, Any]
    wishes: Wishes
    content: Content
    size: int  # GiB
    state: str = "active"
    polls: int = 0

    @property
    def stem(self) -> str:
        return f"{self.asked['ExportToS3Task'].get('S3Prefix', '')}{self.id}"

    def told(self) -> dict[str, Any]:
        place = self.asked["ExportToS3Task"]
        return {
            "ExportTaskId": self.id,
            "Description": self.asked.get("Description", ""),
            "ExportToS3Task": {
                "DiskImageFormat": place["DiskImageFormat"],
                "S3Bucket": place["S3Bucket"],
                "S3Key": f"{self.stem}.{place['DiskImageFormat'].lower()}",
            },
            "InstanceExportDetails": {
                "InstanceId": self.asked["InstanceId"],
                "TargetEnvironment": self.asked["TargetEnvironment"],
            },
            "State": self.state,
            "StatusMessage": self.wishes.message if self.state == "cancelled" else "",
            "Tags": [tag for one in self.asked.get("TagSpecifications", []) for tag in one["Tags"]],
        }


@dataclass
class InstanceTasks:
    """`exports`: whose wishes and lock are those of these, too."""

    exports: ExportTasks
    all: dict[str, InstanceTask] = field(default_factory=dict)

    def look(self, task: InstanceTask) -> None:
        """Each look is a step."""
        if task.state == "cancelling":
            task.state = "cancelled"
        if task.state != "active" or task.wishes.ends == "never":
            return
        task.polls += 1
        if task.polls > task.wishes.polls:
            place = task.asked["ExportToS3Task"]
            if task.wishes.ends == "completed":
                self.exports.write(task.content, task.size, place["DiskImageFormat"], place["S3Bucket"], task.stem)
            task.state = "completed" if task.wishes.ends == "completed" else "cancelled"


def teach_instance_tasks(tasks: InstanceTasks) -> None:
    cancel_others = EC2Response.cancel_export_task

    def create(self: EC2Response) -> ActionResult:
        asked = asked_of(self, "CreateInstanceExportTask")
        backend = self.ec2_backend
        instance = backend.get_instance(asked["InstanceId"])
        _check(instance, asked)
        (device,) = instance.block_device_mapping.values()
        with tasks.exports.lock:
            content = dict(tasks.exports.disks.volumes[device.volume_id])
            made = InstanceTask(
                f"{TASK}{mock_random.get_random_hex(17)}",
                asked,
                tasks.exports.wishes,
                content,
                backend.get_volume(device.volume_id).size,
            )
            tasks.all[made.id] = made
            return answer_to("CreateInstanceExportTask", {"ExportTask": made.told()})

    def describe(self: EC2Response) -> ActionResult:
        asked = asked_of(self, "DescribeExportTasks")
        assert not asked.get("Filters"), "the rig knows no filters of tasks"
        wanted = asked.get("ExportTaskIds")
        with tasks.exports.lock:
            if missing := [one for one in wanted or () if one not in tasks.all]:
                words = f"The export task ID {missing[0]} does not exist"
                raise EC2ClientError("InvalidExportTaskID.NotFound", words)
            found = [task for task in tasks.all.values() if wanted is None or task.id in wanted]
            for task in found:
                tasks.look(task)
            return answer_to("DescribeExportTasks", {"ExportTasks": [task.told() for task in found]})

    def cancel(self: EC2Response) -> ActionResult:
        named = self.params.get("ExportTaskId", "")
        if not named.startswith(TASK):
            answer: ActionResult = cancel_others(self)
            return answer
        with tasks.exports.lock:
            task = tasks.all.get(named)
            if task is None:
                raise EC2ClientError("InvalidExportTaskID.NotFound", f"There is no {named}")
            if task.state != "active":
                raise EC2ClientError("IncorrectState", f"The export task is {task.state}")
            task.state = "cancelling"
        return ActionResult({})

    EC2Response.create_instance_export_task = create
    EC2Response.describe_export_tasks = describe
    EC2Response.cancel_export_task = cancel


def _check(instance: Any, asked: Mapping[str, Any]) -> None:
    """https://docs.aws.amazon.com/vm-import/latest/userguide/vmexport-limits.html"""
    if len(instance.block_device_mapping) != 1:
        raise EC2ClientError("UnsupportedOperation", "This instance has multiple volumes attached.")
    if len(instance.nics) != 1:
        raise EC2ClientError("NotExportable", "This instance cannot be exported.")
    name = asked["ExportToS3Task"]["S3Bucket"]
    bucket = s3_backends[ACCOUNT]["aws"].buckets.get(name)
    if bucket is None:
        raise EC2ClientError("InvalidParameter", f"The bucket {name} does not exist")
    granted = {one for grant in (bucket.acl.grants if bucket.acl else []) for one in grant.permissions}
    if not granted >= {"WRITE", "READ_ACP"}:
        raise EC2ClientError("AuthFailure", f"vm-import-export@amazon.com must have WRITE and READ_ACP on {name}")
