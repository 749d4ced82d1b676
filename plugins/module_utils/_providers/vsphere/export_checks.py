# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop or weaken an export, found without changing anything."""

from __future__ import annotations

from typing import Iterator, List, Sequence

from ..._errors import WAIT_OR_FOLLOW
from ..._transfer.owner import is_owner_alive
from ..base import Consistency
from ..finding import Finding
from ..spec import DiskSpec, VmSpec
from .leftovers import temporary_ones
from .session import Session
from .snapshot_checks import CREATE, DEEPEST, REMOVE, connected_findings, of_privilege
from .temporary_snapshot import snapshot_nodes

EXPORT = "VApp.Export"
SHUT_DOWN = "Shut it down first."
LEAVE_OUT = "Leave it out of disks."


def export_findings(
    session: Session, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency
) -> Sequence[Finding]:
    off = vm.power_state == "powered_off"
    findings: List[Finding] = [*connected_findings(vm), *_of_vm(vm)]
    for disk in disks:
        findings += _of_disk(vm, disk, off)
    if not off:
        findings += _of_snapshot(session, vm, disks, consistency)
    findings += of_privilege(session, vm, EXPORT)
    if len(disks) < len(vm.disks):
        left = ", ".join(disk.name for disk in vm.disks if disk not in disks)
        findings.append(Finding("info", f"{left} of {vm.name} is not exported."))
    return findings


def _of_vm(vm: VmSpec) -> Iterator[Finding]:
    if vm.details["template"]:
        hint = "Turn it into a VM first, or clone it."
        yield Finding("error", f"{vm.name} is a template, which vSphere does not export so.", hint, "unsupported")
    if vm.tpm:
        hint = "Clone it, and remove the TPM of the clone. What the TPM seals, such as BitLocker's key, is lost there."
        text = f"{vm.name} has a virtual TPM, and vSphere exports no such VM."
        yield Finding("error", text, hint, "unsupported")
    elif vm.details["encrypted"]:
        text = f"{vm.name} is encrypted, and vSphere exports no such VM."
        yield Finding("error", text, "Decrypt it, or a clone of it, by its storage policy.", "unsupported")
    if vm.details["consolidation_needed"]:
        text = f"vSphere says that disks of {vm.name} need consolidation."
        yield Finding("warning", text, "Run disk_snapshot with state: consolidated.")


def _of_disk(vm: VmSpec, disk: DiskSpec, off: bool) -> Iterator[Finding]:
    label, details = f"{disk.name} of {vm.name}", disk.details
    if details["rdm_mode"] == "physical" or details["backing"] == "raw_device":
        text = f"{label} is a physical raw device, which vSphere does not export."
        yield Finding("error", text, LEAVE_OUT if off else "Detach it meanwhile.", "unsupported")
    elif details["encrypted"] and not vm.details["encrypted"]:
        text = f"{label} is encrypted, and vSphere does not export it."
        yield Finding("error", text, LEAVE_OUT, "unsupported")
    elif details["shared"]:
        text = f"{label} is shared with other VMs, which may write to it at the same time."
        yield Finding("error", text, LEAVE_OUT, "unsupported")
    elif not details["in_snapshots"] and not off:
        text = f"{label} is independent, so a snapshot does not hold it."
        yield Finding("error", text, f"{SHUT_DOWN} Or leave it out of disks.", "unsupported")


def _of_snapshot(
    session: Session, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency
) -> Iterator[Finding]:
    """That is made of a VM that runs."""
    if vm.power_state not in ("powered_on", "suspended"):
        yield Finding(
            "error", f"{vm.name} is {vm.power_state} in vSphere.", "Look at it in the vSphere Client.", "conflict"
        )
        return
    if consistency == "powered_off":
        yield Finding("error", f"{vm.name} is {vm.power_state}, not powered_off.", SHUT_DOWN, "conflict")
        return
    yield from _of_guest(vm, consistency)
    for disk in vm.disks:
        details = disk.details
        if disk not in disks and (details["shared"] or details["rdm_mode"] == "physical"):
            text = (
                f"{disk.name} of {vm.name} is shared or a physical raw device, so vSphere makes no snapshot of this VM."
            )
            yield Finding("error", text, SHUT_DOWN, "unsupported")
    nodes = snapshot_nodes(session, vm)
    depth = next((node.depth for node in nodes if node.current), 0)
    if depth >= DEEPEST:
        text = f"{vm.name} stands on {depth} snapshots already, and vSphere takes up to {DEEPEST}."
        yield Finding("error", text, "Remove some of them.", "quota")
    for node, owner in temporary_ones(session, vm):
        job = node.mark.get("job", "?")
        if is_owner_alive(owner):
            yield Finding("error", f"{vm.name} is in use by export job {job}.", WAIT_OR_FOLLOW, "busy")
        else:
            hint = "The next export removes it, if it is known there that the job is dead."
            yield Finding("warning", f"The export job {job} left the snapshot {node.name} of {vm.name}.", hint)
    for privilege in (CREATE, REMOVE):
        yield from of_privilege(session, vm, privilege)


def _of_guest(vm: VmSpec, consistency: Consistency) -> Iterator[Finding]:
    if consistency == "crash_consistent" or (vm.guest_agent and vm.power_state == "powered_on"):
        return
    text = f"VMware Tools do not run in {vm.name}, so its file systems cannot be quiesced."
    if consistency == "quiesced":
        yield Finding("error", text, "Start VMware Tools, or open-vm-tools, in the guest.", "unsupported")
    else:
        yield Finding("warning", text, "The export will be crash-consistent.")
