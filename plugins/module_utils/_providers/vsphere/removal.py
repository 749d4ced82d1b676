# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing a VM: from the inventory alone, or with its files but those that other VMs have as well."""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Sequence
from urllib.parse import unquote

from ..._errors import VmferryError
from ..spec import DiskSpec, VmSpec
from .devices import leaf
from .import_leftovers import REMOVE_LIMIT, destroy
from .import_mark import insist_on_dead, mark_in
from .properties import Rows, every, of_view, retrieve
from .session import Session
from .tasks import run_task

OFF = "powered_off"
_DEVICES = "config.hardware.device"


def remove_vm(session: Session, vm: VmSpec, disks: bool) -> list[str]:
    """`vm`: as it is now. A sentence for each disk that stays although it was to go.

    Without its disks, all its files stay where they are, so that it can be registered again.
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
    staying = dict(_staying(session, vm))
    if staying:
        _detach(session, vm, machine, staying)
    destroy(session, vm.details["moref"], vm.name)
    return [f"{disk.id} ({disk.source}) of {vm.name} stays: {why}." for disk, why in staying.values()]


def _staying(session: Session, vm: VmSpec) -> Iterator[tuple[int, tuple[DiskSpec, str]]]:
    """By the keys of the disks: those that are not its alone, and why."""
    own, others = _files(session, vm)
    for disk in vm.disks:
        key = disk.details["key"]
        owner = next((others[file] for file in own.get(key, ()) if file in others), "")
        if disk.details["rdm_mode"] or disk.details["backing"] == "raw_device":
            yield key, (disk, "it is a device that is mapped, whose data vSphere does not own")
        elif owner:
            yield key, (disk, f"{owner} has it, too")


def _files(session: Session, vm: VmSpec) -> tuple[Mapping[int, Sequence[str]], Mapping[str, str]]:
    """Of this VM's disks the files that each stands on, and of all other VMs' disks each file with its VM's name."""

    def work(content: Any) -> Rows:
        with every(content, "VirtualMachine") as view:
            return retrieve(content, [view], of_view(), {"VirtualMachine": ("name", _DEVICES)})

    own: dict[int, Sequence[str]] = {}
    others: dict[str, str] = {}
    for row in session.read(f"Looking who has the disks of {vm.name}", work).values():
        for disk in (one for one in row.get(_DEVICES) or () if leaf(one) == "VirtualDisk"):
            chain = list(_chain(disk.backing))
            if row.moref == vm.details["moref"]:
                own[disk.key] = chain
            else:
                others.update(dict.fromkeys(chain, unquote(row.get("name", ""))))
    return own, others


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
