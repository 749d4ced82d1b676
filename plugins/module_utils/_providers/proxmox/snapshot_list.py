# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshots that Proxmox VE lists of a VM, and the mark in their descriptions by which ours are known."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any, List, Mapping, Sequence, Tuple

from ..job import Job
from ..snapshots import SnapshotWish
from ..spec import SnapshotSpec, VmSpec
from .session import Session

NOW = "current"  # the name of the row that is the VM as it is
_MARK = re.compile(r"\[vmferry((?: [a-z_]+=[A-Za-z0-9._-]*)+)\]")
_FIELD = re.compile(r" ([a-z_]+)=(\S*)")


def rows_of(session: Session, path: str, name: str) -> List[Mapping[str, Any]]:
    """As the API tells them, the VM as it is among them. `path`: of the VM."""
    with session.doing(f"Looking at the snapshots of {name}"):
        return list(session.get(f"{path}/snapshot"))


def snapshots_in(rows: Sequence[Mapping[str, Any]]) -> List[Mapping[str, Any]]:
    """The oldest first."""
    found = {str(row["name"]): row for row in rows if row.get("name") != NOW}
    return sorted(found.values(), key=lambda row: (int(row.get("snaptime") or 0), _depth(row, found)))


def _depth(row: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> int:
    """How many it stands on: what tells those apart that were made within one second."""
    seen = set()
    name = str(row.get("parent") or "")
    while name in rows and name not in seen:
        seen.add(name)
        name = str(rows[name].get("parent") or "")
    return len(seen)


def stands_on(rows: Sequence[Mapping[str, Any]]) -> str:
    """The name of the snapshot that the VM as it is stands on."""
    return "".join(str(row.get("parent") or "") for row in rows if row.get("name") == NOW)


def listed(rows: Sequence[Mapping[str, Any]]) -> Tuple[SnapshotSpec, ...]:
    current = stands_on(rows)
    return tuple(
        SnapshotSpec(str(row["name"]), created(row), description(row), row["name"] == current)
        for row in snapshots_in(rows)
    )


def created(row: Mapping[str, Any]) -> str:
    """ISO 8601, UTC."""
    return datetime.fromtimestamp(int(row.get("snaptime") or 0), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def description(row: Mapping[str, Any]) -> str:
    """Without our mark."""
    return _MARK.sub("", str(row.get("description") or "")).strip()


def mark_of(wish: SnapshotWish, vm: VmSpec, job: Job, consistency: str) -> str:
    """The description of one of ours. `consistency`: what its disks alone are."""
    fields = {
        "vm": vm.id,
        "job": job.job_id,
        "attempt": job.attempt,
        "power": vm.power_state,
        "consistency": consistency,
    }
    return f"Made by vmferry.migrate. [vmferry {' '.join(f'{name}={value}' for name, value in fields.items())}]"


def mark_in(row: Mapping[str, Any]) -> Mapping[str, str]:
    """Empty where it is not ours."""
    found = _MARK.search(str(row.get("description") or ""))
    return dict(_FIELD.findall(found[1])) if found else {}
