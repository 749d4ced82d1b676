# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changed block tracking of a VM: whether it is on, switching it on, and what changed since a token.

The rules are those of VMware's KB 320557: virtual hardware of version 7 or newer, no snapshots when it is switched on,
and it takes effect when the VM is halted for a moment, as it is when a snapshot is made or removed. What independent
disks, raw devices in physical mode and shared disks go through is not tracked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable, Collection, Mapping, Sequence

from ..._errors import VmferryError
from ..spec import DiskSpec, VmSpec
from .change_token import TokenDisk, read_token
from .changed_areas import ChangedAreas, TrackingLost, changed_areas
from .frozen_disks import FrozenDisk, FrozenDisks
from .session import Session
from .tasks import run_task

OLDEST_HARDWARE = 7
RECONFIGURE_LIMIT = 600.0  # seconds, as a snapshot may take
_HARDWARE = re.compile(r"vmx-(\d+)")
_NEXT = "An increment reads the whole disks, and stores what differs."


@dataclass(frozen=True)
class Since:
    """`areas`: by a disk's name, of those that the token speaks for. `lost`: why it tells nothing any more."""

    areas: Mapping[str, ChangedAreas] = field(default_factory=dict)
    lost: str = ""


def can_be_tracked(disk: DiskSpec) -> bool:
    """What the disk itself is, whatever the VM is."""
    details = disk.details
    physical = details["rdm_mode"] == "physical" or details["backing"] == "raw_device"
    return bool(details["in_snapshots"]) and not physical and not details["shared"]


def switch_on(session: Session, vm: VmSpec, disks: Sequence[DiskSpec], halt: Callable[[], object]) -> list[str]:
    """See to it that the next snapshot has change ids of these disks. `halt`: make a snapshot, and remove it.

    Returns warnings: that a VM cannot be tracked is no reason to have no export. Raises what `halt` does. It stays on,
    as whatever else backs this VM up may rely on it by then.
    """
    wanted = [disk for disk in disks if can_be_tracked(disk)]
    if not wanted or any(disk.change_tracking for disk in wanted):
        return []
    reason = _obstacle(vm)
    if reason:
        return [f"Change tracking of {vm.name} is not switched on: {reason}. {_NEXT}"]
    said = []
    if not vm.details["change_tracking"]:
        try:
            _reconfigure(session, vm)
        except VmferryError as error:
            if error.kind not in ("permission_denied", "unsupported", "conflict", "invalid_config"):
                raise
            return [f"Changes of {vm.name} are not tracked: {error.message} {_NEXT}"]
        said.append(f"Change tracking of {vm.name} was switched on, for the next increment.")
    halt()
    return said


def changes_since(session: Session, vm: VmSpec, frozen: FrozenDisks, names: Collection[str], token: str) -> Since:
    """Between a token and a snapshot, of those disks of these names that the token speaks for."""
    if not token:
        return Since()
    told = read_token(token)
    if told is None:
        return Since(lost=f"The change token of the last export of {vm.name} is none that this version can read.")
    machine = session.managed("VirtualMachine", vm.details["moref"])
    snapshot = session.managed("VirtualMachineSnapshot", frozen.snapshot)
    areas = {}
    try:
        for name in names:
            if name in told and name in frozen.disks:
                areas[name] = _of_disk(session, machine, snapshot, frozen.disks[name], told[name], vm.name)
    except TrackingLost as lost:
        return Since(lost=lost.message)
    return Since(areas)


def bytes_changed(session: Session, vm: VmSpec, disks: Sequence[DiskSpec], token: str) -> dict[str, int]:
    """Until now, by a disk's name, of those of which it can be told without a snapshot."""
    told = read_token(token) or {}
    machine = session.managed("VirtualMachine", vm.details["moref"])
    found = {}
    for disk in disks:
        known = told.get(disk.name)
        if known is None or (known.key, known.uuid) != (disk.details["key"], disk.serial):
            continue
        label = f"{disk.name} of {vm.name}"
        areas = changed_areas(session, machine, None, known.key, disk.size, known.change_id, label)
        found[disk.name] = areas.bytes_changed
    return found


def _of_disk(session: Session, machine: Any, snapshot: Any, disk: FrozenDisk, told: TokenDisk, vm: str) -> ChangedAreas:
    label = f"{disk.name} of {vm}"
    if told.key != disk.key or told.uuid != disk.uuid:
        raise TrackingLost(f"{label} is another disk than at the last export.")
    if not disk.change_id:
        raise TrackingLost(f"Changes of {label} are not tracked any more.")
    _insist_on_order(told.change_id, disk.change_id, label)
    return changed_areas(session, machine, snapshot, disk.key, disk.size, told.change_id, label)


def _insist_on_order(then: str, now: str, label: str) -> None:
    """A change id is a UUID, a slash, and a number that each snapshot raises. Going back to an older snapshot takes the
    number back, too; whoever asks then is told of no changes where there were some."""
    then_tracker, _slash, then_number = then.rpartition("/")
    tracker, _slash, number = now.rpartition("/")
    if tracker != then_tracker:
        raise TrackingLost(f"The change tracking of {label} was reset since the last export.")
    if then_number.isdigit() and number.isdigit() and int(number) <= int(then_number):
        raise TrackingLost(f"{label} went back to what it was before the last export.")


def _obstacle(vm: VmSpec) -> str:
    version = _HARDWARE.fullmatch(str(vm.details["hardware_version"]))
    if version is not None and int(version[1]) < OLDEST_HARDWARE:
        return f"it has virtual hardware of version {int(version[1])}, and {OLDEST_HARDWARE} is needed"
    if vm.snapshots:
        return "it has snapshots, and must have none at that moment"
    return "vSphere says that its disks need consolidation" if vm.details["consolidation_needed"] else ""


def _reconfigure(session: Session, vm: VmSpec) -> None:
    from pyVmomi import vim

    machine = session.managed("VirtualMachine", vm.details["moref"])
    run_task(
        session,
        f"Switching change tracking of {vm.name} on",
        lambda _content: machine.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)),
        RECONFIGURE_LIMIT,
    )
