# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm_import` does: a VM made of an export, every block checked against what was read at the source."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from typing import Any, Callable, ContextManager, Mapping, Sequence

from .._errors import VmferryError
from .._exports.artifacts import LIMIT, NAMES, is_of_others
from .._exports.catalog import Catalog, CatalogEntry
from .._exports.chain import chain_of
from .._exports.naming import new_attempt
from .._providers.base import Below, ImportSession, Provider
from .._providers.finding import Finding
from .._providers.job import Job
from .._providers.spec import VmSpec
from .._stores.base import Store
from .._transfer.progress import DiskProgress
from .importing.foresee_import import foreseen
from .jobs.fill_disks import DiskContent, Proved, fill_disks
from .jobs.findings import checked, insist_on_same, raise_first_error
from .jobs.requests import ImportRequest
from .jobs.running_job import RunningJob
from .stored.image_names import names_image
from .stored.readable_chain import held_still, readable_chain
from .stored.results import begun_anew, export_result
from .stored.stored_disk import insist_on_keys, layers_of
from .stored.stored_machine import read_machine
from .stored.stored_proof import proved_changes, proved_disk
from .vm_files.open import open_import_target

APPLIANCES = (".ova", ".ova.gz", ".ovf", ".json")  # the last: an Artifact Manifest
ARCHIVES = (".vma", ".vma.gz", ".vma.zst", ".vma.lzo")  # of Proxmox VE


