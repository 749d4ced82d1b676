# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt and QEMU/KVM, on the host that runs them."""

from __future__ import annotations

import os
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, ContextManager, Mapping, Sequence

from ..._errors import VmferryError
from ..._transfer.owner import current_owner, is_owner_alive
from ..base import Consistency, ExportSession, Finding, ImportSession, Job, Placement, Provider
from ..spec import DiskSpec, VmSpec
from .connection import LibvirtConnection
from .describe import describe
from .domain_xml import imported_from
from .errors import translated
from .import_session import LibvirtImport
from .powered_off_export import PoweredOffExport
from .running_export import RunningExport, current_backup
from .targets import SUFFIXES, leftovers
from .work_folder import DEFAULT_PARENT, PREFIX, WorkFolder, folder_of

DEFAULT_IMAGES = "/var/lib/libvirt/images"
DISK_KINDS = ("file", "block", "volume")


class LibvirtProvider(Provider):
    name = "libvirt"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._connection = LibvirtConnection(str(settings.get("uri") or "qemu:///system"))
        self._scratch_dir = str(settings.get("scratch_dir") or DEFAULT_PARENT)

    def close(self) -> None:
        self._connection.close()

    def vms(self) -> Sequence[VmSpec]:
        found = []
        for domain in self._connection.domains():
            with translated(f"Describing {domain.name()}"):
                found.append(describe(domain))
        return found

    def describe(self, vm: str) -> VmSpec:
        domain = self._connection.domain(vm)
        with translated(f"Describing {vm}"):
            return describe(domain)

    # --- export -----------------------------------------------------------------------------------------------------

    def check_export(self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency) -> Sequence[Finding]:
        findings = []
        off = vm.power_state in ("off", "crashed")
        if consistency == "powered_off" and not off:
            hint = "Shut it down first, or accept another consistency."
            findings.append(Finding("error", f"{vm.name} is {vm.power_state}, not off.", hint, "conflict"))
        if consistency == "quiesced" and (off or not vm.guest_agent):
            why = "is off" if off else "has no guest agent connected"
            hint = "Install and start qemu-guest-agent in the guest, or accept crash_consistent."
            findings.append(Finding("error", f"{vm.name} {why}, so it cannot be quiesced.", hint, "unsupported"))
        if consistency == "auto" and not off and not vm.guest_agent:
            message = f"{vm.name} has no guest agent connected: the export will be crash-consistent."
            findings.append(Finding("warning", message, "Install and start qemu-guest-agent in the guest."))
        findings += [finding for disk in disks for finding in self._check_disk(vm, disk, off)]
        if not off:
            findings += self._check_scratch(disks)
            findings += self._check_backup(vm)
        return findings

    def _check_disk(self, vm: VmSpec, disk: DiskSpec, off: bool) -> list[Finding]:
        if disk.format not in SUFFIXES and off:
            return [
                Finding(
                    "error", f"{disk.name} of {vm.name} is {disk.format}.", "Export it while it runs.", "unsupported"
                )
            ]
        if not disk.source or (off and not os.path.exists(disk.source)):
            where = disk.source or "a place this host cannot open"
            return [Finding("error", f"{disk.name} of {vm.name} lies in {where}, which is not there.", "", "not_found")]
        return []

    def _check_scratch(self, disks: Sequence[DiskSpec]) -> list[Finding]:
        """QEMU keeps there what the guest overwrites during the export: at the most, all of it."""
        try:
            free = shutil.disk_usage(self._scratch_dir).free
        except OSError as error:
            message = f"The scratch folder {self._scratch_dir} cannot be used: {error.strerror}."
            return [Finding("error", message, "Set scratch_dir to a folder that exists.", "invalid_config")]
        most = sum(disk.size for disk in disks)
        if free < most:
            message = f"{self._scratch_dir} has {free} bytes free; a guest that overwrites all its disks needs {most}."
            hint = "Set scratch_dir to a larger file system. The export ends before the guest would be paused."
            return [Finding("warning", message, hint, "no_space")]
        return []

    def _check_backup(self, vm: VmSpec) -> list[Finding]:
        with translated(f"Looking for a backup of {vm.name}"):
            backup = current_backup(self._connection.domain(vm.id))
        if not backup:
            return []
        folder = folder_of(backup)
        if folder is None:
            return [_foreign(vm)]
        alive = is_owner_alive(folder.owner() or {})
        if alive is False or not folder.path.exists():
            return [Finding("info", f"A job that died left a backup of {vm.name} running; it will be ended.")]
        return [Finding("error", f"{vm.name} is being exported already.", "Wait until that job is done.", "busy")]

    def open_export(
        self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency, job: Job
    ) -> ContextManager[ExportSession]:
        if vm.power_state in ("off", "crashed"):
            return PoweredOffExport(self._connection, vm, disks)
        return RunningExport(self._connection, vm, disks, consistency, job, current_owner(), self._scratch_dir)

    def clean_up(self, vm: VmSpec) -> Sequence[str]:
        undone = []
        with translated(f"Looking for a backup of {vm.name}"):
            domain = self._connection.domain(vm.id)
            backup = current_backup(domain) if domain.isActive() else ""
        folder = folder_of(backup) if backup else None
        if backup and folder is None:
            raise VmferryError("busy", _foreign(vm).message, _foreign(vm).hint)
        if folder is not None:
            owner = folder.owner() or {}
            if folder.path.exists() and is_owner_alive(owner) is not False:
                job, pid = owner.get("job", "unknown"), owner.get("pid", "unknown")
                raise VmferryError("busy", f"{vm.name} is being exported already, by job {job} (process {pid}).")
            with translated(f"Ending the backup of {vm.name}"):
                domain.abortJob()
            folder.remove()
            undone.append(f"Ended the backup of {vm.name} that a job that died had left running.")
        return [*undone, *self._remove_dead_folders()]

    def _remove_dead_folders(self) -> list[str]:
        removed = []
        for path in sorted(Path(self._scratch_dir).glob(f"{PREFIX}*-*")):
            folder = WorkFolder(path)
            owner = folder.owner()
            if owner is not None and is_owner_alive(owner) is False:
                folder.remove()
                removed.append(f"Removed the scratch folder {path} of a job that died.")
        return removed

    # --- import -----------------------------------------------------------------------------------------------------

    def imported(self, name: str) -> tuple[VmSpec, str] | None:
        try:
            domain = self._connection.domain(name)
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise
        with translated(f"Describing {name}"):
            return describe(domain), imported_from(domain.XMLDesc())

    def check_import(self, vm: VmSpec, placement: Placement, export_id: str) -> Sequence[Finding]:
        findings = []
        needed: dict[Path, int] = {}
        for number, disk in enumerate(vm.disks):
            try:
                folder = self._folder(disk, placement)
            except VmferryError as error:
                findings.append(Finding("error", error.message, error.hint, error.kind))
                continue
            needed[folder] = needed.get(folder, 0) + (disk.size if disk.allocated is None else disk.allocated)
            for suffix in SUFFIXES.values():
                path = folder / f"{placement.name}-disk-{number}.{suffix}"
                if os.path.lexists(path):
                    hint = "Choose another name or another storage."
                    findings.append(Finding("error", f"{path} exists and is not this import's own.", hint, "conflict"))
        for folder, count in needed.items():
            free = shutil.disk_usage(folder).free
            if free < count:
                message = f"{folder} has {free} bytes free, and {count} are needed for {placement.name}."
                findings.append(Finding("warning", message, "Free some space, or choose another storage.", "no_space"))
        return [*findings, *self._check_networks(vm, placement)]

    def _check_networks(self, vm: VmSpec, placement: Placement) -> list[Finding]:
        connection = self._connection.open()
        with translated("Listing the networks"):
            known = {network.name() for network in connection.listAllNetworks()} if vm.nics else set()
        findings = []
        for nic in vm.nics:
            mapped = placement.network_map.get(nic.mac) or placement.network_map.get(nic.network)
            wanted = mapped or (nic.network if nic.kind not in ("user", "bridge") else "")
            if wanted and wanted not in known:
                hint = f"Map it with network_map. Known: {', '.join(sorted(known)) or 'none'}."
                findings.append(
                    Finding("error", f"There is no network {wanted!r} here, for {nic.mac}.", hint, "not_found")
                )
        return findings

    def open_import(
        self, vm: VmSpec, native: Mapping[str, bytes], placement: Placement, export_id: str, job: Job
    ) -> ContextManager[ImportSession]:
        folders = [self._folder(disk, placement) for disk in vm.disks]
        for folder in set(folders):
            for path in leftovers(folder, placement.name):
                if not _in_use(path):
                    path.unlink()
        return LibvirtImport(self._connection, vm, native, placement, folders, export_id, job)

    def _folder(self, disk: DiskSpec, placement: Placement) -> Path:
        """A pool's folder or a path. Pools of block volumes are not a place for new files."""
        storage = placement.storage_map.get(disk.id) or placement.storage_map.get(disk.name) or placement.storage
        if not storage:
            storage = "default" if self._has_pool("default") else DEFAULT_IMAGES
        if storage.startswith("/"):
            folder = Path(storage)
        else:
            folder = self._pool_folder(storage)
        if not folder.is_dir():
            raise VmferryError(
                "not_found", f"The folder {folder} for the disks does not exist.", "Make it, or name another."
            )
        return folder

    def _has_pool(self, name: str) -> bool:
        with translated("Listing the storage pools"):
            return name in {pool.name() for pool in self._connection.open().listAllStoragePools()}

    def _pool_folder(self, name: str) -> Path:
        with translated(f"Looking up the storage pool {name}"):
            root = ET.fromstring(self._connection.open().storagePoolLookupByName(name).XMLDesc())
        if root.get("type") not in ("dir", "fs", "netfs"):
            hint = "Name a pool of files, or a folder."
            raise VmferryError("unsupported", f"The pool {name} holds {root.get('type')} volumes, not files.", hint)
        return Path(root.findtext("target/path", ""))


def _foreign(vm: VmSpec) -> Finding:
    message = f"Another program is backing up {vm.name}; only one backup of a VM can run at a time."
    return Finding("error", message, f"Wait for it, or end it with: virsh domjobabort {vm.name}", "busy")


def _in_use(path: Path) -> bool:
    """By a qemu-nbd of an import that lives."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(path).encode() in process.read_bytes():
                return True
        except OSError:
            continue
    return False
