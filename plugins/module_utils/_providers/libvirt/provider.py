# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The libvirt provider: everything that `Provider` promises, each in a file of its own.

Ansible's modules are compiled anew at every start, so what only some tasks need is imported where it is needed.
"""

from __future__ import annotations

from typing import Any, Collection, ContextManager, Mapping, Sequence

from ..._errors import VmferryError
from ..base import (
    Consistency,
    ExportSession,
    ImportSession,
    Placement,
    Provider,
    Tracking,
    Undone,
)
from ..finding import Finding
from ..job import Job
from ..snapshots import Snapshot, SnapshotService
from ..spec import DiskSpec, VmSpec
from . import checkpoints
from .checks import export_findings
from .clean_up import clean_up, clean_up_gone_vms, clean_up_imports, undo_job
from .connection import Connection
from .describe import describe, describe_all
from .import_leftovers import import_mark
from .snapshots_abandoned import remove_abandoned, remove_abandoned_of
from .work_folder import DEFAULT_SCRATCH

DEFAULT_URI = "qemu:///system"
SETTINGS = ("uri", "scratch_dir")


class LibvirtProvider(Provider):
    """Settings: `uri` (of this host), `scratch_dir` (a folder on disk, below which every attempt has its own)."""

    name = "libvirt"
    has_tags = True
    reads_back = True
    exports_snapshots = True
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

    @property
    def site(self) -> str:
        return f"libvirt {self._connection.call('Asking the host for its name', lambda opened: opened.getHostname())}"

    def vms(self) -> Sequence[VmSpec]:
        return describe_all(self._connection)

    def describe(self, vm: str) -> VmSpec:
        return describe(self._connection, vm)

    def check_export(self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency) -> Sequence[Finding]:
        return export_findings(self._connection, vm, disks, consistency, self._scratch_dir)

    def open_export(
        self,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        tracking: Tracking = Tracking(),  # noqa: B008 - it never changes
    ) -> ContextManager[ExportSession]:
        if vm.power_state in ("powered_off", "crashed"):
            from .offline_export import OfflineExport

            return OfflineExport(self._connection, vm, disks, job, tracking, self._scratch_dir)
        if consistency == "powered_off":
            raise VmferryError("conflict", f"{vm.name} is {vm.power_state}, not powered_off.", "Shut it down first.")
        from .live_export import LiveExport

        return LiveExport(self._connection, vm, disks, consistency, job, tracking, self._scratch_dir)

    def check_snapshot_export(self, vm: VmSpec, disks: Sequence[DiskSpec], snapshot: str) -> Sequence[Finding]:
        from .snapshot_images import snapshot_findings

        return snapshot_findings(self._connection, vm, disks, snapshot)

    def open_snapshot_export(
        self, vm: VmSpec, disks: Sequence[DiskSpec], snapshot: str, job: Job, reference: Mapping[str, str] | None = None
    ) -> ContextManager[ExportSession]:
        from .snapshot_export import SnapshotExport

        return SnapshotExport(self._connection, vm, disks, snapshot, job, self._scratch_dir, reference)

    def consistency_of(self, snapshot: Snapshot) -> Consistency:
        from .snapshot_export import consistency_of

        return consistency_of(snapshot)

    def changed_since(self, vm: VmSpec, disks: Sequence[DiskSpec], token: str) -> Mapping[str, int]:
        from .since import bytes_changed

        try:
            return bytes_changed(self._connection, vm, disks, token, self._scratch_dir)
        except VmferryError:
            return {}  # an estimate: whatever is wrong is found, and said, when it matters

    def reopen_export(
        self, vm: VmSpec, disks: Sequence[DiskSpec], job: Job, tracking: Tracking, reference: Mapping[str, str]
    ) -> ContextManager[ExportSession]:
        off = vm.power_state in ("powered_off", "crashed")
        if off != (reference.get("kind") == "off"):
            raise VmferryError("not_found", f"{vm.name} was switched {'off' if off else 'on'} since.")
        if off:
            from .offline_export import OfflineExport

            return OfflineExport(self._connection, vm, disks, job, tracking, self._scratch_dir, reference)
        from .reopened_export import ReopenedLiveExport

        return ReopenedLiveExport(self._connection, vm, disks, job, tracking, self._scratch_dir, reference)

    def tokens(self, vm: VmSpec) -> Sequence[str]:
        return checkpoints.tokens(self._connection, vm.id)

    def forget(self, vm: VmSpec, tokens: Sequence[str]) -> Sequence[str]:
        return checkpoints.forget(self._connection, vm, tokens)

    def snapshots(self, vm: VmSpec) -> SnapshotService:
        from .snapshots import LibvirtSnapshots

        return LibvirtSnapshots(self._connection, vm, self._scratch_dir)

    def imported(self, name: str, folder: str = "") -> tuple[VmSpec, str] | None:
        try:
            vm = describe(self._connection, name)
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise
        return vm, import_mark(self._connection, vm.name).get("export", "")

    def made_otherwise(self, vm: VmSpec, placement: Placement) -> str:
        from ..placement_options import insist_on_known

        insist_on_known(placement, self.name)
        return ""

    def check_import(self, vm: VmSpec, placement: Placement, export_id: str) -> Sequence[Finding]:
        from .import_checks import import_findings

        return import_findings(self._connection, vm, placement, export_id, self._scratch_dir)

    def open_import(
        self, vm: VmSpec, native: Mapping[str, bytes], placement: Placement, export_id: str, job: Job
    ) -> ContextManager[ImportSession]:
        from .import_session import LibvirtImport

        return LibvirtImport(self._connection, vm, native, placement, export_id, job, self._scratch_dir)

    def start(self, vm: VmSpec) -> VmSpec:
        from .import_session import start

        start(self._connection, vm.id, vm.name)
        return describe(self._connection, vm.id)

    def shut_down(self, vm: VmSpec, timeout: float, force: bool) -> VmSpec:
        from .power_off import shut_down

        shut_down(self._connection, vm, timeout, force)
        return describe(self._connection, vm.id)

    def remove(self, vm: VmSpec, disks: bool) -> Sequence[str]:
        from .removal import remove_vm

        self.clean_up(vm)  # raises where a job of ours still works on it
        return remove_vm(self._connection, describe(self._connection, vm.id), disks)

    def clean_up(
        self, vm: VmSpec, *, held_by: Collection[str] | None = None, dead: Collection[str] = ()
    ) -> Sequence[Undone]:
        undone = clean_up(self._connection, vm, self._scratch_dir, held_by)
        said = remove_abandoned(self._connection, vm, self._scratch_dir)
        said += clean_up_gone_vms(self._connection, self._scratch_dir)
        said += [sentence for _unused, sentence in self.clean_up_imports()]
        return [*undone, *map(Undone, said)]

    def clean_up_imports(self) -> Sequence[tuple[str, str]]:
        return clean_up_imports(self._connection, self._scratch_dir)

    def undo(self, job_id: str) -> Sequence[str]:
        said = undo_job(self._connection, job_id, self._scratch_dir)
        return [*said, *remove_abandoned_of(self._connection, job_id, self._scratch_dir)]

    def close(self) -> None:
        self._connection.close()
