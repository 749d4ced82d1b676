# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing a VM: from the inventory alone, or with its files but those that other VMs have as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Sequence
from urllib.parse import unquote

from ..._errors import VmferryError
from ..import_mark import insist_on_dead, mark_in
from ..spec import DiskSpec, VmSpec
from .devices import leaf
from .import_leftovers import REMOVE_LIMIT, destroy
from .properties import Row, Rows, every, of_view, retrieve
from .session import Session
from .snapshot_tree import nodes
from .tasks import run_task

OFF = "powered_off"
_DEVICES = "config.hardware.device"


@dataclass(frozen=True)
class _Files:
    """On which disks stand, each with all below it."""

    own: Mapping[int, Sequence[str]]  # of this VM as it is now, by the keys of its disks
    kept: Sequence[str]  # of this VM's snapshots
    others: Mapping[str, str]  # of all other VMs, as they are and in their snapshots, with the VM's name


def remove_vm(session: Session, vm: VmSpec, disks: bool) -> list[str]:
    """`vm`: as it is now. A sentence for each disk that stays although it was to go.

    Without its disks, all its files stay where they are, so that it can be registered again. Raises `conflict` where
    its snapshots, which go with it, hold what another VM needs.
    """
    if vm.power_state != OFF:
        raise VmferryError("conflict", f"{vm.name} is {vm.power_state}, not powered_off.", "Shut it down first.")
    mark = mark_in(str(vm.details.get("description", "")))
    if mark is not None:
        insist_on_dead(mark, vm.name)
    machine = session.managed("VirtualMachine", vm.details["moref"])
    if not disks:
        session.once(f"Removing {vm.name}", lambda _content: machine.UnregisterVM())
        return []
    files = _files(session, vm)
    _insist_on_snapshots(vm, files)
    staying = dict(_staying(vm, files))
    if staying:
        _detach(session, vm, machine, staying)
    destroy(session, vm.details["moref"], vm.name)
    return [f"{disk.id} ({disk.source}) of {vm.name} stays: {why}." for disk, why in staying.values()]


def _insist_on_snapshots(vm: VmSpec, files: _Files) -> None:
    """A disk can be detached from the VM; from its snapshots, nothing can."""
    for file in files.kept:
        if file in files.others:
            other = files.others[file]
            raise VmferryError(
                "conflict",
                f"The snapshots of {vm.name} hold {file}, which {other} has, too: they would take it along.",
                f"Leave remove_disks out: then all files of {vm.name} stay. Or remove {other} first.",
            )


def _staying(vm: VmSpec, files: _Files) -> Iterator[tuple[int, tuple[DiskSpec, str]]]:
    """By the keys of the disks: those that are not its alone, and why."""
    for disk in vm.disks:
        key = disk.details["key"]
        owner = next((files.others[file] for file in files.own.get(key, ()) if file in files.others), "")
        if disk.details["rdm_mode"] or disk.details["backing"] == "raw_device":
            yield key, (disk, "it is a device that is mapped, whose data vSphere does not own")
        elif owner:
            yield key, (disk, f"{owner} has it, too")


def _files(session: Session, vm: VmSpec) -> _Files:
    doing, mine = f"Looking who has the disks of {vm.name}", vm.details["moref"]

    def of_machines(content: Any) -> Rows:
        with every(content, "VirtualMachine") as view:
            return retrieve(content, [view], of_view(), {"VirtualMachine": ("name", _DEVICES, "snapshot")})

    own: dict[int, Sequence[str]] = {}
    others: dict[str, str] = {}
    holders: dict[str, Row] = {}  # of snapshots
    for row in session.read(doing, of_machines).values():
        for disk in _disks(row):
            if row.moref == mine:
                own[disk.key] = list(_chain(disk.backing))
            else:
                others.update(dict.fromkeys(_chain(disk.backing), _name(row)))
        holders.update((node.moref, row) for node in nodes(row.get("snapshot")))
    kept: list[str] = []
    if holders:
        snapshots = [session.managed("VirtualMachineSnapshot", moref) for moref in holders]
        paths = {"VirtualMachineSnapshot": (_DEVICES,)}
        for found in session.read(doing, lambda content: retrieve(content, snapshots, (), paths)).values():
            files = [file for disk in _disks(found) for file in _chain(disk.backing)]
            holder = holders[found.moref]
            if holder.moref == mine:
                kept += files
            else:
                others.update(dict.fromkeys(files, _name(holder)))
    return _Files(own, kept, others)


def _disks(row: Row) -> Iterator[Any]:
    return (one for one in row.get(_DEVICES) or () if leaf(one) == "VirtualDisk")


def _name(row: Row) -> str:
    return unquote(row.get("name", ""))


def _chain(backing: Any) -> Iterator[str]:
    """Of a disk in snapshots, and of a linked clone, also what it stands on."""
    while backing is not None:
        if getattr(backing, "fileName", None):
            yield backing.fileName
        backing = getattr(backing, "parent", None)


def _detach(session: Session, vm: VmSpec, machine: Any, keys: Mapping[int, object]) -> None:
    """Without an operation on files, they stay (VirtualDeviceConfigSpec.fileOperation)."""
    from pyVmomi import vim

    moref = vm.details["moref"]
    rows = session.read(
        f"Looking at {vm.name}", lambda content: retrieve(content, [machine], (), {"VirtualMachine": (_DEVICES,)})
    )
    changes = [
        vim.vm.device.VirtualDeviceSpec(operation="remove", device=disk)
        for disk in rows[moref].get(_DEVICES) or ()
        if disk.key in keys
    ]
    doing = f"Detaching the disks of {vm.name} that are not its alone"
    config = vim.vm.ConfigSpec(deviceChange=changes)
    run_task(session, doing, lambda _content: machine.ReconfigVM_Task(config), REMOVE_LIMIT)
