# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VM Import/Export: AWS makes a snapshot of an image that lies in S3, by a task.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportSnapshot.html. The task has the tags of the import from
its first moment on; the snapshot that it makes gets none, so that it is known by the task until it is given its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from ..._errors import VmferryError
from ..._transfer.flow import Flow
from ..base import VendorTask
from .asking import every
from .import_hardware import NewDisk
from .import_mark import ImportMark, mark_in
from .import_waits import KNOWN_WITHIN
from .new_snapshot import LONGEST_DESCRIPTION
from .session import Session
from .snapshot_owner import HELD
from .staged_image import StagedPlace
from .tags import DISK, STATE, tag_list, tag_specification, tags_of
from .vendor_task import ENDED_WITHIN, LOOK_EVERY, ROLE_HINT

IMAGE_FORMAT = "VMDK"  # stream-optimized, the only one that AWS takes: what is zero is left out, the rest compressed
KIND = "import-snapshot-task"
COMPLETED = "completed"
_ENDED = (COMPLETED, "deleted", "error", "cancelled")
_FAILED = ("deleting", "deleted", "error", "cancelled")


@dataclass(frozen=True)
class ImportTask:
    """As AWS tells it, for seven days after its end. `snapshot`: '' as long as there is none."""

    id: str
    state: str
    said: str
    progress: str
    snapshot: str
    tags: Mapping[str, str]

    @property
    def mark(self) -> Optional[ImportMark]:
        return mark_in(self.tags)

    @property
    def ended(self) -> bool:
        return self.state in _ENDED


def import_tasks(session: Session, doing: str) -> List[ImportTask]:
    """All that imports of ours began in this region. Nothing says by which filters AWS would look for them."""
    found = [_task(one) for one in every(session, "describe_import_snapshot_tasks", doing, [])]
    return [one for one in found if one.mark is not None]


def request(
    disk: NewDisk, number: int, key: str, place: StagedPlace, wish: VendorTask, tags: Mapping[str, str], token: str
) -> Dict[str, Any]:
    """`key`: below the place. `token`: by which AWS knows a request that it had before."""
    about = f"{disk.spec.id}, imported by vmferry.migrate"[:LONGEST_DESCRIPTION]
    return {
        "ClientToken": f"{token}-{number}",
        "Description": about,
        "DiskContainer": {
            "Description": about,
            "Format": IMAGE_FORMAT,
            "UserBucket": {"S3Bucket": place.bucket, "S3Key": f"{place.prefix}{key}"},
        },
        "RoleName": wish.role,
        "TagSpecifications": [tag_specification(KIND, {**tags, DISK: f"disk-{number}"})],
    }


def start(session: Session, vm: str, asked: Mapping[str, Any]) -> str:
    """Its id."""
    try:
        with session.doing(f"Starting the task to import {vm}"):
            return str(session.client("ec2").import_snapshot(**asked)["ImportTaskId"])
    except VmferryError as error:
        error.hint = error.hint or ROLE_HINT
        raise


def wait_until_completed(
    session: Session,
    flow: Flow,
    vm: str,
    ids: Sequence[str],
    wish: VendorTask,
    done: Callable[[ImportTask], object],
) -> None:
    """`done` is told each as soon as it is known to have ended well. Raises `timeout`, `conflict` where AWS gave one
    up, and what the flow is stopped by. A question that is not answered is asked again."""
    deadline = time.monotonic() + wish.timeout
    doing = f"Waiting for the tasks to import {vm}"
    waiting = set(ids)
    while True:
        unanswered: Optional[VmferryError] = None
        told: Dict[str, ImportTask] = {}
        try:
            told = {one.id: one for one in import_tasks(session, doing) if one.id in waiting}
        except VmferryError as error:
            if not error.retryable:
                raise
            unanswered = error
        for one in told.values():
            if one.state in _FAILED:
                text = f"AWS ended the task {one.id} to import {vm}: {(one.said or 'without a word why').rstrip('.')}."
                raise VmferryError("conflict", text, "See docs/aws_import_tasks.md; method: direct has no such limits.")
            if one.state == COMPLETED and one.snapshot:
                done(one)
                waiting.discard(one.id)
        if not waiting:
            return
        if time.monotonic() >= deadline:
            if unanswered is not None:
                raise unanswered
            raise _too_long(vm, told, waiting, wish)
        flow.sleep(min(wish.poll_interval, max(0.0, deadline - time.monotonic())))


def cancel(session: Session, vm: str, attempt: str, known: Sequence[str] = ()) -> List[ImportTask]:
    """All tasks of an attempt, none of which is under way any more. `known`: those that AWS may not tell of yet."""
    doing = f"Ending the tasks to import {vm}"
    began = time.monotonic()
    asked: set[str] = set()
    while True:
        mine = [one for one in import_tasks(session, doing) if one.mark is not None and one.mark.attempt == attempt]
        told = {one.id for one in mine}
        running = [one.id for one in mine if not one.ended]
        if time.monotonic() < began + KNOWN_WITHIN:
            running += [one for one in known if one not in told]
        if not running:
            return mine
        for task in running:
            if task not in asked:
                asked.add(task)
                _cancel(session, doing, task)
        if time.monotonic() > began + ENDED_WITHIN:
            text = f"The task {running[0]} to import {vm} was cancelled, and has not ended."
            raise VmferryError("timeout", text, "The next import by a task, or job, removes what is left.")
        time.sleep(LOOK_EVERY)  # also where the job was stopped: what is left would cost money


def forget(session: Session, vm: str, tasks: Sequence[ImportTask]) -> None:
    """Nothing of theirs is to be looked for any more."""
    ids = [one.id for one in tasks if one.mark is not None and one.mark.unfinished]
    if ids:
        with session.doing(f"Finishing the tasks that imported {vm}"):
            session.client("ec2").delete_tags(Resources=ids, Tags=[{"Key": STATE}, {"Key": HELD}])


def mark_snapshot(session: Session, task: ImportTask, tags: Mapping[str, str]) -> None:
    with session.doing(f"Marking {task.snapshot}, which the task {task.id} made"):
        asked = tag_list({**tags, DISK: task.tags.get(DISK, "")})
        session.client("ec2").create_tags(Resources=[task.snapshot], Tags=asked)


def _cancel(session: Session, doing: str, task: str) -> None:
    try:
        with session.doing(doing):
            session.client("ec2").cancel_import_task(ImportTaskId=task)
    except VmferryError as error:
        if error.kind not in ("conflict", "not_found"):  # it has just ended
            raise


def _too_long(vm: str, told: Mapping[str, ImportTask], waiting: set[str], wish: VendorTask) -> VmferryError:
    task = min(waiting)
    at = told[task].progress if task in told else ""
    progress = f", but at {at} %" if at else ""
    text = f"The task {task} to import {vm} was not done within {wish.timeout:g} s{progress}."
    return VmferryError("timeout", text, "Give it more time by task_timeout.")


def _task(said: Mapping[str, Any]) -> ImportTask:
    detail = said.get("SnapshotTaskDetail") or {}
    return ImportTask(
        id=str(said["ImportTaskId"]),
        state=str(detail.get("Status", "")),
        said=str(detail.get("StatusMessage", "")),
        progress=str(detail.get("Progress", "")),
        snapshot=str(detail.get("SnapshotId", "")),
        tags=tags_of(said),
    )
