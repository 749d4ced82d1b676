# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VM Import/Export: AWS itself writes the image of an AMI to S3.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ExportImage.html
"""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Sequence

from ..._errors import VmferryError
from ..._transfer.flow import Flow
from ..base import VendorTask
from ..spec import DiskSpec, VmSpec
from .asking import every, of
from .session import Session
from .staged_image import StagedPlace
from .tags import ATTEMPT, tag_specification

IMAGE_FORMAT = "VMDK"  # stream-optimized: what was never written is left out, and the rest is compressed
COMPLETED = "completed"
UNDER_WAY = ("active", "deleting")  # other states are `completed` and `deleted`
ENDED_WITHIN = 300.0  # seconds in which a task that is cancelled is over
LOOK_EVERY = 2.0
_ARCHITECTURES = {"aarch64": "arm64", "i686": "i386"}
_ROLE_HINT = (
    "If the role for VM Import/Export is not called vmimport, name it in task_role. It has to be allowed to write to "
    "the bucket: https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html"
)


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
        error.hint = error.hint or _ROLE_HINT
        raise
    return str(answer["ExportImageTaskId"])


def wait_until_completed(session: Session, flow: Flow, vm: str, task: str, wish: VendorTask) -> None:
    """Raises `timeout`, `conflict` where AWS gave it up, and what the flow is stopped by within its sleep. A question
    that is not answered, or whose task is not known yet, is asked again."""
    deadline = time.monotonic() + wish.timeout
    doing = f"Waiting for the task {task} to export {vm}"
    unanswered = None
    while True:
        told: Mapping[str, Any] = {}
        try:
            with session.doing(doing):
                answer = session.client("ec2").describe_export_image_tasks(ExportImageTaskIds=[task])
            told, unanswered = next(iter(answer["ExportImageTasks"]), {}), None
        except VmferryError as error:
            if not error.retryable and error.kind != "not_found":
                raise
            unanswered = error
        state, said = told.get("Status", ""), told.get("StatusMessage") or "without a word why"
        if state == COMPLETED:
            return
        if state in ("deleting", "deleted"):
            text = f"AWS ended the task {task} to export {vm}: {said.rstrip('.')}."
            raise VmferryError("conflict", text, "See docs/aws_export_tasks.md; method: direct has none of its limits.")
        if time.monotonic() >= deadline:
            if unanswered is not None:
                raise unanswered
            text = f"The task {task} to export {vm} was not done within {wish.timeout:g} s"
            progress = f", but at {told['Progress']} %" if told.get("Progress") else ""
            raise VmferryError("timeout", f"{text}{progress}.", "Give it more time by task_timeout.")
        flow.sleep(min(wish.poll_interval, max(0.0, deadline - time.monotonic())))


def under_way(session: Session, doing: str) -> List[Mapping[str, Any]]:
    """All tasks of the account that export images in this region, whoever's they are."""
    found = every(session, "describe_export_image_tasks", doing, [])
    return [one for one in found if one.get("Status") in UNDER_WAY]


def end(session: Session, place: StagedPlace, attempt: str, vm: str, *, keep_image: bool = False) -> None:
    """Nothing of an attempt is left but its snapshots: its task is cancelled, what it wrote is removed once nobody
    writes any more, and its AMI is deregistered. `keep_image`: what was written stays.

    Raises the first error; then the snapshots have to stay, too, whose tags tell where the rest is.
    """
    _cancel(session, place, vm)
    if not keep_image:
        place.clear(session, vm)
    for image in images(session, attempt, f"Looking for the AMI that {vm} was exported by"):
        try:
            with session.doing(f"Deregistering {image} of {vm}"):
                session.client("ec2").deregister_image(ImageId=image)
        except VmferryError as error:
            if error.kind != "not_found":
                raise


def _cancel(session: Session, place: StagedPlace, vm: str) -> None:
    """Returns once none of the tasks that write there is under way."""
    doing = f"Ending the task to export {vm}"
    deadline = time.monotonic() + ENDED_WITHIN
    asked: set[str] = set()
    while True:
        mine = [one for one in under_way(session, doing) if _writes_to(one, place)]
        if not mine:
            return
        for task in _not_ending(mine, asked):
            asked.add(task)
            try:
                with session.doing(doing):
                    session.client("ec2").cancel_export_task(ExportTaskId=task)
            except VmferryError as error:
                if error.kind not in ("conflict", "not_found"):  # it has just ended, or writes its last bytes
                    raise
        if time.monotonic() > deadline:
            text = f"The task {mine[0]['ExportImageTaskId']} to export {vm} was cancelled, and has not ended."
            raise VmferryError("timeout", text, "The next export, or export_cleanup, removes what is left.")
        time.sleep(LOOK_EVERY)  # also where the job was stopped: what is left would cost money


def _not_ending(tasks: Sequence[Mapping[str, Any]], asked: set[str]) -> List[str]:
    ids = [str(one["ExportImageTaskId"]) for one in tasks if one["Status"] != "deleting"]
    return [one for one in ids if one not in asked]


def _writes_to(task: Mapping[str, Any], place: StagedPlace) -> bool:
    where = task.get("S3ExportLocation") or {}
    return (where.get("S3Bucket"), where.get("S3Prefix")) == (place.bucket, place.prefix)
