# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The AWS provider: instances of EC2 are described, started, stopped and removed, and snapshots of them managed.

Ansible's modules are compiled anew at every start, so what only some tasks need is imported where it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Collection, ContextManager, Mapping, Sequence

from ..._errors import VmferryError
from ..base import (
    Consistency,
    ExportMethod,
    ExportSession,
    ImportSession,
    OpenStaging,
    Placement,
    Provider,
    Tracking,
    Undone,
    VendorTask,
)
from ..finding import Finding
from ..job import Job
from ..snapshots import Snapshot, SnapshotService
from ..spec import DiskSpec, VmSpec
from .session import Session
from .settings import AwsSettings

if TYPE_CHECKING:
    from ..._transfer.flow import Flow


class AwsProvider(Provider):
    """Settings: those of `AwsSettings`. Nothing is asked of AWS before the first call. A VM's id is its instance's."""

    name = "aws"
    has_tags = True
    reads_back = True
    exports_snapshots = True
    max_jobs = 3

    def __init__(self, settings: Mapping[str, Any], flow: Flow | None = None) -> None:
        """`flow`: of the job that works with it."""
        self._flow = flow
        self._settings = AwsSettings.from_options(settings)
        self._session = Session(self._settings)
        self._task: VendorTask | None = None  # by which exports are read; None: by EBS direct
        self._import_task: VendorTask | None = None  # by which disks of imports are made; None: by EBS direct
        self._open_staging: OpenStaging | None = None

    @property
    def account(self) -> str:
        return f"aws {self._session.account} {self._session.region}"

    def vms(self) -> Sequence[VmSpec]:
        return self.vms_like({})

    def vms_like(self, filters: Mapping[str, str]) -> Sequence[VmSpec]:
        from .describe import describe_all

        return describe_all(self._session, filters)

    def describe(self, vm: str) -> VmSpec:
        return self.describe_each([vm])[0]

    def describe_each(self, vms: Sequence[str]) -> Sequence[VmSpec]:
        from .lookup import described

        return described(self._session, vms)

    def check_export(self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency) -> Sequence[Finding]:
        from .export_checks import export_findings

        if self._task is None:
            return export_findings(self._session, vm, disks, consistency)
        from .vendor_checks import vendor_findings

        found = export_findings(self._session, vm, disks, consistency, by_blocks=False)
        return [*found, *vendor_findings(self._session, vm, disks, self._task)]

    def export_by(self, method: ExportMethod, task: VendorTask | None) -> None:
        if method == "vendor_task" and task is not None:
            from .staged_image import split_staging

            split_staging(task.staging)
            self._task = task

    def open_export(
        self,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        tracking: Tracking = Tracking(),  # noqa: B008 - it never changes
    ) -> ContextManager[ExportSession]:
        if self._task is not None:
            from .vendor_export import VendorExport

            return VendorExport(
                self._session, self.describe, vm, disks, consistency, job, tracking, self._flow, self._task
            )
        from .export_session import AwsExport

        return AwsExport(self._session, self.describe, vm, disks, consistency, job, tracking, self._flow)

    def reopen_export(
        self, vm: VmSpec, disks: Sequence[DiskSpec], job: Job, tracking: Tracking, reference: Mapping[str, str]
    ) -> ContextManager[ExportSession]:
        if self._task is not None:
            raise VmferryError("not_found", f"An export of {vm.name} by a task of AWS begins anew.")
        from .export_session import AwsExport

        return AwsExport(self._session, self.describe, vm, disks, "auto", job, tracking, self._flow, reference)

    def changed_since(self, vm: VmSpec, disks: Sequence[DiskSpec], token: str) -> Mapping[str, int]:
        if self._task is not None:
            return {}  # a task writes all of them
        from .change_token import bytes_changed

        return bytes_changed(self._session, vm, disks, token)

    def check_snapshot_export(self, vm: VmSpec, disks: Sequence[DiskSpec], snapshot: str) -> Sequence[Finding]:
        from .existing_snapshot import existing_snapshot_findings

        return existing_snapshot_findings(self._session, vm, disks, snapshot, self._task is None)

    def open_snapshot_export(
        self, vm: VmSpec, disks: Sequence[DiskSpec], snapshot: str, job: Job, reference: Mapping[str, str] | None = None
    ) -> ContextManager[ExportSession]:
        from .existing_snapshot import ExistingSnapshotExport

        return ExistingSnapshotExport(self._session, self.describe, vm, disks, snapshot, self._flow, reference)

    def consistency_of(self, snapshot: Snapshot) -> Consistency:
        from .existing_snapshot import consistency_of

        return consistency_of(snapshot)

    def gone_vms(self) -> Sequence[VmSpec]:
        from .change_token import gone_vms

        return gone_vms(self._session)

    def tokens(self, vm: VmSpec) -> Sequence[str]:
        from .change_token import tokens

        return tokens(self._session, vm)

    def forget(self, vm: VmSpec, tokens: Sequence[str]) -> Sequence[str]:
        from .change_token import forget

        return forget(self._session, vm, tokens)

    def snapshots(self, vm: VmSpec) -> SnapshotService:
        from .snapshots import AwsSnapshots

        return AwsSnapshots(self._session, vm)

    def imported(self, name: str, folder: str = "") -> tuple[VmSpec, str] | None:
        from .imported import imported

        return imported(self._session, name, self.describe)

    def made_otherwise(self, vm: VmSpec, placement: Placement) -> str:
        from .import_checks import insist_on_options
        from .imported import made_otherwise

        insist_on_options(placement)
        return made_otherwise(vm, placement)

    def import_by(self, method: ExportMethod, task: VendorTask | None, open_staging: OpenStaging | None = None) -> None:
        if method == "vendor_task" and task is not None:
            from .staged_image import split_staging

            split_staging(task.staging)
            self._import_task, self._open_staging, self.takes_disks = task, open_staging, True

    def check_import(self, vm: VmSpec, placement: Placement, export_id: str) -> Sequence[Finding]:
        from .import_checks import import_findings

        found = import_findings(self._session, vm, placement, export_id)
        if self._import_task is None:
            return found
        from .task_import_checks import task_findings

        return list(dict.fromkeys([*found, *task_findings(self._session, vm, placement, self._import_task)]))

    def open_import(
        self, vm: VmSpec, native: Mapping[str, bytes], placement: Placement, export_id: str, job: Job
    ) -> ContextManager[ImportSession]:
        if self._import_task is not None:
            from .task_import import TaskImport

            if self._open_staging is None:
                raise VmferryError("internal", "Images are to be written for a task, and nobody opens their store.")
            staged = (self._import_task, self._open_staging)
            return TaskImport(self._session, vm, placement, export_id, job, self._flow, self.describe, *staged)
        from .import_session import AwsImport

        return AwsImport(self._session, vm, placement, export_id, job, self._flow, self.describe)

    def start(self, vm: VmSpec) -> VmSpec:
        from .power import start

        start(self._session, vm)
        return self.describe(vm.id)

    def shut_down(self, vm: VmSpec, timeout: float, force: bool) -> VmSpec:
        from .power import shut_down

        shut_down(self._session, vm, timeout, force)
        return self.describe(vm.id)

    def remove(self, vm: VmSpec, disks: bool) -> Sequence[str]:
        from .leftovers import clean_up
        from .removal import insist_on_removable, remove_instance

        now = self.describe(vm.id)
        insist_on_removable(self._session, now)
        clean_up(self._session, now, (), held_too=True)  # raises where a job of ours still works on it
        said = remove_instance(self._session, now, disks)
        try:
            self.forget(now, self.tokens(now))  # of what is gone, nobody asks what changed
        except VmferryError as error:
            said.append(f"Snapshots by which exports of {now.name} asked what changed may stay: {error}")
        return said

    def clean_up(
        self, vm: VmSpec, *, held_by: Collection[str] | None = None, dead: Collection[str] = ()
    ) -> Sequence[Undone]:
        """Of what is held for a run that would go on with it, only what `dead` or `held_by` name: exports of an
        instance do not disturb each other."""
        from .leftovers import clean_up

        return clean_up(self._session, vm, {*dead, *(held_by or ())})

    def clean_up_imports(self) -> Sequence[tuple[str, str]]:
        from ..._transfer.flow import Flow
        from .import_leftovers import clean_up_imports

        flow = self._flow or Flow()
        found = clean_up_imports(self._session, flow)
        if self._import_task is None:  # which takes permissions that imports by EBS direct do without
            return found
        from .import_tasks_left import clean_up_tasks

        return [*found, *clean_up_tasks(self._session, flow, self._import_task.staging)]

    def undo(self, job_id: str) -> Sequence[str]:
        from ..._transfer.flow import Flow
        from .import_leftovers import undo_imports
        from .leftovers import undo_job

        flow = self._flow or Flow()
        undone = [*undo_job(self._session, job_id), *undo_imports(self._session, flow, job_id)]
        if self._import_task is None:  # as above
            return undone
        from .import_tasks_left import undo_tasks

        return [*undone, *undo_tasks(self._session, flow, job_id, self._import_task.staging)]

    def close(self) -> None:
        self._session.close()
