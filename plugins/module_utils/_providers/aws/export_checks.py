# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop or weaken an export, found without changing anything."""

from __future__ import annotations

from typing import Iterator, List, Sequence

from ..._errors import WAIT_OR_FOLLOW
from ..base import Consistency
from ..finding import Finding
from ..spec import DiskSpec, VmSpec
from .filters import THERE
from .leftovers import temporary_ones
from .read_cost import cost_finding
from .session import Session
from .snapshot_checks import denied
from .snapshot_owner import is_alive, is_held
from .tags import JOB, VM, tag_specification

SHUT_DOWN = "Shut it down first."
LEAVE_OUT = "Leave it out of disks."
NO_QUIESCE = "AWS cannot freeze the file systems of {}, so that it cannot be quiesced."
QUIESCE_HINT = "Leave consistency out, or shut the VM down first with vmferry.migrate.vm."


def export_findings(
    session: Session, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency, *, by_blocks: bool = True
) -> List[Finding]:
    """`by_blocks`: they are read by EBS direct."""
    findings: List[Finding] = [*_of_vm(vm, consistency)]
    for disk in disks:
        findings += _of_disk(vm, disk)
    findings += _of_others(session, vm)
    wanted = {"InstanceId": vm.id}
    specification = tag_specification("snapshot", {VM: vm.id})  # which takes a permission of its own
    doing = f"Making snapshots of {vm.name}"
    findings += denied(
        session, "create_snapshots", doing, InstanceSpecification=wanted, TagSpecifications=[specification]
    )
    if _goes_off(vm):
        for operation, doing in (
            ("stop_instances", f"Shutting {vm.name} down"),
            ("start_instances", f"Starting {vm.name}"),
        ):
            findings += denied(session, operation, doing, InstanceIds=[vm.id])
    if len(disks) < len(vm.disks):
        left = ", ".join(disk.name for disk in vm.disks if disk not in disks)
        findings.append(Finding("info", f"{left} of {vm.name} is not exported."))
    if by_blocks:
        findings.append(cost_finding(session, vm, disks))
    return findings


def _goes_off(vm: VmSpec) -> bool:
    """It runs, and is shut down for its export: such a VM is told as it will be then."""
    return vm.power_state == "powered_off" and vm.details["state"] in ("pending", "running")


def _of_vm(vm: VmSpec, consistency: Consistency) -> Iterator[Finding]:
    off = vm.power_state == "powered_off"
    if vm.details["state"] not in THERE:
        yield Finding("error", f"{vm.name} is {vm.details['state']}.", "", "conflict")
    if vm.details["outpost"]:
        text = f"{vm.name} is on an Outpost, of whose snapshots AWS gives no blocks."
        yield Finding("error", text, "", "unsupported")
    group = vm.details["auto_scaling_group"]
    if group and _goes_off(vm):
        text = f"{vm.name} is in the Auto Scaling group {group}, which may terminate it while it is off."
        yield Finding("warning", text, "Put it into standby there first, or leave shutdown_timeout out.")
    if vm.details["instance_store_gb"] and _goes_off(vm):
        text = f"What is in the instance store of {vm.name} is lost when it is shut down, and not exported."
        yield Finding("warning", text, "Keep what matters on EBS volumes, or leave shutdown_timeout out.")
    elif vm.details["instance_store_gb"]:
        text = f"The instance store of {vm.name}, which ends with its power, is not exported."
        yield Finding("warning", text, "Keep what matters on EBS volumes.")
    if consistency == "quiesced":
        yield Finding("error", NO_QUIESCE.format(vm.name), QUIESCE_HINT, "unsupported")
    elif consistency == "powered_off" and not off:
        yield Finding("error", f"{vm.name} is {vm.power_state}, not powered_off.", SHUT_DOWN, "conflict")
    elif consistency == "auto" and not off:
        yield Finding("info", f"The export of {vm.name} will be crash-consistent, as all of running VMs on AWS are.")


def _of_disk(vm: VmSpec, disk: DiskSpec) -> Iterator[Finding]:
    label = f"{disk.name} of {vm.name}"
    if disk.details["state"] == "error":
        yield Finding("error", f"AWS says that the volume of {label} is damaged.", LEAVE_OUT, "conflict")
    others = [one for one in disk.details["attached_to"] if one != vm.id]
    if others:
        text = f"{label} is attached to {', '.join(others)}, too, which may write to it at the same time."
        yield Finding("warning", text, f"Stop the others, or: {LEAVE_OUT}")


def _of_others(session: Session, vm: VmSpec) -> Iterator[Finding]:
    for group in temporary_ones(session, vm):
        tags = group[0].tags
        job = tags.get(JOB, "?")
        if is_alive(tags):
            yield Finding("error", f"{vm.name} is in use by export job {job}.", WAIT_OR_FOLLOW, "busy")
        elif not is_held(tags):
            text = f"The export job {job} left {', '.join(one.id for one in group)} of {vm.name}."
            yield Finding("warning", text, "The next export removes them, if it is known there that the job is dead.")
