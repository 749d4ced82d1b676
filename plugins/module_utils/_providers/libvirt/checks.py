# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop or weaken an export, found without changing anything."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Iterator, Sequence

from ..._errors import WAIT_OR_CANCEL, WAIT_OR_FOLLOW, VmferryError
from ..base import Consistency
from ..finding import Finding
from ..spec import DiskSpec, VmSpec
from . import backup_job, domain_xml
from .bitmaps import can_hold_bitmaps
from .connection import Connection
from .offline_disks import read_chains
from .safe_serving import insist_on_safe_serving
from .saved_memory import crash_consistent, has_saved_memory, how_to_end
from .scratch import MIB, reserve_of
from .work_folder import free_bytes, read_folder

EXPECTED_CHANGE = 10  # a tenth of the disks, written by the guest while they are read, is a busy guest
LOCAL = ("file", "block", "volume")
LEAST_LIBVIRT = 7002000  # 7.2.0: backup jobs with export names, and not yet a preview


def export_findings(
    connection: Connection, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency, scratch_dir: str
) -> list[Finding]:
    running = vm.power_state not in ("powered_off", "crashed")
    findings = [*_of_disks(vm, disks, running), *_of_consistency(vm, consistency, running)]
    try:
        if running:
            findings += _of_host(connection)
            findings += job_findings(connection, vm)
            findings += _of_scratch(disks, scratch_dir)
            text = connection.domain(vm.id, f"Reading {vm.name}", lambda domain: domain.XMLDesc())
            insist_on_safe_serving(connection, vm, disks, domain_xml.parse(text))
        else:
            findings += _of_saved_memory(connection, vm, consistency)
            types = vm.details.get("disk_types", {})
            read_chains(connection, vm.id, [disk for disk in disks if types.get(disk.name) in LOCAL])
    except VmferryError as error:
        findings.append(Finding("error", error.message, error.hint, error.kind))
    if len(disks) < len(vm.disks):
        left = ", ".join(disk.name for disk in vm.disks if disk not in disks)
        findings.append(Finding("info", f"{left} of {vm.name} is not exported."))
    return findings


def _of_disks(vm: VmSpec, disks: Sequence[DiskSpec], running: bool) -> Iterator[Finding]:
    types = vm.details.get("disk_types", {})
    for disk in disks:
        where = f"{disk.name} of {vm.name}"
        kind = types.get(disk.name, "file")
        if not disk.source and kind not in ("network",):
            yield Finding("error", f"{where} has no source.", "", "invalid_config")
        elif kind == "network" and not running:
            hint = "Export it while the VM runs."
            yield Finding(
                "error", f"{where} is a network disk ({disk.source}) of a VM that is off.", hint, "unsupported"
            )
        elif kind not in (*LOCAL, "network"):
            yield Finding("error", f"{where} is a disk of type {kind}.", "", "unsupported")
        if disk.name in vm.details.get("shareable", ()):
            hint = "Other VMs may write to it at the same time; leave it out of disks."
            yield Finding("error", f"{where} is shared between VMs.", hint, "unsupported")
        if not running and disk.name in vm.details.get("encrypted", ()):
            yield Finding("error", f"{where} is encrypted.", "Export it while the VM runs.", "unsupported")
        if disk.size == 0 and kind in LOCAL:
            yield Finding("error", f"{where} cannot be looked at: {disk.source} may be missing.", "", "not_found")
        elif not can_hold_bitmaps(disk):
            yield Finding("info", f"Nobody tracks what changes on {where}: an increment finds it by reading all of it.")
    if vm.details.get("luns"):
        yield Finding("warning", f"{vm.name} has SCSI devices passed through, which are never exported.")


