# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of all EBS volumes of an instance, made at one moment, for a task that asks for them.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSnapshots.html
"""

from __future__ import annotations

import time
from typing import Any, List, Mapping, Sequence

from ..._errors import VmferryError
from .asking import every, of
from .session import Session
from .snapshot_set import APPEARING, remove
from .tags import ATTEMPT, tag_specification

DESCRIPTION = "Made by vmferry.migrate"
LOOK_EVERY = 5.0  # seconds, for a set of which nobody heard


def take(session: Session, doing: str, instance: str, tags: Mapping[str, str]) -> List[Any]:
    """One of each volume, as CreateSnapshots tells them; they are not completed yet.

    `tags` hold an attempt that nobody else has: whatever was made in vain under it is removed again, since a request
    may be sent twice where its answer is lost, and there is no token that would make it one.
    """
    try:
        with session.doing(doing):
            answer = session.client("ec2").create_snapshots(
                InstanceSpecification={"InstanceId": instance},
                Description=DESCRIPTION,
                TagSpecifications=[tag_specification("snapshot", tags)],
            )
    except VmferryError as error:
        if error.retryable:
            _discard_after(error, session, doing, instance, tags[ATTEMPT])
        raise
    made = list(answer["Snapshots"])
    _discard(session, doing, instance, tags[ATTEMPT], [one["SnapshotId"] for one in made])
    return made


def _discard_after(error: VmferryError, session: Session, doing: str, instance: str, attempt: str) -> None:
    """Of a request that may have been heard. `error` tells where that could not be found out."""
    deadline = time.monotonic() + APPEARING
    try:
        while not _discard(session, doing, instance, attempt, ()) and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)
    except VmferryError:
        error.message = f"{error.message} It may have made snapshots, which have the tag {ATTEMPT} {attempt}."


def _discard(session: Session, doing: str, instance: str, attempt: str, kept: Sequence[str]) -> bool:
    """Whether there are any, those that are kept included."""
    found = every(session, "describe_snapshots", doing, [of(f"tag:{ATTEMPT}", [attempt])], OwnerIds=["self"])
    remove(session, [one["SnapshotId"] for one in found if one["SnapshotId"] not in kept], instance)
    return bool(found)
