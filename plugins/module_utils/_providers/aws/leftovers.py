# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots that exports made for themselves, and that they were killed over.

Several exports of an instance do not disturb each other: what one left is removed once it is known that nobody needs
it, and until then only costs what it stores.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Collection, Dict, Iterable, List, Mapping, Optional, Sequence

from ..._errors import WAIT_OR_CANCEL, VmferryError
from ..base import Undone
from ..spec import VmSpec
from .asking import instances_of
from .filters import THERE
from .session import Session
from .snapshot_owner import OWNER, TEMPORARY, is_alive, is_held, read_owner
from .snapshot_set import EbsSnapshot, find, remove
from .tags import ATTEMPT, JOB, STAGING, VM

_LISTING = "Looking for what exports left"


def clean_up(session: Session, vm: VmSpec, over: Collection[str], held_too: bool = False) -> List[Undone]:
    """Those of dead runs on this instance, and on instances that are gone. `over`: attempts of which it is known that
    nobody works on them, or goes on with them, any more. `held_too`: nobody will, as the instance goes.

    Raises `busy` for one that lives. What belongs to runs on other hosts stays until their store knows that they are
    dead, and what is held for one that goes on with it stays until then.
    """
    by_vm: Dict[str, List[EbsSnapshot]] = defaultdict(list)
    for one in find(session, _LISTING, state=[TEMPORARY]):
        by_vm[one.tags.get(VM, "")].append(one)
    undone = _cleaned(session, by_vm.pop(vm.id, []), vm.name, over, held_too)
    undone += _of_gone_instances(session, by_vm, over)
    return undone


def undo_job(session: Session, job_id: str) -> List[str]:
    """Of one job that is dead as far as its record and its store tell, on whatever instance. Raises `busy`."""
    said = []
    for group in _by_attempt(find(session, _LISTING, job=[job_id], state=[TEMPORARY])):
        if _lives(group):
            raise in_use(group[0].tags.get(VM, "An instance"), group[0].tags)
        said.append(_removed(session, group, group[0].tags.get(VM, "an instance")))
    return said


def temporary_ones(session: Session, vm: VmSpec) -> List[List[EbsSnapshot]]:
    """Of each attempt."""
    return _by_attempt(find(session, _LISTING, vm=[vm.id], state=[TEMPORARY]))


def in_use(vm: str, tags: Mapping[str, str]) -> VmferryError:
    owner = read_owner(tags.get(OWNER, ""))
    where = f"process {owner.get('pid', '?')} on {owner.get('hostname') or 'another host'}"
    text = f"{vm} is in use by export job {tags.get(JOB, '?')} ({where}), which reads snapshots of it."
    return VmferryError("busy", text, WAIT_OR_CANCEL)


def _cleaned(
    session: Session, found: Iterable[EbsSnapshot], vm: str, over: Collection[str], held_too: bool
) -> List[Undone]:
    undone, living = [], None
    for group in _by_attempt(found):
        tags = group[0].tags
        alive = _lives(group)
        if alive:
            living = living or in_use(vm, tags)
        elif tags.get(ATTEMPT) in over or (alive is False and (held_too or not is_held(tags))):
            undone.append(Undone(_removed(session, group, vm)))
    if living is not None:
        raise living
    return undone


def _of_gone_instances(
    session: Session, by_vm: Mapping[str, Sequence[EbsSnapshot]], over: Collection[str]
) -> List[Undone]:
    dead = {vm: found for vm, found in by_vm.items() if vm and _lives(found) is False}
    if not dead:
        return []
    told = instances_of(session, _LISTING, "instance-id", list(dead))
    there = {one["InstanceId"] for one in told if one["State"]["Name"] in THERE}
    undone = []
    for vm in dead.keys() - there:
        try:
            undone += _cleaned(session, dead[vm], f"{vm}, which is gone", over, held_too=True)
        except VmferryError as error:  # whoever works on another instance is not to fail over it
            undone.append(Undone(f"What exports left of {vm}, which is gone, could not all be removed: {error}"))
    return undone


def _removed(session: Session, group: Sequence[EbsSnapshot], vm: str) -> str:
    _end_task(session, group[0].tags, vm)
    remove(session, [one.id for one in group], vm)
    ids = ", ".join(one.id for one in group)
    return f"Removed {ids} of {vm}, left by the dead export job {group[0].tags.get(JOB, '?')}."


def _end_task(session: Session, tags: Mapping[str, str], vm: str) -> None:
    """And what it wrote, and the AMI that it was to write: the snapshots, which tell of them, go last."""
    if STAGING not in tags:
        return
    from .staged_image import StagedPlace
    from .vendor_task import end, kind_told

    place = StagedPlace.of_tags(tags)
    if place is not None:
        end(session, place, tags[ATTEMPT], vm, kind=kind_told(tags))


def _lives(group: Sequence[EbsSnapshot]) -> Optional[bool]:
    """Of any of them; whoever takes a set over may have come to its first one only."""
    said = {is_alive(one.tags) for one in group}
    return True if True in said else None if None in said else False


def _by_attempt(found: Iterable[EbsSnapshot]) -> List[List[EbsSnapshot]]:
    groups: Dict[str, List[EbsSnapshot]] = defaultdict(list)
    for one in found:
        groups[one.tags.get(ATTEMPT, one.id)].append(one)
    return list(groups.values())
