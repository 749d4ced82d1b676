# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VM Import/Export: AWS itself writes the image of an AMI to S3, or that of an instance.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ExportImage.html and API_CreateInstanceExportTask.html
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Sequence

from ..._errors import VmferryError
from ..._transfer.flow import Flow
from ..base import VendorTask
from ..spec import DiskSpec, VmSpec
from .asking import every, of
from .session import Session
from .staged_image import StagedPlace
from .tags import ATTEMPT, TASK, tag_specification

IMAGE_FORMAT = "VMDK"  # stream-optimized: what was never written is left out, and the rest is compressed
COMPLETED = "completed"
UNDER_WAY = ("active", "deleting", "cancelling")
_FAILED = ("deleting", "deleted", "cancelling", "cancelled")
ENDED_WITHIN = 300.0  # seconds in which a task that is cancelled is over
LOOK_EVERY = 2.0
_ARCHITECTURES = {"aarch64": "arm64", "i686": "i386"}
ROLE_HINT = (
    "If the role for VM Import/Export is not called vmimport, name it in task_role. It has to be allowed to use the "
    "bucket: https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html"
)


@dataclass(frozen=True)
class TaskKind:
    """How EC2 calls what belongs to a task. `writes_to`: of one as EC2 tells it."""

    operation: str
    ids: str  # the parameter
    listed: str
    id: str
    state: str
    writes_to: Callable[[Mapping[str, Any], StagedPlace], bool]


def _image_writes_to(task: Mapping[str, Any], place: StagedPlace) -> bool:
    where = task.get("S3ExportLocation") or {}
    return (where.get("S3Bucket"), where.get("S3Prefix")) == (place.bucket, place.prefix)


def _instance_writes_to(task: Mapping[str, Any], place: StagedPlace) -> bool:
    where = task.get("ExportToS3Task") or {}
    return where.get("S3Bucket") == place.bucket and str(where.get("S3Key", "")).startswith(place.prefix)


OF_IMAGE = TaskKind(
    "describe_export_image_tasks",
    "ExportImageTaskIds",
    "ExportImageTasks",
    "ExportImageTaskId",
    "Status",
    _image_writes_to,
)
OF_INSTANCE = TaskKind(
    "describe_export_tasks", "ExportTaskIds", "ExportTasks", "ExportTaskId", "State", _instance_writes_to
)
INSTANCE = "instance"  # the tag that tells the second one


def kind_told(tags: Mapping[str, str]) -> TaskKind:
    return OF_INSTANCE if tags.get(TASK) == INSTANCE else OF_IMAGE


def register(session: Session, vm: VmSpec, disk: DiskSpec, snapshot: str, tags: Mapping[str, str]) -> str:
    """An AMI of its boot disk alone; its id. Its name is the attempt's own, so that there is one however often it is
    asked for: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RegisterImage.html"""
    name = f"vmferry-export-{tags[ATTEMPT]}"
    boot_mode = vm.details["current_boot_mode"] or vm.details["boot_mode"]
    asked: Dict[str, Any] = {
        "Name": name,
        "Description": f"vmferry export of {vm.name}"[:255],
        "Architecture": _ARCHITECTURES.get(vm.architecture, vm.architecture),
        "VirtualizationType": vm.details["virtualization"] or "hvm",
        "RootDeviceName": disk.name,
        "EnaSupport": vm.details["ena"],
        "BlockDeviceMappings": [{"DeviceName": disk.name, "Ebs": {"SnapshotId": snapshot}}],
        "TagSpecifications": [tag_specification("image", tags)],
    }
    if boot_mode in ("legacy-bios", "uefi"):
        asked["BootMode"] = boot_mode
    try:
        with session.doing(f"Registering the AMI to export {vm.name} by"):
            return str(session.client("ec2").register_image(**asked)["ImageId"])
    except VmferryError:
        made = images(session, tags[ATTEMPT], f"Looking for the AMI to export {vm.name} by")
        if not made:
            raise
        return made[0]  # its answer was lost


def images(session: Session, attempt: str, doing: str) -> List[str]:
    """Ids of the AMIs of an attempt."""
    found = every(session, "describe_images", doing, [of(f"tag:{ATTEMPT}", [attempt])], Owners=["self"])
    return [str(one["ImageId"]) for one in found]


def start(
    session: Session, vm: VmSpec, image: str, place: StagedPlace, wish: VendorTask, tags: Mapping[str, str]
) -> str:
    """Its id. A request that is sent twice is one task, by its token."""
    try:
        with session.doing(f"Starting the task to export {vm.name}"):
            answer = session.client("ec2").export_image(
                ClientToken=f"vmferry-{tags[ATTEMPT]}",
                Description=f"vmferry export of {vm.name}"[:255],
                DiskImageFormat=IMAGE_FORMAT,
                ImageId=image,
                RoleName=wish.role,
                S3ExportLocation={"S3Bucket": place.bucket, "S3Prefix": place.prefix},
                TagSpecifications=[tag_specification("export-image-task", tags)],
            )
    except VmferryError as error:
        error.hint = error.hint or ROLE_HINT
        raise
    return str(answer["ExportImageTaskId"])


