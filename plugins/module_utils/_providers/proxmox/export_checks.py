# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop or weaken an export, found without changing anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Iterator, List, Mapping, Sequence

from ..._errors import WAIT_OR_FOLLOW, VmferryError
from ..base import Consistency
from ..finding import Finding
from ..spec import DiskSpec, VmSpec
from .export_session import is_off
from .fleecing import STORAGES
from .leftovers import at_work, in_use
from .open_nodes import OpenNodes
from .safe_serving import insist_on_safe_serving
from .session import Session
from .snapshot_checks import of_privilege, storage_types

SHUT_DOWN = "Shut it down first."
ON_THE_NODE = ("python3", "qemu-nbd", "qemu-img", "pvesm")
FREEZE = ("VM.GuestAgent.FileSystemMgmt", "VM.GuestAgent.Unrestricted", "VM.Monitor")  # the last one up to release 8
_MAY_PASS = ("suspended",)  # a lock that only says that the VM is hibernated


def export_findings(
    session: Session, nodes: OpenNodes, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency
) -> Sequence[Finding]:
    findings: List[Finding] = [*_of_vm(vm)]
    if not is_off(vm):
        findings += _of_running(session, vm, disks, consistency)
    elif vm.power_state == "suspended":
        text = f"{vm.name} is hibernated: its memory is not exported, so the export will be crash consistent."
        findings.append(Finding("warning", text, "Resume it, and shut it down, for one that is not."))
    findings += _of_node(nodes, vm, disks)
    if len(disks) < len(vm.disks):
        left = ", ".join(disk.name for disk in vm.disks if disk not in disks)
        findings.append(Finding("info", f"{left} of {vm.name} is not exported."))
    return findings


def _of_vm(vm: VmSpec) -> Iterator[Finding]:
    lock = vm.details["lock"]
    if lock and lock not in _MAY_PASS:
        hint = f"Wait until that is done. If nothing works on it any more: qm unlock {vm.id}"
        yield Finding("error", f"{vm.name} is locked in Proxmox VE ({lock}).", hint, "busy")
    if vm.details["cloud_init"]:
        text = f"The cloud-init drive of {vm.name} is not exported: Proxmox VE makes it of the configuration, which is."
        yield Finding("info", text)


def _of_running(session: Session, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency) -> Iterator[Finding]:
    if vm.power_state == "unknown":
        text = f"Proxmox VE does not say whether {vm.name} runs."
        yield Finding("error", text, "Look at it in the web interface.", "conflict")
        return
    if consistency == "powered_off":
        yield Finding("error", f"{vm.name} is {vm.power_state}, not powered_off.", SHUT_DOWN, "conflict")
        return
    yield from _of_guest(session, vm, consistency)
    types = storage_types(session, vm)
    chosen = session.settings.fleecing_storage
    if chosen and types.get(chosen) not in STORAGES:
        said = f"is of type {types[chosen]}" if chosen in types else f"is not there on node {vm.host}"
        hint = f"Name one that is there, of type {', '.join(STORAGES)}."
        yield Finding("error", f"The storage {chosen} {said}.", hint, "invalid_config")
    for disk in disks:
        if not chosen and types.get(disk.storage) not in STORAGES:
            text = (
                f"What the guest overwrites on {disk.name} of {vm.name} during the export cannot be kept on "
                f"{disk.storage or 'what it lies on'}."
            )
            yield Finding("error", text, f"Set proxmox.fleecing_storage, or: {SHUT_DOWN}", "unsupported")
    if vm.tpm:
        yield Finding("info", f"The state of the TPM of {vm.name} is that of a moment after the disks'.")


def _of_guest(session: Session, vm: VmSpec, consistency: Consistency) -> Iterator[Finding]:
    if consistency == "crash_consistent":
        return
    findings: List[Finding] = []
    if not (vm.guest_agent and vm.details["agent_freezes"] and vm.power_state == "powered_on"):
        text = f"No guest agent that may freeze file systems answers in {vm.name}, so it cannot be quiesced."
        hint = "Switch the QEMU guest agent on in its options, and start qemu-guest-agent in the guest."
        findings.append(Finding("error", text, hint, "unsupported"))
    else:
        findings += of_privilege(session, vm, *FREEZE)
    for one in findings:
        if consistency == "quiesced":
            yield one
        else:
            yield replace(one, severity="warning", message=f"{one.message} The export will be crash consistent.")


def _of_node(nodes: OpenNodes, vm: VmSpec, disks: Sequence[DiskSpec]) -> Iterator[Finding]:
    """Whether it can be reached, has what is needed, and is not at it already."""
    try:
        with nodes.keeper(vm.host) as keeper:
            for program in ON_THE_NODE:
                keeper.node.run(["which", program])
            if not is_off(vm):
                insist_on_safe_serving(keeper, vm, disks)
            living: Sequence[Mapping[str, object]] = [one["owner"] for one in at_work(keeper, vm)]
    except VmferryError as error:
        yield Finding("error", error.message, error.hint, error.kind)
        return
    for owner in living:
        yield Finding("error", in_use(owner).message, WAIT_OR_FOLLOW, "busy")