def import_vm(request: ImportRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`."""
    if request.store.url.lower().endswith(APPLIANCES):
        from .importing.import_appliance import import_appliance

        return import_appliance(request, check_mode)
    if request.store.url.lower().endswith(ARCHIVES):
        from .importing.import_vma import import_vma

        return import_vma(request, check_mode)
    if names_image(request.store.url):
        from .importing.import_image import import_image

        return import_image(request, check_mode)
    if request.networks is not None:
        raise VmferryError(
            "invalid_config",
            "hardware.networks is about VMs that are made of a disk image; an export says what network cards it has.",
            "Leave it out, and say with network_map where they go.",
        )
    with ExitStack() as stack:
        name = request.placement.name
        job = stack.enter_context(
            RunningJob.start("import", request.transfer, name, request.store.url, {"importing": 1.0}, check_mode)
        )
        provider = stack.enter_context(closing(open_import_target(request, job)))
        store = stack.enter_context(closing(job.open_store(request.store)))
        job.phase("validating")
        artifacts = job.ask(lambda: _artifacts_in(request, store))
        if artifacts:
            from .importing.import_appliance import import_artifacts

            return import_artifacts(request, job, provider, store, artifacts, check_mode)
        return _Import(request, job, provider, store).run(check_mode)


def _artifacts_in(request: ImportRequest, store: Store) -> str:
    """The key of a manifest by another tool, where the URL is the folder it lies in. A task that says anything of an
    export, or whom to trust, gets an export or nothing."""
    if request.export or request.vm or request.source_vm is not None or request.seals.trusts:
        return ""
    try:
        for name in NAMES:
            text = store.read_whole(name, LIMIT)
            if text is not None and is_of_others(text):
                return name
    except VmferryError as error:
        if error.kind != "not_found":  # of such a root, which whoever looks for exports tells better
            raise
    return ""


class _Import:
    def __init__(self, request: ImportRequest, job: RunningJob, provider: Provider, store: Store) -> None:
        self._request, self._job, self._provider, self._store = request, job, provider, store
        self._catalog = Catalog(store, request.seals)
        self._chain: Sequence[CatalogEntry] = ()
        self._died = ""  # what became of a run before this one, of the same VM

    def run(self, check_mode: bool) -> dict[str, Any]:
        self._job.phase("validating")
        if check_mode:
            ahead = self._job.ask(lambda: foreseen(self._request, self._provider, self._store))
            if ahead is not None:
                return ahead
        if not check_mode:  # or the files of a dead run of this very task would stand in its way
            self._job.supervise(self._undo_the_dead)
        placement = self._request.placement
        entry, present = self._job.ask(self._find)
        if present is not None and present[1] == entry.manifest.export_id:
            vm = present[0]
            insist_on_same(self._provider, vm, placement)
            if placement.power_on and vm.power_state in ("powered_off", "crashed"):
                return self._started(entry, vm, check_mode)
            return self._result(entry, vm, changed=False)
        exported, native, findings = self._job.ask(lambda: self._check(entry))
        if check_mode:
            after = {"vm": placement.name, "export": entry.manifest.export_id}
            return {**checked(findings, _plan(self._chain), {}, after), "job": self._job.as_result()}
        raise_first_error(findings)
        self._job.wait_for_slot(self._provider)
        vm = self._job.supervise(lambda: self._import(self._chain, exported, native))
        made = self._result(entry, vm, changed=True)
        return {**made, "resumed": begun_anew(self._died)} if self._died else made

    def _undo_the_dead(self) -> None:
        for vm, sentence in self._provider.clean_up_imports():
            self._job.log("warning", sentence)
            if vm == self._request.placement.name:
                self._died = sentence

    def _find(self) -> tuple[CatalogEntry, tuple[VmSpec, str] | None]:
        """The export, and the VM of that name with the export that it was made of."""
        self._store.require_root()
        entry = self._catalog.find(self._request.export, self._request.vm)
        present = self._provider.imported(self._request.placement.name, self._request.placement.folder)
        if present is not None and present[1] == entry.manifest.export_id:
            with suppress(VmferryError):  # what is imported needs its chain no more
                self._chain = chain_of(entry, self._catalog.beside(entry))
        return entry, present

    def _check(self, entry: CatalogEntry) -> tuple[VmSpec, Mapping[str, bytes], Sequence[Finding]]:
        self._chain = readable_chain(self._store, entry, self._catalog.beside(entry))
        insist_on_keys(self._store, self._chain)
        exported, native = read_machine(self._store, entry)
        exported = exported.without_drives(self._request.detach)
        findings = self._provider.check_import(exported, self._request.placement, entry.manifest.export_id)
        return exported, native, findings

    def _started(self, entry: CatalogEntry, vm: VmSpec, check_mode: bool) -> dict[str, Any]:
        """Imported before, but never started, or not any more."""
        diff = {"before": {"power_state": vm.power_state}, "after": {"power_state": "powered_on"}}
        if check_mode:
            plan = _plan([entry], disks=False)
            return {"changed": True, "findings": [], "plan": plan, "diff": diff, "job": self._job.as_result()}
        vm = self._job.supervise(lambda: self._provider.start(vm))
        return {**self._result(entry, vm, changed=True), "diff": diff}

    def _result(self, entry: CatalogEntry, vm: VmSpec, *, changed: bool) -> dict[str, Any]:
        after = {"vm": vm.name, "export": entry.manifest.export_id}
        return {
            "changed": changed,
            "vm": vm.as_dict(),
            "export": export_result(self._store, entry, self._chain),
            "job": self._job.as_result(),
            "diff": {"before": {} if changed else after, "after": after},
            "warnings": list(self._job.warnings),
        }

    def _import(self, chain: Sequence[CatalogEntry], exported: VmSpec, native: Mapping[str, bytes]) -> VmSpec:
        entry = chain[-1]
        made = entry.manifest.export_id
        self._job.phase("creating")
        owner = Job(self._job.id, new_attempt())
        disks = self._provider.open_import(exported, native, self._request.placement, made, owner)
        with self._job.session(disks) as session:
            below = self._stand_on(session, chain)
            self._job.phase("importing", [(disk.id, disk.size) for disk in entry.manifest.disks])
            for warning in session.warnings:
                self._job.warn(warning)
            contents = [
                DiskContent(self._opener(chain, disk.id, one)) for disk, one in zip(entry.manifest.disks, below)
            ]
            with held_still(self._job, self._store, chain):
                fill_disks(self._job, session, contents)
            self._job.phase("creating")
            vm = session.commit()
        for warning in session.warnings:  # of what stays, or is left
            if warning not in self._job.warnings:
                self._job.warn(warning)
        return vm

    def _stand_on(self, session: ImportSession, chain: Sequence[CatalogEntry]) -> Sequence[Below | None]:
        """Of each disk, what the provider has of it already. Nothing where the session writes them by itself."""
        entry = chain[-1]
        sizes = [disk.size for disk in entry.manifest.disks]
        fitting = [one for one in chain[:-1] if [disk.size for disk in one.manifest.disks] == sizes]
        exports = [one.manifest.export_id for one in fitting if not session.takes_disks]
        found = self._job.ask(lambda: session.stand_on(exports)) if exports else ()
        for disk, below in zip(entry.manifest.disks, found):
            of_export = f"begun from export {below.export}, which was imported before" if below else "written whole"
            self._job.log("info", f"{disk.id} is {of_export}.")
        return found or [None] * len(sizes)

    def _opener(
        self, chain: Sequence[CatalogEntry], disk_id: str, below: Below | None
    ) -> Callable[[DiskProgress], ContextManager[Proved]]:
        layers = layers_of(chain, disk_id)
        if below is None:
            return lambda progress: proved_disk(self._job, self._store, layers, progress)
        number = [one.manifest.export_id for one in chain].index(below.export)
        newer, unit = layers_of(chain[number + 1 :], disk_id), below.unit
        return lambda progress: proved_changes(self._job, self._store, layers, newer, unit, progress)


def _plan(chain: Sequence[CatalogEntry], *, disks: bool = True) -> dict[str, Any]:
    """`disks`: whether any has to be read. Bytes are an upper bound: what a layer hides is not read below it."""
    entry = chain[-1]
    stored = {disk.id: layers_of(chain, disk.id) for disk in entry.manifest.disks} if disks else {}
    bytes_of = {disk: sum(layer.record.bytes_stored for layer in layers) for disk, layers in stored.items()}
    return {
        "export": entry.manifest.export_id,
        "disks": [
            {"id": disk.id, "size": disk.size, "bytes_to_read": bytes_of[disk.id]}
            for disk in entry.manifest.disks
            if disks
        ],
        "bytes_to_read": sum(bytes_of.values()),
    }
