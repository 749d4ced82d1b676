# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop or weaken work on the snapshots of a VM, found without changing anything."""

from __future__ import annotations

from typing import Any, Iterator, Sequence

from ..._errors import VmferryError
from ..finding import Finding
from ..snapshots import SnapshotWish
from ..spec import DiskSpec, VmSpec
from .session import Session
from .snapshot_tree import Node

CREATE = "VirtualMachine.State.CreateSnapshot"
REMOVE = "VirtualMachine.State.RemoveSnapshot"
REVERT = "VirtualMachine.State.RevertToSnapshot"
DEEPEST = 32  # snapshots on each other: vSphere's limit, in "Configuration Maximums"
LONGEST_NAME = 80  # characters of a snapshot's name in vSphere


def connected_findings(vm: VmSpec) -> Iterator[Finding]:
    state = vm.details["connection_state"]
    if state and state != "connected":
        hint = "Connect its host, or register the VM anew, in the vSphere Client."
        yield Finding("error", f"{vm.name} is {state} in vSphere.", hint, "conflict")


def usable_findings(vm: VmSpec) -> Iterator[Finding]:
    yield from connected_findings(vm)
    if vm.details["template"]:
        hint = "Turn it into a VM first, or clone it."
        yield Finding("error", f"{vm.name} is a template, which has no snapshots.", hint, "unsupported")


def create_findings(vm: VmSpec, wish: SnapshotWish, nodes: Sequence[Node]) -> Iterator[Finding]:
    yield from _of_wish(wish)
    yield from _of_guest(vm, wish)
    for disk in vm.disks:
        yield from _of_disk(vm, disk, wish)
    depth = next((node.depth for node in nodes if node.current), 0)
    if depth >= DEEPEST:
        text = f"{vm.name} stands on {depth} snapshots already, and vSphere takes up to {DEEPEST}."
        yield Finding("error", text, "Remove some of them.", "quota")
    if vm.details["consolidation_needed"]:
        text = f"vSphere says that disks of {vm.name} need consolidation."
        yield Finding("warning", text, "Run disk_snapshot with state: consolidated.")


def of_privilege(session: Session, vm: VmSpec, privilege: str) -> Sequence[Finding]:
    """Nothing where it cannot be asked: then the real call tells."""
    machine = session.managed("VirtualMachine", vm.details["moref"])

    def granted(content: Any) -> bool:
        return all(content.authorizationManager.HasPrivilegeOnEntity(machine, session.key, [privilege]))

    try:
        if session.read(f"Looking at privileges on {vm.name}", granted):
            return []
    except VmferryError as error:
        if error.kind not in ("unsupported", "permission_denied"):
            raise
        return []
    hint = "Give it to a role of the user, on the VM or above it; see docs/vsphere.md."
    text = f"The user lacks the privilege {privilege} on {vm.name}."
    return [Finding("error", text, hint, "permission_denied")]


def _of_wish(wish: SnapshotWish) -> Iterator[Finding]:
    if wish.method == "internal":
        hint = "Leave method out, or set it to external."
        yield Finding("error", "Snapshots on vSphere are delta disks, never internal.", hint, "unsupported")
    if wish.temporary:
        yield Finding("error", "Temporary snapshots on vSphere are not supported yet.", "", "unsupported")
    if len(wish.name) > LONGEST_NAME:
        text = f"{wish.name} has {len(wish.name)} characters, and vSphere's names of snapshots up to {LONGEST_NAME}."
        yield Finding("error", text, "Give it a shorter name.", "invalid_config")
    if "%" in wish.name:
        text = f"{wish.name} has a percent sign, which vSphere's names use to write other signs."
        yield Finding("error", text, "Give it a name without.", "invalid_config")


def _of_guest(vm: VmSpec, wish: SnapshotWish) -> Iterator[Finding]:
    if wish.memory or wish.quiesce == "never" or vm.power_state != "powered_on" or vm.guest_agent:
        return
    text = f"VMware Tools do not run in {vm.name}, so its file systems cannot be quiesced."
    if wish.quiesce == "required":
        yield Finding("error", text, "Start VMware Tools, or open-vm-tools, in the guest.", "unsupported")
    else:
        yield Finding("warning", text, "The snapshot will be crash-consistent.")


def _of_disk(vm: VmSpec, disk: DiskSpec, wish: SnapshotWish) -> Iterator[Finding]:
    label = f"{disk.name} of {vm.name}"
    details = disk.details
    if details["rdm_mode"] == "physical" or details["backing"] == "raw_device":
        text = f"{label} is a physical raw device, of which vSphere makes no snapshots."
        yield Finding("error", text, "Detach it meanwhile.", "unsupported")
    elif details["shared"]:
        text = f"{label} is shared with other VMs, so vSphere makes no snapshots of this VM."
        yield Finding("error", text, "Snapshots need bus sharing and multi-writer to be off.", "unsupported")
    elif not details["in_snapshots"] and wish.memory and vm.power_state == "powered_on":
        text = f"{label} is independent, and vSphere makes no snapshot with memory of such a VM."
        yield Finding("error", text, "Take it without memory, or make the disk dependent.", "unsupported")
    elif not details["in_snapshots"]:
        text = f"{label} is independent, so it is no part of the snapshot."
        yield Finding("warning", text, "Going back to it leaves this disk as it is.")
