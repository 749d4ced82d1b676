# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider of Proxmox VE: VMs of a cluster are described, exported, made, started, stopped and removed, and their
snapshots managed.

Ansible's modules are compiled anew at every start, so what only some tasks need is imported where it is needed.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Collection, ContextManager, Iterator, Mapping, Sequence

from ..._errors import VmferryError
from ..base import Consistency, ExportSession, ImportSession, Placement, Provider, Tracking, Undone
from ..finding import Finding
from ..job import Job
from ..snapshots import SnapshotService
from ..spec import DiskSpec, VmSpec
from .session import Session
from .settings import ProxmoxSettings

if TYPE_CHECKING:
    from ..._transfer.flow import Flow
    from .keeper import Keeper
    from .open_nodes import OpenNodes


class ProxmoxProvider(Provider):
    """Settings: those of `ProxmoxSettings`. Nothing is asked of it before the first call. A VM's id is its vmid."""

    name = "proxmox"
    has_tags = True
    reads_back = True
    max_jobs = 4

    def __init__(self, settings: Mapping[str, Any], flow: Flow | None = None) -> None:
        """`flow`: of the job that works with it."""
        self._flow = flow
        self._settings = ProxmoxSettings.from_options(settings)
        self._session = Session(self._settings)
        self._nodes: OpenNodes | None = None

    @property
    def account(self) -> str:
        """A cluster, by whichever of its nodes it is reached."""
        return f"proxmox {self._session.site}"

    def vms(self) -> Sequence[VmSpec]:
        return self.vms_like({})

    def vms_like(self, filters: Mapping[str, str]) -> Sequence[VmSpec]:
        from .describe import describe_all

        return describe_all(self._session, filters)

    def describe(self, vm: str) -> VmSpec:
        return self.describe_each([vm])[0]

    def describe_each(self, vms: Sequence[str]) -> Sequence[VmSpec]:
        from .describe import describe_each

        return describe_each(self._session, vms)

    def check_export(self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency) -> Sequence[Finding]:
        from .export_checks import export_findings

        return export_findings(self._session, self._open_nodes(), vm, disks, consistency)

    def open_export(
        self,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        tracking: Tracking = Tracking(),  # noqa: B008 - it never changes
    ) -> ContextManager[ExportSession]:
        from .export_session import is_off

        if is_off(vm):
            from .offline_export import OfflineExport

            return OfflineExport(self._session, self._settings, vm, disks, job, tracking)
        if consistency == "powered_off":
            raise VmferryError("conflict", f"{vm.name} is {vm.power_state}, not powered_off.", "Shut it down first.")
        from .live_export import LiveExport

        return LiveExport(self._session, self._settings, vm, disks, consistency, job, tracking)

    def changed_since(self, vm: VmSpec, disks: Sequence[DiskSpec], token: str) -> Mapping[str, int]:
        from .bitmaps import bytes_changed

        try:
            with self._keeper_of(vm) as keeper:
                return bytes_changed(keeper, vm, disks, token) if keeper else {}
        except VmferryError:
            return {}  # an estimate: whatever is wrong is found, and said, when it matters

    def tokens(self, vm: VmSpec) -> Sequence[str]:
        from .bitmaps import tokens

        with self._keeper_of(vm) as keeper:
            return tokens(keeper, vm) if keeper else ()

    def forget(self, vm: VmSpec, tokens: Sequence[str]) -> Sequence[str]:
        from .bitmaps import forget

        with self._keeper_of(vm) as keeper:
            return forget(keeper, vm, tokens) if keeper else ()

    def snapshots(self, vm: VmSpec) -> SnapshotService:
        from .snapshots import ProxmoxSnapshots

        return ProxmoxSnapshots(self._session, vm)

    def imported(self, name: str, folder: str = "") -> tuple[VmSpec, str] | None:
        """One that is not whole has another name."""
        from .import_found import made_as

        return made_as(self._session, name)

    def made_otherwise(self, vm: VmSpec, placement: Placement) -> str:
        from .import_found import made_otherwise

        return made_otherwise(vm, placement)

    def check_import(self, vm: VmSpec, placement: Placement, export_id: str) -> Sequence[Finding]:
        from .import_checks import import_findings

        return import_findings(self._session, vm, placement, export_id)

    def open_import(
        self, vm: VmSpec, native: Mapping[str, bytes], placement: Placement, export_id: str, job: Job
    ) -> ContextManager[ImportSession]:
        from .import_session import ProxmoxImport

        return ProxmoxImport(self._session, vm, native, placement, export_id, job, self._flow)

    def start(self, vm: VmSpec) -> VmSpec:
        from .power import start

        start(self._session, self.describe(vm.id))
        return self.describe(vm.id)

    def shut_down(self, vm: VmSpec, timeout: float, force: bool) -> VmSpec:
        from .power import shut_down

        shut_down(self._session, self.describe(vm.id), timeout, force)
        return self.describe(vm.id)

    def check_remove(self, vm: VmSpec, disks: bool) -> None:
        from .removal import insist_on_removable

        insist_on_removable(vm, disks)

    def remove(self, vm: VmSpec, disks: bool) -> Sequence[str]:
        from .import_leftovers import insist_on_no_import
        from .removal import insist_on_removable, remove_vm

        now = self.describe(vm.id)
        insist_on_no_import(now)
        insist_on_removable(now, disks)
        self.clean_up(now)  # raises where a job of ours still works on it
        return remove_vm(self._session, now, disks)

    def clean_up(
        self, vm: VmSpec, *, held_by: Collection[str] | None = None, dead: Collection[str] = ()
    ) -> Sequence[Undone]:
        """Nothing is held for a run that would go on, so `held_by` tells nothing."""
        if self._settings.transport == "api":
            return []  # which can make nothing on a node either
        from .leftovers import clean_up

        with self._open_nodes().keeper(vm.host) as keeper:
            return clean_up(keeper, self._session, vm, dead)

    def clean_up_imports(self) -> Sequence[tuple[str, str]]:
        from .import_leftovers import clean_up_imports

        return clean_up_imports(self._session)

    def undo(self, job_id: str) -> Sequence[str]:
        from .import_leftovers import undo_imports

        said = undo_imports(self._session, job_id)
        if self._settings.transport == "api":
            return said
        from .leftovers import undo_everywhere

        return [*said, *undo_everywhere(self._session, self._open_nodes(), job_id)]

    def close(self) -> None:
        if self._nodes is not None:
            self._nodes.close()
        self._session.close()

    def _open_nodes(self) -> OpenNodes:
        if self._nodes is None:
            from .open_nodes import OpenNodes

            self._nodes = OpenNodes(self._session)
        return self._nodes

    @contextmanager
    def _keeper_of(self, vm: VmSpec) -> Iterator[Keeper | None]:
        """None where its QEMU, which alone knows change tokens, does not run or cannot be reached by these settings."""
        from .export_session import is_off

        if is_off(vm) or self._settings.transport == "api":
            yield None
            return
        with self._open_nodes().keeper(vm.host) as keeper:
            yield keeper