def start_instance(session: Session, vm: VmSpec, place: StagedPlace, tags: Mapping[str, str]) -> str:
    """Its id. No token makes a request one that is sent twice, so that it is looked at what was begun."""
    task, error = "", None
    try:
        with session.doing(f"Starting the task to export {vm.name}"):
            answer = session.client("ec2").create_instance_export_task(
                Description=f"vmferry export of {vm.name}"[:255],
                ExportToS3Task={
                    "DiskImageFormat": IMAGE_FORMAT,
                    "S3Bucket": place.bucket,
                    "S3Prefix": place.prefix,
                },
                InstanceId=vm.id,
                TagSpecifications=[tag_specification("export-instance-task", tags)],
                TargetEnvironment="vmware",  # whose format that is
            )
            task = str(answer["ExportTask"]["ExportTaskId"])
    except VmferryError as refused:
        error = refused
    told = under_way(session, f"Looking at the task to export {vm.name}", OF_INSTANCE)
    begun = {str(one[OF_INSTANCE.id]) for one in told if OF_INSTANCE.writes_to(one, place)} | ({task} - {""})
    if len(begun) > 1:
        raise VmferryError("conflict", f"AWS began {len(begun)} tasks to export {vm.name}.", "Run the task again.")
    if error is not None and not begun:
        raise error
    return next(iter(begun))


def wait_until_completed(
    session: Session, flow: Flow, vm: str, task: str, wish: VendorTask, kind: TaskKind = OF_IMAGE
) -> None:
    """Raises `timeout`, `conflict` where AWS gave it up, and what the flow is stopped by within its sleep. A question
    that is not answered, or whose task is not known yet, is asked again."""
    deadline = time.monotonic() + wish.timeout
    doing = f"Waiting for the task {task} to export {vm}"
    unanswered = None
    while True:
        told: Mapping[str, Any] = {}
        try:
            with session.doing(doing):
                answer = getattr(session.client("ec2"), kind.operation)(**{kind.ids: [task]})
            told, unanswered = next(iter(answer[kind.listed]), {}), None
        except VmferryError as error:
            if not error.retryable and error.kind != "not_found":
                raise
            unanswered = error
        state, said = told.get(kind.state, ""), told.get("StatusMessage") or "without a word why"
        if state == COMPLETED:
            return
        if state in _FAILED:
            text = f"AWS ended the task {task} to export {vm}: {said.rstrip('.')}."
            raise VmferryError("conflict", text, "See docs/aws_export_tasks.md; method: direct has none of its limits.")
        if time.monotonic() >= deadline:
            if unanswered is not None:
                raise unanswered
            text = f"The task {task} to export {vm} was not done within {wish.timeout:g} s"
            progress = f", but at {told['Progress']} %" if told.get("Progress") else ""
            raise VmferryError("timeout", f"{text}{progress}.", "Give it more time by task_timeout.")
        flow.sleep(min(wish.poll_interval, max(0.0, deadline - time.monotonic())))


def under_way(session: Session, doing: str, kind: TaskKind = OF_IMAGE) -> List[Mapping[str, Any]]:
    """All tasks of that kind that the account has in this region, whoever's they are."""
    return [one for one in every(session, kind.operation, doing, []) if one.get(kind.state) in UNDER_WAY]


def end(
    session: Session,
    place: StagedPlace,
    attempt: str,
    vm: str,
    *,
    kind: TaskKind = OF_IMAGE,
    keep_image: bool = False,
) -> None:
    """Nothing of an attempt is left but its snapshots: its task is cancelled, what it wrote is removed once nobody
    writes any more, and its AMI is deregistered. `keep_image`: what was written stays.

    Raises the first error; then the snapshots have to stay, too, whose tags tell where the rest is.
    """
    _cancel(session, place, vm, kind)
    if not keep_image:
        place.clear(session, vm)
    if kind is OF_INSTANCE:
        return
    for image in images(session, attempt, f"Looking for the AMI that {vm} was exported by"):
        try:
            with session.doing(f"Deregistering {image} of {vm}"):
                session.client("ec2").deregister_image(ImageId=image)
        except VmferryError as error:
            if error.kind != "not_found":
                raise


def _cancel(session: Session, place: StagedPlace, vm: str, kind: TaskKind) -> None:
    """Returns once none of the tasks that write there is under way."""
    doing = f"Ending the task to export {vm}"
    deadline = time.monotonic() + ENDED_WITHIN
    asked: set[str] = set()
    while True:
        mine = [one for one in under_way(session, doing, kind) if kind.writes_to(one, place)]
        if not mine:
            return
        for task in _not_ending(mine, asked, kind):
            asked.add(task)
            try:
                with session.doing(doing):
                    session.client("ec2").cancel_export_task(ExportTaskId=task)
            except VmferryError as error:
                if error.kind not in ("conflict", "not_found"):  # it has just ended, or writes its last bytes
                    raise
        if time.monotonic() > deadline:
            text = f"The task {mine[0][kind.id]} to export {vm} was cancelled, and has not ended."
            raise VmferryError("timeout", text, "The next export, or export_cleanup, removes what is left.")
        time.sleep(LOOK_EVERY)  # also where the job was stopped: what is left would cost money


def _not_ending(tasks: Sequence[Mapping[str, Any]], asked: set[str], kind: TaskKind) -> List[str]:
    ids = [str(one[kind.id]) for one in tasks if one[kind.state] == "active"]
    return [one for one in ids if one not in asked]
