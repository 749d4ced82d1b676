# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to read an instance by EBS direct, in the requests that AWS charges, as far as it is known before.

https://docs.aws.amazon.com/ebs/latest/userguide/ebsapi-pricing.html. No prices are told: they differ, and change.
"""

from __future__ import annotations

from typing import Iterable, List, Optional, Sequence

from ..finding import Finding
from ..spec import DiskSpec, VmSpec
from .asking import every_of
from .session import Session
from .snapshot_blocks import BLOCK, PAGE
from .snapshot_set import EbsSnapshot


def cost_finding(session: Session, vm: VmSpec, disks: Sequence[DiskSpec]) -> Finding:
    sizes = [disk.size for disk in disks]
    text = (
        f"Reading {vm.name} in full takes up to {_blocks(sizes)} GetSnapshotBlock requests, one for each 512 KiB that "
        f"was ever written, and up to {_pages(sizes)} ListSnapshotBlocks requests; an increment takes one for each "
        "block that changed, and ListChangedBlocks requests. AWS charges for them by the thousand."
    )
    written = _written(session, vm, disks)
    if written is not None:
        text += f" The newest snapshots of its volumes hold {_blocks(written)} blocks."
    if vm.details["state"] != "stopped":
        text += (
            " What changed, its new snapshots alone tell: until then, the plan of an increment counts whole volumes."
        )
    return Finding("info", text)


def _written(session: Session, vm: VmSpec, disks: Sequence[DiskSpec]) -> Optional[List[int]]:
    """Bytes in blocks of each volume that were ever written to when its newest snapshot was made, whoever made that.
    None where one has none, or boto3 is too old to tell.
    """
    volumes = sorted({disk.source for disk in disks})
    doing = f"Looking at the snapshots of {vm.name}"
    told = every_of(session, "describe_snapshots", doing, "volume-id", volumes, OwnerIds=["self"])
    completed = [one for one in told if one["State"] == "completed"]
    newest = {one["VolumeId"]: EbsSnapshot.of(one) for one in sorted(completed, key=lambda one: one["StartTime"])}
    found = [newest[volume].written for volume in volumes if volume in newest]
    return [one for one in found if one is not None] if len(found) == len(volumes) and None not in found else None


def _blocks(sizes: Iterable[int]) -> int:
    return sum(-(-size // BLOCK) for size in sizes)


def _pages(sizes: Iterable[int]) -> int:
    return sum(-(-size // (BLOCK * PAGE)) for size in sizes)
