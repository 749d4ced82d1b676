# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The libvirt provider: everything that `Provider` promises, each in a file of its own."""

from __future__ import annotations

from typing import Any, ContextManager, Mapping, Sequence

from ..._errors import VmferryError
from ..base import Consistency, ExportSession, Finding, ImportSession, Job, Placement, Provider
from ..spec import DiskSpec, VmSpec
from .checks import export_findings
from .clean_up import clean_up, clean_up_imports, undo_job
from .connection import Connection
from .describe import describe, describe_all
from .import_checks import import_findings
from .import_leftovers import import_mark
from .import_session import LibvirtImport, start
from .live_export import LiveExport
from .offline_export import OfflineExport
from .work_folder import DEFAULT_SCRATCH

DEFAULT_URI = "qemu:///system"
SETTINGS = ("uri", "scratch_dir")


class LibvirtProvider(Provider):
    """Settings: `uri` (of this host), `scratch_dir` (a folder on disk, below which every attempt has its own)."""

    name = "libvirt"
    max_jobs = 4

    def __init__(self, settings: Mapping[str, Any]) -> None:
        unknown = sorted(set(settings) - set(SETTINGS))
        if unknown:
            hint = f"Known are {', '.join(SETTINGS)}."
            raise VmferryError("invalid_config", f"libvirt has no setting {', '.join(unknown)}.", hint)
        self._uri = str(settings.get("uri") or DEFAULT_URI)
        self._connection = Connection(self._uri)
        self._scratch_dir = str(settings.get("scratch_dir") or DEFAULT_SCRATCH)
        if not self._scratch_dir.startswith("/"):
            raise VmferryError("invalid_config", "scratch_dir must be an absolute path.")

    @property
    def account(self) -> str:
        return f"libvirt {self._uri}"

    def vms(self) -> Sequence[VmSpec]:
        return describe_all(self._connection)

    def describe(self, vm: str) -> VmSpec:
        return describe(self._connection, vm)

    def check_export(self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency) -> Sequence[Finding]:
        return export_findings(self._connection, vm, disks, consistency, self._scratch_dir)

    def open_export(
        self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency, job: Job
    ) -> ContextManager[ExportSession]:
        if vm.power_state in ("off", "crashed"):
            return OfflineExport(self._connection, vm, disks, job)
        if consistency == "powered_off":
            raise VmferryError("conflict", f"{vm.name} is {vm.power_state}, not off.", "Shut it down first.")
        return LiveExport(self._connection, vm, disks, consistency, job, self._scratch_dir)

    def imported(self, name: str) -> tuple[VmSpec, str] | None:
        try:
            vm = describe(self._connection, name)
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise
        return vm, import_mark(self._connection, vm.name).get("export", "")

    def check_import(self, vm: VmSpec, placement: Placement, export_id: str) -> Sequence[Finding]:
        return import_findings(self._connection, vm, placement, export_id, self._scratch_dir)

    def open_import(
        self, vm: VmSpec, native: Mapping[str, bytes], placement: Placement, export_id: str, job: Job
    ) -> ContextManager[ImportSession]:
        return LibvirtImport(self._connection, vm, native, placement, export_id, job, self._scratch_dir)

    def start(self, vm: VmSpec) -> VmSpec:
        start(self._connection, vm.id, vm.name)
        return describe(self._connection, vm.id)

    def clean_up(self, vm: VmSpec) -> Sequence[str]:
        return [
            *clean_up(self._connection, vm, self._scratch_dir),
            *clean_up_imports(self._connection, self._scratch_dir),
        ]

    def undo(self, job_id: str) -> Sequence[str]:
        return undo_job(self._connection, job_id, self._scratch_dir)

    def close(self) -> None:
        self._connection.close()
