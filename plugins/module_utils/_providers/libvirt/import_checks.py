# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop an import, found without changing anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, AbstractSet, Callable, Iterable, Iterator

from ..._errors import WAIT_OR_CANCEL, VmferryError
from ..base import Placement
from ..finding import Finding
from ..network_names import mapped_network, unknown_networks
from ..placement_options import unknown_options
from ..spec import VmSpec
from .clean_up import files_of_the_dead
from .connection import Connection
from .host import Host
from .import_drives import FLOPPY_PLACES, IDE_PLACES, has_ide
from .import_leftovers import import_mark
from .import_session import insist_on_absence
from .import_xml import DISK_BUSES, DomainBuilder
from .scratch import MIB
from .storage import check_name, plan_disks
from .work_folder import free_bytes, work_folders

if TYPE_CHECKING:
    import libvirt


def import_findings(
    connection: Connection, vm: VmSpec, placement: Placement, export_id: str, scratch_dir: str
) -> list[Finding]:
    findings: list[Finding] = []
    checks: tuple[Callable[[], Iterable[Finding]], ...] = (
        lambda: _of_jobs(placement, scratch_dir),
        lambda: unknown_options(placement, "libvirt"),
        lambda: _of_name(connection, placement, export_id),
        lambda: _of_disks(connection, vm, placement, export_id, set(files_of_the_dead(scratch_dir))),
        lambda: _of_networks(connection, vm, placement),
        lambda: _of_machine(connection, vm, placement),
        lambda: _of_places(connection, vm, placement),
    )
    for check in checks:
        try:
            findings += check()
        except VmferryError as error:
            findings.append(Finding("error", error.message, error.hint, error.kind))
    if not Path(scratch_dir).is_dir():
        findings.append(Finding("error", f"The scratch folder {scratch_dir} does not exist.", "", "not_found"))
    return findings


def _of_name(connection: Connection, placement: Placement, export_id: str) -> Iterator[Finding]:
    check_name(placement.name)

    def work(opened: libvirt.virConnect) -> bool:
        return placement.name in [domain.name() for domain in opened.listAllDomains()]

    if connection.call("Listing the VMs", work):
        made_of = import_mark(connection, placement.name).get("export", "")
        if made_of != export_id:
            hint = "Import under another name, or remove that VM first."
            yield Finding("error", f"A VM named {placement.name} exists already.", hint, "conflict")


def _of_jobs(placement: Placement, scratch_dir: str) -> Iterator[Finding]:
    for folder in work_folders(scratch_dir):
        record = folder.record
        if record.purpose == "import" and record.vm_name == placement.name and record.alive:
            yield Finding("error", f"{placement.name} is being made by {record.describe()}.", WAIT_OR_CANCEL, "busy")


def _of_disks(
    connection: Connection, vm: VmSpec, placement: Placement, export_id: str, doomed: AbstractSet[Path]
) -> Iterator[Finding]:
    """`doomed`: files that the import itself removes before it begins."""
    if placement.disk_bus and placement.disk_bus not in DISK_BUSES:
        hint = f"Use one of {', '.join(DISK_BUSES)}."
        yield Finding("error", f"{placement.disk_bus} is no disk bus of libvirt.", hint, "invalid_config")
    planned = plan_disks(connection, vm, placement, export_id, "00000000")
    for disk in planned:
        try:
            if disk.final not in doomed:
                insist_on_absence(disk.final)
        except VmferryError as error:
            yield Finding("error", error.message, error.hint, error.kind)
    for folder in sorted({disk.storage.folder for disk in planned}):
        sizes = [disk.spec for disk in planned if disk.storage.folder == folder]
        largest = sum(disk.size for disk in sizes)
        expected = sum(disk.size if disk.allocated is None else min(disk.size, disk.allocated) for disk in sizes)
        free = free_bytes(str(folder))
        text = f"{folder} has {free // MIB} MiB free; {vm.name} needs {expected // MIB} to {largest // MIB} MiB."
        if free < expected:
            yield Finding("error", text, "Free some space, or choose another storage.", "no_space")
        elif free < largest:
            yield Finding("warning", text, "", "no_space")


def _of_networks(connection: Connection, vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    yield from unknown_networks(vm, placement)
    there = connection.call("Listing the networks", lambda opened: [one.name() for one in opened.listAllNetworks()])
    for nic in vm.nics:
        wanted = mapped_network(nic, placement)
        kind = "network" if wanted else nic.kind
        name = wanted or nic.network
        if kind == "network" and name not in there:
            hint = f"Map it with network_map; this host has {', '.join(sorted(there)) or 'no networks'}."
            yield Finding("error", f"There is no network {name} for {nic.id} of {vm.name}.", hint, "not_found")
        elif kind == "bridge" and not Path("/sys/class/net", Path(name).name, "bridge").is_dir():
            hint = "Map it to a network of this host with network_map."
            yield Finding("error", f"There is no bridge {name} for {nic.id} of {vm.name}.", hint, "not_found")
        elif kind not in ("network", "bridge", "user"):
            hint = "Map it to a network of this host with network_map."
            yield Finding("error", f"{nic.id} of {vm.name} was attached to {kind} {name}.", hint, "invalid_config")


def _of_machine(connection: Connection, vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    host = Host(connection)
    architecture = vm.architecture or "x86_64"
    if not host.runs(architecture):
        yield Finding("error", f"This host cannot run {architecture}.", "", "unsupported")
        return
    firmware = placement.firmware or vm.firmware
    if firmware not in ("bios", "uefi", "unknown"):
        yield Finding("error", f"{firmware} is no firmware.", "Use bios or uefi.", "invalid_config")
    if placement.firmware and placement.firmware != vm.firmware:
        text = f"{vm.name} was installed for {vm.firmware}; with {placement.firmware} it may not boot."
        yield Finding("warning", text, "Leave firmware out to keep it.")
    if firmware == "uefi" and not host.has_uefi(architecture, "q35" if architecture == "x86_64" else "virt"):
        yield Finding("error", "This host has no UEFI firmware.", "Install ovmf (Debian) or edk2-ovmf.", "unsupported")


def _of_places(connection: Connection, vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    """What libvirt would refuse when it is given the VM, after all disks were copied."""
    builder = DomainBuilder(vm, None, placement, Host(connection))
    machine = builder.machine()
    disks = sum(builder.bus(disk.name) == "ide" for disk in vm.disks)
    hint = "Give another placement.disk_bus, such as sata."
    if disks and not has_ide(machine):
        yield Finding("error", f"{vm.name} is a {machine}, which has no IDE for its disks.", hint, "invalid_config")
    elif disks > IDE_PLACES:
        text = f"{vm.name} has {disks} disks on IDE, which has {IDE_PLACES} places."
        yield Finding("error", text, hint, "invalid_config")
    floppies = sum(kind == "floppy" for kind, _name in vm.drives)
    if floppies > FLOPPY_PLACES:
        text = f"{vm.name} has {floppies} floppy drives; there are {FLOPPY_PLACES} places."
        yield Finding("error", text, "Leave them out: detach: [floppy].", "invalid_config")
