# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What exports that died left on nodes. A keeper there undoes it by itself; one that was killed left it written down.

A node that was switched off forgot what was written down, and kept the volumes: these are known by their names.
"""

from __future__ import annotations

import re
from typing import Any, Collection, Iterator, List, Mapping, Sequence

from ..._errors import WAIT_OR_CANCEL, VmferryError
from ..._transfer.owner import is_owner_alive
from ..base import Undone
from ..spec import VmSpec
from .choose_node import is_here
from .keeper import Keeper
from .node import CommandFailed
from .node_undo import is_gone
from .open_nodes import OpenNodes
from .session import Session, part

_FLEECE = re.compile(r"(?:.*/)?vm-(\d+)-vmferry-([0-9a-f]{8})-\d+(?:\.raw)?")
FREE_TIMEOUT = 120.0  # seconds


def clean_up(keeper: Keeper, session: Session, vm: VmSpec, over: Collection[str]) -> List[Undone]:
    """Of exports of this VM. `over`: attempts of which it is known that nobody works on them any more.

    Raises `busy` for one that lives.
    """
    undone = [
        Undone(_undone(keeper, one, over))
        for one in keeper.others()
        if one["owner"].get("purpose") == "export" and one["owner"].get("vmid") == vm.id
    ]
    return [*undone, *map(Undone, _free_volumes(keeper, session, vm))]


def undo_everywhere(session: Session, nodes: OpenNodes, job_id: str) -> List[str]:
    """Of one job that is dead as far as its record tells, on whatever node. Raises `busy` where it lives, and why a
    node could not be asked, once the others were."""
    with session.doing("Listing the nodes"):
        names = sorted(one["node"] for one in session.get("nodes") if one.get("status") == "online")
    said: List[str] = []
    failure: VmferryError | None = None
    for name in names:
        if session.settings.transport == "node" and not is_here(name):
            continue
        try:
            with nodes.keeper(name) as keeper:
                said += _undo_job(keeper, job_id)
        except VmferryError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return said


def _undo_job(keeper: Keeper, job_id: str) -> List[str]:
    mine = [one for one in keeper.others() if one["owner"].get("job") == job_id and one["owner"]["purpose"] == "export"]
    return [_undone(keeper, one, ()) for one in mine]


def at_work(keeper: Keeper, vm: VmSpec) -> Iterator[Mapping[str, Any]]:
    """Exports of this VM that live, as their folders tell."""
    for one in keeper.others():
        if one["owner"].get("vmid") == vm.id and one["owner"].get("purpose") == "export" and _lives(one, ()):
            yield one


def _undone(keeper: Keeper, one: Mapping[str, Any], over: Collection[str]) -> str:
    owner = one["owner"]
    if _lives(one, over):
        raise in_use(owner)
    end = keeper.end if one["alive"] else keeper.undo
    end(one["folder"])
    what = ", ".join(sorted({str(made.get("kind")) for made in one["made"]})) or "its folder"
    return f"Undid what the dead export job {owner['job']} had left of {owner['vm']} on {keeper.node.name}: {what}."


def _lives(one: Mapping[str, Any], over: Collection[str]) -> bool:
    """A keeper outlives its worker by the moment that it takes to hear of that, or to give an answerless one up."""
    owner = one["owner"]
    if not one["alive"] or one["ending"] or owner.get("attempt") in over:
        return False
    return is_owner_alive(owner.get("worker", {})) is not False


def in_use(owner: Mapping[str, Any]) -> VmferryError:
    worker = owner.get("worker", {})
    where = f"process {worker.get('pid', '?')} on {worker.get('hostname') or 'another host'}"
    return VmferryError(
        "busy", f"{owner.get('vm')} is in use by export job {owner.get('job')} ({where}).", WAIT_OR_CANCEL
    )


def _free_volumes(keeper: Keeper, session: Session, vm: VmSpec) -> Iterator[str]:
    """That nothing written down tells of. Each is written down before it is made, so those of an export that begins
    meanwhile are known."""
    storages = {disk.storage for disk in vm.disks} | {session.settings.fleecing_storage}
    found = [volume for storage in sorted(storages - {""}) for volume in _volumes(session, vm, storage)]
    written = {str(made.get("volume")) for one in keeper.others() for made in one["made"]}
    for volume in found:
        if volume in written:
            continue
        try:
            keeper.node.run(["pvesm", "free", volume], timeout=FREE_TIMEOUT)
        except CommandFailed as error:
            if not is_gone(error.said):
                raise
            continue  # with the export that it was of
        yield f"Removed {volume}, which a dead export of {vm.name} had left."


def _volumes(session: Session, vm: VmSpec, storage: str) -> Sequence[str]:
    """Of our names. Nothing of a storage that this user may not look into, or that is away."""
    try:
        with session.doing(f"Looking for what exports of {vm.name} left on {storage}"):
            rows = session.get(f"nodes/{part(vm.host)}/storage/{part(storage)}/content", vmid=int(vm.id))
    except VmferryError as error:
        if error.kind in ("unauthenticated", "network"):
            raise
        return ()
    found = [(str(row["volid"]), _FLEECE.fullmatch(str(row["volid"]).partition(":")[2])) for row in rows]
    return [volume for volume, match in found if match and match[1] == vm.id]
