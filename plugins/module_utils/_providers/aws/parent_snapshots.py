# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots that imports of ours left of exports before, on which those of the next increment can be made.

StartSnapshot with a ParentSnapshotId: what is not put to the child is the parent's, of the same account, and the child
is encrypted as its parent is. https://docs.aws.amazon.com/ebs/latest/APIReference/API_StartSnapshot.html. Once it is
made, the child needs its parent no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ..base import Placement
from .asking import VALUES, every, literal, of
from .import_hardware import NewDisk
from .import_mark import IMPORT, mark_in
from .new_snapshot import description_of
from .session import Session
from .snapshot_set import EbsSnapshot
from .tags import DISK, EXPORT, tags_of

# Kinds of what AWS may have against a parent. What it has against a snapshot of any kind, it says once more.
REFUSALS = ("not_found", "conflict", "invalid_config", "unsupported", "permission_denied", "internal")


@dataclass(frozen=True)
class Parent:
    id: str
    export: str  # whose disk it holds


def parents_of(
    session: Session, exports: Sequence[str], disks: Sequence[NewDisk], placement: Placement
) -> Tuple[Dict[int, Parent], List[str]]:
    """By the disk's number, of the newest export that there is a snapshot of; and a sentence for each disk of which all
    that are there do not fit. `exports`: the newest last."""
    rank = {export: number for number, export in enumerate(exports[-VALUES:])}
    asked = [of("tag-key", [IMPORT]), of(f"tag:{EXPORT}", [literal(export) for export in rank])]
    doing = f"Looking for what {placement.name} can be begun from"
    told = every(session, "describe_snapshots", doing, asked, OwnerIds=["self"])
    whole = [one for one in told if _is_whole(one)]
    whole.sort(key=lambda one: rank.get(tags_of(one)[EXPORT], -1), reverse=True)
    found: Dict[int, Parent] = {}
    unfit: List[str] = []
    for number, disk in enumerate(disks):
        label = f"{disk.spec.id} of {placement.name}"
        of_disk = [one for one in whole if _is_of(one, f"disk-{number}", disk.spec.id)]
        reasons = [_unfit(one, disk, placement) for one in of_disk]
        fitting = [one for one, reason in zip(of_disk, reasons) if not reason]
        if fitting:
            found[number] = Parent(fitting[0]["SnapshotId"], tags_of(fitting[0])[EXPORT])
        elif of_disk:
            unfit.append(f"{label} is written whole: {of_disk[0]['SnapshotId']}, of an export before, {reasons[0]}.")
    return found, unfit


def _is_whole(told: Mapping[str, Any]) -> bool:
    mark = mark_in(tags_of(told))
    return mark is not None and not mark.unfinished


def _is_of(told: Mapping[str, Any], tag: str, disk: str) -> bool:
    """The tags of a volume may go on to snapshots of what was written to it since. Descriptions do not."""
    mark = mark_in(tags_of(told))
    ours = mark is not None and told.get("Description") == description_of(disk, mark.name)
    return ours and tags_of(told).get(DISK) == tag


def _unfit(told: Mapping[str, Any], disk: NewDisk, placement: Placement) -> str:
    one = EbsSnapshot.of(told)
    if one.archived or one.state != "completed":
        return f"is {'archived' if one.archived else one.state}"
    if one.size != disk.size:
        return f"has {one.size} bytes, and not {disk.size}"
    if placement.encrypted and not told.get("Encrypted"):
        return "is not encrypted"
    if placement.encrypted and placement.kms_key_id and placement.kms_key_id != one.key:
        return f"is encrypted with {one.key}"
    return ""
