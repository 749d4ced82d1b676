# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of the volumes of an instance at one moment: made, waited for, tagged, found again and removed.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSnapshots.html. All of a set are of the same moment, as
if the instance had lost its power then. Their data is copied behind that, and can be read once they are `completed`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from ..._errors import VmferryError
from ..spec import DiskSpec, VmSpec
from .asking import every, every_of, of
from .session import Session
from .snapshot_blocks import GIB
from .tags import PREFIX, tag_list, tag_specification, tags_of
from .volumes import iso_second

FIRST_LOOK, LONGEST_PAUSE = 2.0, 15.0  # seconds
STANDSTILL = 6 * 3600.0  # seconds without progress, which is a whole number of percent: 16 TiB of data take a day
APPEARING = 30.0  # seconds in which snapshots may come to light of which nobody heard whether they were made
GONE_AFTER = 120.0  # seconds in which a snapshot that was just made may not be told of yet
IDS_AT_ONCE = 200  # that are tagged in one call


@dataclass(frozen=True)
class EbsSnapshot:
    """`size` in bytes; `key`: of KMS, where it is encrypted."""

    id: str
    volume: str
    size: int
    state: str  # pending, completed, error, recoverable, recovering
    progress: str = ""
    message: str = ""
    key: str = ""
    archived: bool = False
    account: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    started: str = ""  # as `launched` of an instance is told, in UTC
    written: Optional[int] = None  # bytes in blocks that were ever written to; None where nobody says

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> EbsSnapshot:
        """Of EC2's Snapshot or SnapshotInfo."""
        return cls(
            id=told["SnapshotId"],
            volume=told.get("VolumeId", ""),
            size=int(told.get("VolumeSize", 0)) * GIB,
            state=told.get("State", "pending"),
            progress=told.get("Progress", ""),
            message=told.get("StateMessage", ""),
            key=told.get("KmsKeyId", ""),
            archived=told.get("StorageTier", "standard") == "archive",
            account=told.get("OwnerId", ""),
            tags=tags_of(told),
            started=iso_second(told.get("StartTime")),
            written=told.get("FullSnapshotSizeInBytes"),
        )


def make_set(session: Session, vm: VmSpec, disks: Sequence[DiskSpec], tags: Mapping[str, str]) -> List[EbsSnapshot]:
    """Of these of its disks; they are not completed yet. What the task leaves out is not even snapshotted."""
    left_out = [disk for disk in vm.disks if disk.source not in {one.source for one in disks}]
    wanted: Dict[str, Any] = {"InstanceId": vm.id}
    if any(disk.boot for disk in left_out):
        wanted["ExcludeBootVolume"] = True
    others = [disk.source for disk in left_out if not disk.boot]
    if others:
        wanted["ExcludeDataVolumeIds"] = others
    with session.doing(f"Making the snapshots of {vm.name}"):
        answer = session.client("ec2").create_snapshots(
            InstanceSpecification=wanted,
            Description=f"vmferry export of {vm.name}"[:255],
            TagSpecifications=[tag_specification("snapshot", tags)],
        )
    return [EbsSnapshot.of(told) for told in answer["Snapshots"]]


def find(session: Session, doing: str, **filters: Sequence[str]) -> List[EbsSnapshot]:
    """Of this account, by its tags; a keyword is a tag's name behind `vmferry:`. The oldest first."""
    named = [of(f"tag:{PREFIX}{name}", list(values)) for name, values in filters.items()]
    return _described(every(session, "describe_snapshots", doing, named, OwnerIds=["self"]))


def look_at(session: Session, doing: str, ids: Sequence[str]) -> List[EbsSnapshot]:
    """Those of them that are there. A filter, since to ask for one that is gone is an error."""
    return _described(every_of(session, "describe_snapshots", doing, "snapshot-id", ids, OwnerIds=["self"]))


def wait_until_completed(
    session: Session, sleep: Callable[[float], object], ids: Sequence[str], vm: str, within: Optional[float] = None
) -> List[EbsSnapshot]:
    """In their order. `within`: seconds, however they get on; None: as long as they do.

    Raises `timeout` where they stand still, or are late, `conflict` where one is gone or cannot be made, and whatever
    `sleep` raises.
    """
    deadline = None if within is None else time.monotonic() + within
    seen: Dict[str, str] = {}
    moved = all_there = time.monotonic()
    pause = FIRST_LOOK
    while True:
        now = {one.id: one for one in look_at(session, f"Waiting for the snapshots of {vm}", ids)}
        for one in now.values():
            if one.state not in ("pending", "completed"):
                said = f": {one.message}" if one.message else ""
                text = f"The snapshot {one.id} of {vm} became {one.state}{said}."
                hint = "Run it again. If the volume is encrypted, let the credentials use its key of KMS."
                raise VmferryError("conflict", text.replace("..", "."), hint, retryable=True)
        if all(one in now and now[one].state == "completed" for one in ids):
            return [now[one] for one in ids]
        gone = [one for one in ids if one not in now]
        if not gone:
            all_there = time.monotonic()
        elif time.monotonic() - all_there > GONE_AFTER:
            text = f"The snapshot {gone[0]} of {vm} was removed before it was completed."
            raise VmferryError("conflict", text, "Look who removes snapshots of others, and run it again.")
        told = {name: one.progress for name, one in now.items()}
        if told != seen:
            seen, moved = told, time.monotonic()
        if time.monotonic() - moved > STANDSTILL:
            hint = "Look at them in the EC2 console, and run it again. The more was written, the longer they take."
            text = f"The snapshots of {vm} made no progress for {STANDSTILL / 3600:g} hours."
            raise VmferryError("timeout", text, hint)
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                hint = "Give it more time: the first snapshot of a volume takes long, the later ones hold what changed."
                text = f"The snapshots of {vm} were not completed within {within:.0f} s."
                raise VmferryError("timeout", text, hint)
            pause = min(pause, left)
        sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)


def tag(session: Session, doing: str, ids: Sequence[str], tags: Mapping[str, str]) -> None:
    for at in range(0, len(ids), IDS_AT_ONCE):
        with session.doing(doing):
            session.client("ec2").create_tags(Resources=list(ids[at : at + IDS_AT_ONCE]), Tags=tag_list(tags))


def remove(session: Session, ids: Sequence[str], vm: str) -> None:
    """All that can be; raises the first error behind that. What is gone already is none. Of one that is pending, AWS
    sees to it that it goes once it is completed."""
    failed = None
    for one in ids:
        try:
            with session.doing(f"Removing the snapshot {one} of {vm}"):
                session.client("ec2").delete_snapshot(SnapshotId=one)
        except VmferryError as error:
            if error.kind != "not_found":
                failed = failed or error
    if failed is not None:
        raise failed


def _described(found: Sequence[Any]) -> List[EbsSnapshot]:
    return [EbsSnapshot.of(told) for told in sorted(found, key=lambda told: str(told.get("StartTime", "")))]
