# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing a VM with its disks. Proxmox VE removes none without: all volumes that bear its vmid go with it.

https://pve.proxmox.com/pve-docs/api-viewer/#/nodes/{node}/qemu/{vmid}
"""

from __future__ import annotations

from typing import List

from ..._errors import VmferryError
from ..spec import VmSpec
from .drives import Volume
from .power import insist_on_unlocked, path_of
from .session import Session

OPERATION_LIMIT = 1800.0  # seconds: some storages wipe what they give free
_KEEP = (
    "Set remove_disks: true if they may go. To keep them, move each to another VM first: qm disk move VMID DISK "
    "--target-vmid OTHER."
)


def insist_on_removable(vm: VmSpec, disks: bool) -> None:
    """`vm`: as it is now. Raises before anything of it is touched."""
    insist_on_unlocked(vm)
    if vm.power_state != "powered_off":
        raise VmferryError("conflict", f"{vm.name} is {vm.power_state}, not powered_off.", "Shut it down first.")
    if vm.details["protected"]:
        hint = "Switch its option protection off first, if it is really to go."
        raise VmferryError("conflict", f"{vm.name} is protected from removal in Proxmox VE.", hint)
    mine = [disk.source for disk in vm.disks if disk.details["owner"] == vm.details["vmid"]]
    mine += [one for one in vm.details["unused_volumes"] if Volume(one).owner == vm.details["vmid"]]
    if not disks and mine:
        text = f"Proxmox VE removes no VM without its disks, and {', '.join(mine)} would go with {vm.name}."
        raise VmferryError("unsupported", text, _KEEP)


def remove_vm(session: Session, vm: VmSpec, disks: bool) -> List[str]:
    """A sentence for each disk that stays. Snapshots go, and what names the VM in jobs and in high availability."""
    doing = f"Removing {vm.name}"
    session.run(
        doing, lambda: session.delete(path_of(vm), purge=1, **{"destroy-unreferenced-disks": 0}), OPERATION_LIMIT
    )
    return [
        f"{disk.id} ({disk.source}) of {vm.name} stays: {_not_its_own(disk.details['owner'])}."
        for disk in vm.disks
        if disks and disk.details["owner"] != vm.details["vmid"]
    ]


def _not_its_own(owner: int) -> str:
    return f"it belongs to VM {owner}" if owner else "it is no volume of Proxmox VE's"
