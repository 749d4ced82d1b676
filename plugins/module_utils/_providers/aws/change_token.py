# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change token of AWS: the snapshots of an export, which stay for the next increment to ask what changed since.

It is named after its chain and its attempt, and found by their tags. One snapshot of a volume tells by itself what
changed since, whatever others come and go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Sequence

from ..._errors import VmferryError
from ..spec import DiskSpec, VmSpec
from .asking import VALUES, instances_of
from .filters import THERE
from .session import Session
from .snapshot_owner import TOKEN
from .snapshot_set import EbsSnapshot, find, remove
from .tags import ATTEMPT, CHAIN, POWER, STATE, VM

NAME = re.compile(r"vmferry-([0-9a-f]{8})-([0-9a-f]{8})")


@dataclass(frozen=True)
class Since:
    """`snapshots`: by a disk's name, those to ask since. `lost`: why that cannot be asked."""

    snapshots: Mapping[str, EbsSnapshot] = field(default_factory=dict)
    lost: str = ""


def since(session: Session, vm: VmSpec, disks: Sequence[DiskSpec], token: str) -> Since:
    """Of these disks, as they are now."""
    if not token:
        return Since()
    named = NAME.fullmatch(token)
    if named is None:
        return Since(lost=f"The change token of the last export of {vm.name} is none of AWS.")
    # Only those: a request that was sent twice may have made another set, at another moment.
    of_volume = {one.volume: one for one in _named(session, vm, [token]) if one.tags.get(STATE) == TOKEN}
    if not of_volume:
        return Since(lost=f"The snapshots of the change token {token} of {vm.name} are gone.")
    found = {}
    for disk in disks:
        label = f"{disk.name} of {vm.name}"
        one = of_volume.get(disk.source)
        if one is None:
            text = f"{label} is another volume than at the last export, or its snapshot of the change token {token}"
            return Since(lost=f"{text} is gone.")
        if one.state != "completed" or one.archived:
            state = "archived" if one.archived else one.state
            return Since(lost=f"The snapshot {one.id} of {label}, of the change token {token}, is {state}.")
        found[disk.name] = one
    return Since(found)


def bytes_changed(session: Session, vm: VmSpec, disks: Sequence[DiskSpec], token: str) -> Dict[str, int]:
    """By a disk's name: 0 where nobody can have written to it, since the instance was off when it was exported and was
    not started after that, with the volume attached to it, and to no other, all the time. What changed on any other
    disk, only a new snapshot could tell.
    """
    known = since(session, vm, disks, token).snapshots
    return {disk.name: 0 for disk in disks if disk.name in known and _is_untouched(vm, disk, known[disk.name])}


def _is_untouched(vm: VmSpec, disk: DiskSpec, older: EbsSnapshot) -> bool:
    alone = disk.details["attached_to"] == [vm.id] and not disk.details["multi_attach"]
    off = vm.details["state"] == "stopped" and older.tags.get(POWER) == "powered_off"
    return alone and off and "" < max(vm.details["launched"], disk.details["attached"]) < older.started


def tokens(session: Session, vm: VmSpec) -> List[str]:
    """The oldest first."""
    found = find(session, f"Listing the change tokens of {vm.name}", vm=[vm.id], state=[TOKEN])
    return list(dict.fromkeys(name for name in map(_name_of, found) if name))


def gone_vms(session: Session) -> List[VmSpec]:
    """Instances that have tokens, and that are not there any more; nothing else is known of them."""
    doing = "Looking for change tokens of instances that are gone"
    found = {one.tags.get(VM, "") for one in find(session, doing, state=[TOKEN])} - {""}
    told = instances_of(session, doing, "instance-id", sorted(found))
    found -= {one["InstanceId"] for one in told if one["State"]["Name"] in THERE}
    return [VmSpec("aws", one, one, one, "unknown", 0, 0, "unknown", ()) for one in sorted(found)]


def forget(session: Session, vm: VmSpec, names: Sequence[str]) -> List[str]:
    """A sentence for each that was there. What is no token of ours is refused (`invalid_config`)."""
    foreign = [name for name in names if not NAME.fullmatch(name)]
    if foreign:
        raise VmferryError("invalid_config", f"{', '.join(foreign)} of {vm.name} is no token of an export of ours.")
    if not names:
        return []
    found = _named(session, vm, names)
    remove(session, [one.id for one in found], vm.name)
    return [f"Dropped the change token {name} of {vm.name}." for name in names if name in map(_name_of, found)]


def _named(session: Session, vm: VmSpec, names: Sequence[str]) -> List[EbsSnapshot]:
    attempts = sorted({name.rpartition("-")[2] for name in names})
    parts = [attempts[start : start + VALUES] for start in range(0, len(attempts), VALUES)]
    doing = f"Looking for the change tokens of {vm.name}"
    found = [one for part in parts for one in find(session, doing, vm=[vm.id], attempt=part)]
    return [one for one in found if _name_of(one) in names]


def _name_of(one: EbsSnapshot) -> str:
    name = f"vmferry-{one.tags.get(CHAIN, '')}-{one.tags.get(ATTEMPT, '')}"
    return name if NAME.fullmatch(name) else ""
