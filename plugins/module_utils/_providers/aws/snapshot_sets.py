# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of EBS volumes that belong together, as they were made of one instance at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from .tags import ATTEMPT, CHAIN, DISKS, JOB, SNAPSHOT, VM, tags_of

OURS_BY = f"tag:{VM}"  # a filter of DescribeSnapshots
_FAILED = ("error", "recoverable", "recovering")  # the last two: in the recycle bin, or coming out of it


@dataclass(frozen=True)
class SnapshotSet:
    """Of ours, all volumes of the instance; of others, one snapshot, which is called by its id."""

    name: str
    created: str  # ISO 8601, UTC
    description: str
    members: Tuple[Mapping[str, Any], ...]  # as DescribeSnapshots tells them
    tags: Mapping[str, str]
    ours: bool  # asked for by a task of disk_snapshot

    @property
    def vm(self) -> str:
        """The id of the instance that it is of; '' where that is not known."""
        return self.tags.get(VM, "")

    @property
    def chain(self) -> str:
        """Of exports that tell by it what changed; '' for all others."""
        return self.tags.get(CHAIN, "") if not self.ours else ""

    @property
    def transfer(self) -> str:
        """The id of the job that made it to export or import a VM; '' for all others."""
        return self.tags.get(JOB, "") if not self.ours else ""

    @property
    def ids(self) -> List[str]:
        return [member["SnapshotId"] for member in self.members]

    @property
    def whole(self) -> bool:
        """None of its snapshots is gone or failed. One that is still being copied has its moment already."""
        failed = any(member.get("State") in _FAILED for member in self.members)
        wanted = self.tags.get(DISKS, "") if self.ours else ""
        return not failed and wanted in ("", str(len(self.members)))


def sets_of(described: Sequence[Mapping[str, Any]]) -> List[SnapshotSet]:
    """The oldest first. `described`: as DescribeSnapshots tells them; one that comes twice is one."""
    members: Dict[Tuple[str, ...], Dict[str, Mapping[str, Any]]] = {}
    for one in described:
        members.setdefault(_key(one), {})[one["SnapshotId"]] = one
    found = [_set(list(group.values())) for group in members.values()]
    return sorted(found, key=lambda one: (one.created, one.name))


def _key(one: Mapping[str, Any]) -> Tuple[str, ...]:
    tags = tags_of(one)
    if tags.get(SNAPSHOT) and tags.get(VM):
        return tags[VM], tags[SNAPSHOT], *_made_by(tags)
    return (one["SnapshotId"],)


def _made_by(tags: Mapping[str, str]) -> Tuple[str, ...]:
    """Two tasks at a time may give the same name."""
    return tags.get(JOB, ""), tags.get(ATTEMPT, "")


def _set(group: Sequence[Mapping[str, Any]]) -> SnapshotSet:
    first = min(group, key=lambda one: (one["StartTime"], one["SnapshotId"]))
    tags = tags_of(first)
    ours = bool(tags.get(SNAPSHOT) and tags.get(VM))
    return SnapshotSet(
        name=tags[SNAPSHOT] if ours else first["SnapshotId"],
        created=_utc(first["StartTime"]),
        description=first.get("Description", ""),
        members=tuple(sorted(group, key=lambda one: one["SnapshotId"])),
        tags=tags,
        ours=ours,
    )


def _utc(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
