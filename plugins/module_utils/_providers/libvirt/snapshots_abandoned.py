# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots that an export made for itself and that it was killed over: nobody asked for them to stay."""

from __future__ import annotations

import secrets
from typing import Any, Iterator, Mapping

from ..._errors import VmferryError
from ..._transfer.owner import is_of_earlier_boot, is_owner_alive
from ..job import Job
from ..spec import VmSpec
from .connection import Connection
from .describe import describe, describe_all
from .snapshot_xml import TEMPORARY, split_description

MERGE_TIME = 3600.0  # seconds; what was written since goes back into the images below


def remove_abandoned(connection: Connection, vm: VmSpec, scratch_dir: str, job_id: str = "") -> list[str]:
    """A sentence each, also for one that has to stay. `job_id`: of this job alone."""
    found = list(_abandoned(describe(connection, vm.id), job_id)) if vm.snapshots else []
    return [_removed(connection, vm, scratch_dir, name) for name in reversed(found)]


def remove_abandoned_of(connection: Connection, job_id: str, scratch_dir: str) -> list[str]:
    return [
        sentence
        for vm in describe_all(connection)
        if any(job_id in snapshot.description for snapshot in vm.snapshots)
        for sentence in remove_abandoned(connection, vm, scratch_dir, job_id)
    ]


def _abandoned(vm: VmSpec, job_id: str) -> Iterator[str]:
    for snapshot in vm.snapshots:
        _words, mark = split_description(snapshot.description)
        owner = mark.get(TEMPORARY)
        mine = mark.get("vm") == vm.id and job_id in ("", mark.get("job"))
        if mine and isinstance(owner, dict) and _is_dead(owner):
            yield snapshot.name


def _is_dead(owner: Mapping[str, Any]) -> bool:
    return is_of_earlier_boot(owner) or is_owner_alive(owner) is False


def _removed(connection: Connection, vm: VmSpec, scratch_dir: str, name: str) -> str:
    from .snapshots import LibvirtSnapshots

    job = Job(secrets.token_hex(16), secrets.token_hex(4))
    snapshots = LibvirtSnapshots(connection, vm, scratch_dir)
    try:
        for finding in snapshots.check_remove(name):
            if finding.severity == "error":
                return f"The snapshot {name} of {vm.name}, which a dead export left, has to stay: {finding.message}"
        snapshots.remove(name, job, MERGE_TIME)
    except VmferryError as error:
        return f"The snapshot {name} of {vm.name}, which a dead export left, could not be removed: {error.message}"
    return f"Removed the snapshot {name} of {vm.name}, which a dead export had left."