def _of_consistency(vm: VmSpec, consistency: Consistency, running: bool) -> Iterator[Finding]:
    if consistency == "powered_off" and running:
        yield Finding("error", f"{vm.name} is {vm.power_state}, not powered_off.", "Shut it down first.", "conflict")
    if not running or vm.guest_agent or consistency not in ("auto", "quiesced"):
        return
    hint = "Install and start qemu-guest-agent in the guest."
    if not vm.details.get("agent_channel"):
        hint = f"Give the VM a channel for it (org.qemu.guest_agent.0). {hint}"
    if consistency == "quiesced":
        yield Finding("error", f"The guest agent of {vm.name} is not connected.", hint, "unsupported")
    else:
        yield Finding("warning", f"The guest agent of {vm.name} is not connected: crash consistent.", hint)


def _of_saved_memory(connection: Connection, vm: VmSpec, consistency: Consistency) -> Iterator[Finding]:
    if not has_saved_memory(connection, vm):
        return
    if consistency in ("powered_off", "quiesced"):
        text = f"{vm.name} was not shut down, its memory was saved: its disks are those of a guest that runs."
        yield Finding("error", text, how_to_end(vm), "conflict")
    else:
        yield Finding("warning", crash_consistent(vm), how_to_end(vm))


def _of_host(connection: Connection) -> Iterator[Finding]:
    version = connection.call("Asking for the version", lambda opened: opened.getLibVersion())
    if version < LEAST_LIBVIRT:
        found = f"{version // 1000000}.{version // 1000 % 1000}"
        hint = "Shut the VM down, or update libvirt to 7.2 or newer."
        yield Finding("error", f"libvirt {found} cannot back up a running VM.", hint, "unsupported")


def job_findings(connection: Connection, vm: VmSpec) -> Iterator[Finding]:
    """What keeps a VM that runs busy."""
    job = backup_job.current_job(connection, vm.id)
    if job is not None:
        yield _of_backup(job, vm)
    other = backup_job.other_job(connection, vm.id)
    if other:
        yield Finding("error", f"{vm.name} is busy with {other}.", "Wait until it is done.", "busy")
    text = connection.domain(vm.id, f"Reading {vm.name}", lambda domain: domain.XMLDesc())
    for disk in domain_xml.parse(text).iterfind("devices/disk"):
        if disk.find("mirror") is not None:
            target = domain_xml.attribute(disk, "target", "dev")
            kind = _mirror(disk)
            yield Finding("error", f"{target} of {vm.name} is busy with {kind}.", "Wait until it is done.", "busy")


def _mirror(disk: ET.Element) -> str:
    return f"a block job ({domain_xml.attribute(disk, 'mirror', 'job') or 'copy'})"


def _of_backup(job: backup_job.BackupJob, vm: VmSpec) -> Finding:
    folder = read_folder(job.folder) if job.folder is not None else None
    if folder is None or folder.record.vm_id != vm.id:
        hint = f"Wait until it is done. If its owner is dead: virsh domjobabort {vm.name}"
        return Finding("error", f"{vm.name} has a backup job of another program, {job.description}.", hint, "busy")
    if folder.record.alive is False:
        hint = "An export to the same store goes on with it, or ends it; everything else ends it."
        return Finding("warning", f"A dead {folder.record.describe()} left a backup job.", hint)
    hint = WAIT_OR_FOLLOW if folder.record.purpose == "export" else WAIT_OR_CANCEL
    return Finding("error", f"{vm.name} is in use by {folder.record.describe()}.", hint, "busy")


def _of_scratch(disks: Sequence[DiskSpec], scratch_dir: str) -> Iterator[Finding]:
    try:
        free, reserve = free_bytes(scratch_dir), reserve_of(scratch_dir)
    except OSError as error:
        hint = "Set scratch_dir to an existing folder."
        yield Finding("error", f"The scratch folder {scratch_dir} cannot be used: {error.strerror}.", hint, "not_found")
        return
    expected = sum(disk.size for disk in disks) // EXPECTED_CHANGE
    hint = "It takes what the guest overwrites meanwhile. Free some space, or set scratch_dir."
    text = f"The scratch folder {scratch_dir} has {free // MIB} MiB free, {reserve // MIB} of which must stay free."
    if free <= reserve:
        yield Finding("error", text, hint, "no_space")
    elif free - reserve < expected:
        yield Finding("warning", text, hint, "no_space")
