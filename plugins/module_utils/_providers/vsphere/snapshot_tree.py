# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree of a VM's snapshots, and the mark by which ours are known.

vSphere keeps a name and a description of a snapshot, and nothing else that could be ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Iterator, Mapping, Sequence, Tuple
from urllib.parse import unquote

from ..._transfer.owner import current_owner
from ..job import Job
from ..snapshots import SnapshotWish
from ..spec import PowerState, SnapshotSpec, VmSpec

_MARK = re.compile(r"\[vmferry((?: [a-z_]+=[A-Za-z0-9._-]*)+)\]")
_FIELD = re.compile(r" ([a-z_]+)=(\S*)")
_WORD = re.compile(r"[A-Za-z0-9._-]*")
_NUMBERS = ("pid_namespace", "pid", "pid_started")  # of an owner; the rest are words
_STATES: Mapping[str, PowerState] = {
    "poweredOn": "powered_on",
    "poweredOff": "powered_off",
    "suspended": "suspended",
}


@dataclass(frozen=True)
class Node:
    """One snapshot as it lies in the tree. `mark` is empty where it is not ours."""

    name: str  # as people wrote it; the API has %2f for a slash, as in names of VMs
    moref: str
    description: str
    created: str  # ISO 8601, UTC
    state: PowerState  # that the VM would be in after going back to it
    quiesced: bool
    parent: str  # by name
    children: Tuple[str, ...]
    depth: int  # 1 for one that has no parent
    current: bool
    mark: Mapping[str, str]


def mark_of(wish: SnapshotWish, vm: VmSpec, job: Job) -> str:
    """The description of one of ours. One that is temporary says which process is to remove it."""
    fields = {
        "vm": vm.id,
        "job": job.job_id,
        "attempt": job.attempt,
        "power": vm.power_state,
        "memory": "yes" if wish.memory else "no",
    }
    if wish.temporary:
        fields.update((name, str(value)) for name, value in current_owner().items() if _WORD.fullmatch(str(value)))
    marked = " ".join(f"{name}={value}" for name, value in fields.items())
    return f"Made by vmferry.migrate. [vmferry {marked}]"


def owner_of(mark: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Of one that is temporary, as `current_owner` told it."""
    if "pid" not in mark:
        return None
    numbers = {name: int(mark[name]) for name in _NUMBERS if mark.get(name, "").isdigit()}
    return {"hostname": mark.get("hostname", ""), "boot_id": mark.get("boot_id", ""), **numbers}


def nodes(info: Any) -> list[Node]:
    """Of a VM's `snapshot`, which is not set where it has none; the oldest first."""
    if info is None:
        return []
    current = info.currentSnapshot._moId if info.currentSnapshot is not None else ""
    found = _nodes(info.rootSnapshotList or (), "", 1, current)
    return sorted(found, key=lambda node: (node.created, node.depth))


def listed(info: Any) -> Tuple[SnapshotSpec, ...]:
    return tuple(SnapshotSpec(node.name, node.created, node.description, node.current) for node in nodes(info))


def _nodes(trees: Sequence[Any], parent: str, depth: int, current: str) -> Iterator[Node]:
    for tree in trees:
        name, below = unquote(tree.name), tree.childSnapshotList or ()
        moref = tree.snapshot._moId
        yield Node(
            name=name,
            moref=moref,
            description=tree.description or "",
            created=_utc(tree.createTime),
            state=_STATES.get(tree.state, "unknown"),
            quiesced=bool(tree.quiesced),
            parent=parent,
            children=tuple(unquote(child.name) for child in below),
            depth=depth,
            current=moref == current,
            mark=_read(tree.description or ""),
        )
        yield from _nodes(below, name, depth + 1, current)


def _read(description: str) -> Mapping[str, str]:
    found = _MARK.search(description)
    return dict(_FIELD.findall(found[1])) if found else {}


def _utc(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
