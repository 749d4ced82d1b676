# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots that exports made for themselves, and that they were killed over."""

from __future__ import annotations

from typing import Any, Collection, Iterator, Mapping, Sequence

from ..._errors import WAIT_OR_CANCEL, VmferryError
from ..._transfer.owner import is_owner_alive
from ..base import Undone
from ..spec import VmSpec
from .describe import describe_all
from .session import Session
from .snapshot_tree import Node, owner_of
from .temporary_snapshot import LEASE_END, remove_snapshot, removed_in_time, snapshot_nodes


def clean_up(session: Session, vm: VmSpec, over: Collection[str]) -> list[Undone]:
    """Those of dead runs. `over`: attempts of which it is known that nobody works on them any more.

    Raises `busy` for one that lives, and for one of which nobody can tell.
    """
    undone = []
    living: VmferryError | None = None
    for node, owner in temporary_ones(session, vm):
        alive = is_owner_alive(owner)
        if alive is None and node.mark.get("attempt") in over:
            alive = False
        if alive is False:
            undone.append(Undone(_removed(session, vm, node)))
        else:
            living = living or _in_use(vm, node, owner, alive)
    if living is not None:
        raise living
    return undone


def undo_job(session: Session, job_id: str) -> list[str]:
    """As `clean_up`, of one job that is dead as far as its record and its store tell, on whatever VM it worked."""
    said = []
    for vm in describe_all(session):
        if not any(job_id in snapshot.description for snapshot in vm.snapshots):
            continue
        for node, owner in temporary_ones(session, vm):
            if node.mark.get("job") != job_id:
                continue
            if is_owner_alive(owner):
                raise _in_use(vm, node, owner, True)
            said.append(_removed(session, vm, node))
    return said


def temporary_ones(session: Session, vm: VmSpec) -> Iterator[tuple[Node, Mapping[str, Any]]]:
    """The newest first. A clone has the snapshots of what it was cloned from, so the mark names the VM."""
    for node in reversed(snapshot_nodes(session, vm)):
        owner = owner_of(node.mark)
        if owner is not None and node.mark.get("vm") == vm.id:
            yield node, owner


def _removed(session: Session, vm: VmSpec, node: Node) -> str:
    """The lease of a dead run may still hold the disks of its snapshot."""
    said = removed_in_time(lambda: remove_snapshot(session, vm, node), LEASE_END)
    return _sentence(vm, node, said)


def _sentence(vm: VmSpec, node: Node, said: Sequence[str]) -> str:
    text = f"Removed the snapshot {node.name} of {vm.name}, left by the dead job {node.mark.get('job', '?')}."
    return " ".join([text, *said])


def _in_use(vm: VmSpec, node: Node, owner: Mapping[str, Any], alive: bool | None) -> VmferryError:
    where = f"process {owner.get('pid', '?')} on {owner.get('hostname') or 'another host'}"
    hint = WAIT_OR_CANCEL
    if alive is None:
        hint = (
            "It runs, or ran, on another host or in another container. If it is dead, cancel it with the module job, "
            f"or remove the snapshot {node.name} of {vm.name} in the vSphere Client."
        )
    text = f"{vm.name} is in use by export job {node.mark.get('job', '?')} ({where}), which holds a snapshot of it."
    return VmferryError("busy", text, hint)
