# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that are there already: whether an import of ours made them, and of what."""

from __future__ import annotations

from ..base import Placement
from ..import_mark import WHOLE
from ..placement_options import insist_on_known
from ..spec import VmSpec
from .describe import describe_each
from .import_checks import MEANS_NOTHING
from .import_hardware import drives_of
from .import_leftovers import made_by
from .inventory import guests
from .session import Session


def made_as(session: Session, name: str) -> tuple[VmSpec, str] | None:
    """The VM of that name, and the export that it was made of ('' of one that no import made). Names are nobody's alone
    there: one that an import of ours made goes before others."""
    found = [guest for guest in guests(session, f"Looking for {name}") if guest.name == name and guest.reachable]
    marks = {}
    for guest in found:
        made = made_by(session, guest)
        mark = made.mark if made is not None else None
        marks[guest.vmid] = mark.export if mark is not None and mark.state == WHOLE else ""
    for vmid, export in sorted(marks.items(), key=lambda one: not one[1]):
        return describe_each(session, [str(vmid)])[0], export
    return None


def made_otherwise(vm: VmSpec, placement: Placement) -> str:
    """What of it is not as the task asks for; '' where nothing is. Raises for what means nothing to Proxmox VE."""
    insist_on_known(placement, "proxmox", MEANS_NOTHING)
    drives_of(vm, placement)
    there = f"{vm.name} was imported from the same already"
    if placement.firmware and placement.firmware != vm.firmware:
        return f"{there}, with the firmware {vm.firmware}."
    if placement.vmid and str(placement.vmid) != vm.id:
        return f"{there}, with the vmid {vm.id}."
    if placement.disk_format and any(disk.format != placement.disk_format for disk in vm.disks):
        return f"{there}, with disks in the format {', '.join(sorted({disk.format for disk in vm.disks}))}."
    return ""
