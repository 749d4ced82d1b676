# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider `image`: VMs that are files, an OVA, an OVF or disk images, on a path or in any store."""

from __future__ import annotations

from typing import Callable, Collection, ContextManager, Mapping, NoReturn, Sequence

from ..._errors import VmferryError
from ..._providers.base import (
    Consistency,
    ExportSession,
    ImportSession,
    Placement,
    Provider,
    Tracking,
    Undone,
)
from ..._providers.finding import Finding
from ..._providers.job import Job
from ..._providers.spec import DiskSpec, VmSpec
from ..._stores.base import Store
from ..._transfer.flow import Flow
from ..._transfer.record import without_secrets
from ..jobs.findings import raise_first_error
from .described import MADE_AS, MADE_OF, PROVIDER, describe, unreadable, vm_id
from .file_place import FilePlace
from .inventory import FileVm, all_vms, vms_at

# Kinds of errors that say something of the files of one VM, and nothing of the others.
_OF_ONE_VM = ("invalid_config", "unsupported", "checksum_mismatch", "permission_denied")
_READ_ONLY = "Files have no hypervisor: import the VM to one first, with vmferry.migrate.vm_import."


class ImageProvider(Provider):
    """A VM is named by its path below the store's URL, by a pattern of such paths, by its name or by its id."""

    name = PROVIDER
    takes_disks = True
    exports_leave = False
    max_jobs = 4

    def __init__(
        self,
        store: Store,
        *,
        is_path: bool,
        keeps_metadata: bool = False,
        alive: Callable[[], object] = lambda: None,
        flow: Flow | None = None,
    ) -> None:
        """`is_path`: whether its objects are files of this host. `keeps_metadata`: whether they have words beside their
        bytes. `alive` is called while nothing but they is read. `flow`: of the job that writes there."""
        self._place, self._flow = FilePlace(store, is_path, keeps_metadata), flow
        self._store, self._is_path, self._alive = store, is_path, alive

    @property
    def account(self) -> str:
        return " ".join(filter(None, (PROVIDER, self._store.server, without_secrets(self._store.url))))

    def vms(self) -> Sequence[VmSpec]:
        return [self._told(vm) for vm in all_vms(self._store)]

    def describe(self, vm: str) -> VmSpec:
        return describe(self._store, self._found(vm), is_path=self._is_path)

    def check_export(self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency) -> Sequence[Finding]:
        from .checks import export_findings

        files = self._files_of(vm)
        return export_findings(self._store, files, vm, disks, consistency, is_path=self._is_path)

    def open_export(
        self,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        tracking: Tracking = Tracking(),  # noqa: B008 - it never changes
    ) -> ContextManager[ExportSession]:
        return self._session(vm, disks)

    def reopen_export(
        self, vm: VmSpec, disks: Sequence[DiskSpec], job: Job, tracking: Tracking, reference: Mapping[str, str]
    ) -> ContextManager[ExportSession]:
        return self._session(vm, disks, reference)

    def imported(self, name: str, folder: str = "") -> tuple[VmSpec, str] | None:
        """None also for what cannot be read: `check_import` finds that the name is taken."""
        from .layouts import paths_of

        for path in paths_of(name):
            if self._store.stat(path) is None:
                continue
            vm = self._told(FileVm(path, name))
            made_of = vm.details.get("appliance", {}).get(MADE_OF, "")
            return (vm, made_of) if vm.name == name else None
        return None

    def made_otherwise(self, vm: VmSpec, placement: Placement) -> str:
        from .landing import refused_options
        from .layouts import DEFAULT

        raise_first_error([*refused_options(placement)])
        made, asked = vm.details["appliance"].get(MADE_AS, ""), placement.disk_format or DEFAULT
        if made == asked:
            return ""
        where = self._store.object_url(vm.path)
        return f"{where} was imported from the same already, with the format {made}, and not {asked}."

    def check_import(self, vm: VmSpec, placement: Placement, export_id: str) -> Sequence[Finding]:
        from .import_checks import import_findings

        return import_findings(self._store, vm, placement)

    def open_import(
        self, vm: VmSpec, native: Mapping[str, bytes], placement: Placement, export_id: str, job: Job
    ) -> ContextManager[ImportSession]:
        from .import_session import FileImport

        return FileImport(self._place, vm, placement, export_id, job, self._flow or Flow())

    def start(self, vm: VmSpec) -> VmSpec:
        self._refuse(f"Starting {vm.name}")

    def shut_down(self, vm: VmSpec, timeout: float, force: bool) -> VmSpec:
        self._refuse(f"Shutting down {vm.name}")

    def remove(self, vm: VmSpec, disks: bool) -> Sequence[str]:
        self._refuse(f"Removing {vm.name}")

    def clean_up(
        self, vm: VmSpec, *, held_by: Collection[str] | None = None, dead: Collection[str] = ()
    ) -> Sequence[Undone]:
        """An export leaves nothing beside the files that it reads."""
        return ()

    def clean_up_imports(self) -> Sequence[tuple[str, str]]:
        """What cannot be told to be dead, and what cannot be read, is left alone."""
        from .import_note import abort_unfinished_notes, all_notes, is_over, undo

        abort_unfinished_notes(self._store)
        return [
            (note.intent.vm_name, undo(self._place, note))
            for note, info in all_notes(self._store)
            if is_over(self._store, note, info)
        ]

    def undo(self, job_id: str) -> Sequence[str]:
        from .import_note import all_notes, is_over, undo

        said = []
        for note, info in all_notes(self._store):
            if note.intent.job_id == job_id:
                if not is_over(self._store, note, info):
                    raise note.in_use(self._store)
                said.append(undo(self._place, note))
        return said

    def close(self) -> None:
        self._store.close()

    def _refuse(self, what: str) -> NoReturn:
        raise VmferryError("unsupported", f"{what} is not supported by the provider {PROVIDER}.", _READ_ONLY)

    def _session(
        self, vm: VmSpec, disks: Sequence[DiskSpec], reference: Mapping[str, str] | None = None
    ) -> ContextManager[ExportSession]:
        from .file_export import FileExport

        return FileExport(
            self._store,
            lambda: self._files_of(vm),
            vm,
            disks,
            is_path=self._is_path,
            alive=self._alive,
            reference=reference,
        )

    def _told(self, vm: FileVm) -> VmSpec:
        try:
            return describe(self._store, vm, is_path=self._is_path)
        except VmferryError as error:
            if error.retryable or error.kind not in _OF_ONE_VM:
                raise
            return unreadable(self._store, vm, error.message, is_path=self._is_path)

    def _files_of(self, vm: VmSpec) -> FileVm:
        """As they are now."""
        found = vms_at(self._store, vm.path)
        if len(found) != 1:
            raise VmferryError("not_found", f"{self._store.object_url(vm.path)} is gone.", "Look with vm_info.")
        if found[0].problem is not None:
            raise found[0].problem
        return found[0]

    def _found(self, vm: str) -> FileVm:
        at_path = vms_at(self._store, vm)
        if at_path:
            return at_path[0]
        everything = all_vms(self._store)
        found = [one for one in everything if vm in (self._id_of(one), self._name_of(one))]
        if not found:
            raise VmferryError(
                "not_found",
                f"There is no VM {vm} in {self._store.url}.",
                f"There are {', '.join(one.path for one in everything[:8]) or 'no images and no appliances'}.",
            )
        if len(found) > 1:
            raise VmferryError(
                "conflict",
                f"There are {len(found)} VMs called {vm} in {self._store.url}.",
                f"Name it by its path: {', '.join(one.path for one in found[:8])}.",
            )
        return found[0]

    def _id_of(self, vm: FileVm) -> str:
        return vm_id(self._store, vm, is_path=self._is_path)

    def _name_of(self, vm: FileVm) -> str:
        return self._told(vm).name if vm.is_appliance else vm.name
