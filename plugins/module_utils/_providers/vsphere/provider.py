# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vSphere provider. VMs are described, exported, made, started, stopped and removed, and their snapshots managed.

Ansible's modules are compiled anew at every start, so what only some tasks need is imported where it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Collection, ContextManager, Mapping, Sequence

from ..._errors import VmferryError
from ..base import Consistency, ExportSession, ImportSession, Placement, Provider, Tracking, Undone
from ..finding import Finding
from ..job import Job
from ..snapshots import SnapshotService
from ..spec import DiskSpec, VmSpec
from .describe import describe_all, describe_these
from .session import Session
from .settings import VsphereSettings

if TYPE_CHECKING:
    from ..._transfer.flow import Flow


class VsphereProvider(Provider):
    """Settings: those of `VsphereSettings`. Nothing is asked of the server before the first call."""

    name = "vsphere"
    has_folders = True
    takes_disks = True
    max_jobs = 3

    def __init__(self, settings: Mapping[str, Any], flow: Flow | None = None) -> None:
        """`flow`: of the job that works with it."""
        self._flow = flow
        self._settings = VsphereSettings.from_options(settings)
        self._session = Session(self._settings)

    @property
    def account(self) -> str:
        return f"vsphere {self._settings.address}"

    @property
    def site(self) -> str:
        """An ESXi host of its own may have no such UUID."""
        about = self._session.read("Asking vSphere who it is", lambda content: content.about)
        return f"vsphere {about.instanceUuid or self._settings.address}"

    def vms(self) -> Sequence[VmSpec]:
        return describe_all(self._session)

    def describe(self, vm: str) -> VmSpec:
        return self._found([vm])[0]

    def describe_each(self, vms: Sequence[str]) -> Sequence[VmSpec]:
        """With how the disks of each could be exported, if they are few: that is tried on each disk."""
        from .export_methods import with_export_methods

        return with_export_methods(self._settings, self._session, self._found(vms))

    def _found(self, vms: Sequence[str]) -> list[VmSpec]:
        from .lookup import Lookup

        lookup = Lookup(self._session)
        doing = f"Describing {vms[0]}" if len(vms) == 1 else f"Describing {len(vms)} VMs"
        return describe_these(self._session, [lookup.find(vm) for vm in vms], doing)

    def check_export(self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency) -> Sequence[Finding]:
        from .export_checks import export_findings

        return export_findings(self._session, vm, disks, consistency)

    def open_export(
        self,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        tracking: Tracking = Tracking(),  # noqa: B008 - it never changes
    ) -> ContextManager[ExportSession]:
        from .disk_servers import DiskServers
        from .export_session import VsphereExport

        servers = DiskServers(self._settings, self._session)
        return VsphereExport(self._settings, self._session, servers, vm, disks, consistency, job, tracking, self._flow)

    def changed_since(self, vm: VmSpec, disks: Sequence[DiskSpec], token: str) -> Mapping[str, int]:
        from .readers import may_be_read_at_random
        from .tracking import bytes_changed

        asked = [disk for disk in disks if may_be_read_at_random(self._settings, vm, disk)]
        try:
            return bytes_changed(self._session, vm, asked, token)
        except VmferryError:
            return {}  # an estimate: whatever is wrong is found, and said, when it matters

    def snapshots(self, vm: VmSpec) -> SnapshotService:
        from .snapshots import VsphereSnapshots

        return VsphereSnapshots(self._session, vm)

    def imported(self, name: str, folder: str = "") -> tuple[VmSpec, str] | None:
        """One that is not whole is none: `check_import` finds it, or it is removed."""
        from ..import_mark import UNFINISHED
        from .import_leftovers import called, machines
        from .import_places import ImportPlaces

        where = ImportPlaces(self._session, Placement(name, folder=folder)).folder_of_name() if folder else ""
        found = called(machines(self._session), name, where)
        ours = [one for one in found if one.mark is not None]
        for one in ours or found:
            if one.mark is not None and one.mark.state == UNFINISHED:
                continue
            vm = describe_these(self._session, [one.moref], f"Describing {name}")[0]
            return vm, one.mark.export if one.mark is not None else ""
        return None

    def made_otherwise(self, vm: VmSpec, placement: Placement) -> str:
        from ..placement_options import IN_A_CLOUD, ON_PROXMOX, insist_on_known
        from .import_hardware import new_disks

        insist_on_known(placement, self.name, (*IN_A_CLOUD, *ON_PROXMOX))
        new_disks(vm, placement)
        if placement.disk_format not in ("", "vmdk"):
            hint = "Leave placement.disk_format out."
            raise VmferryError("invalid_config", f"Disks on vSphere are VMDKs, not {placement.disk_format}.", hint)
        if placement.firmware and placement.firmware != vm.firmware:
            return f"{vm.name} was imported from the same already, with the firmware {vm.firmware}."
        return ""

    def check_import(self, vm: VmSpec, placement: Placement, export_id: str) -> Sequence[Finding]:
        from .import_checks import import_findings

        return import_findings(self._session, vm, placement, export_id)

    def open_import(
        self, vm: VmSpec, native: Mapping[str, bytes], placement: Placement, export_id: str, job: Job
    ) -> ContextManager[ImportSession]:
        from .import_session import VsphereImport

        how = (self._session, self._settings, vm, native, placement, export_id, job, self._flow)
        return VsphereImport(*how)

    def start(self, vm: VmSpec) -> VmSpec:
        from .power import start

        start(self._session, vm)
        return self._again(vm)

    def shut_down(self, vm: VmSpec, timeout: float, force: bool) -> VmSpec:
        from .power import shut_down

        shut_down(self._session, vm, timeout, force)
        return self._again(vm)

    def remove(self, vm: VmSpec, disks: bool) -> Sequence[str]:
        from .removal import remove_vm

        self.clean_up(vm)  # raises where a job of ours still works on it
        return remove_vm(self._session, self._again(vm), disks)

    def clean_up(
        self, vm: VmSpec, *, held_by: Collection[str] | None = None, dead: Collection[str] = ()
    ) -> Sequence[Undone]:
        """Nothing is held there. What an export that is committed left is needed by nobody, wherever it ran."""
        from .leftovers import clean_up

        return clean_up(self._session, vm, {*dead, *(held_by or ())})

    def clean_up_imports(self) -> Sequence[tuple[str, str]]:
        from .import_leftovers import clean_up_imports

        return clean_up_imports(self._session)

    def undo(self, job_id: str) -> Sequence[str]:
        from .import_leftovers import undo_imports
        from .leftovers import undo_job

        return [*undo_job(self._session, job_id), *undo_imports(self._session, job_id)]

    def close(self) -> None:
        self._session.close()

    def _again(self, vm: VmSpec) -> VmSpec:
        return describe_these(self._session, [vm.details["moref"]], f"Describing {vm.name}")[0]
