# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm_import` does: a VM made of an export, every block checked against what was read at the source."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from typing import Any, Mapping, Sequence

from .._errors import VmferryError
from .._exports.catalog import Catalog, CatalogEntry
from .._exports.chain import chain_of
from .._exports.naming import new_attempt
from .._providers.base import Provider
from .._providers.finding import Finding
from .._providers.job import Job
from .._providers.open import open_provider
from .._providers.spec import VmSpec
from .._stores.base import Store
from .export_plan import checked, raise_first_error
from .foresee_import import foreseen
from .requests import ImportRequest
from .results import export_result
from .running_job import RunningJob
from .stored_disk import layers_of
from .stored_machine import read_machine
from .stored_proof import copy_checked


def import_vm(request: ImportRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`."""
    with ExitStack() as stack:
        name = request.placement.name
        job = stack.enter_context(
            RunningJob.start("import", request.transfer, name, request.store.url, {"importing": 1.0}, check_mode)
        )
        provider = stack.enter_context(closing(open_provider(request.provider.name, request.provider.settings)))
        store = stack.enter_context(closing(job.open_store(request.store)))
        return _Import(request, job, provider, store).run(check_mode)


class _Import:
    def __init__(self, request: ImportRequest, job: RunningJob, provider: Provider, store: Store) -> None:
        self._request, self._job, self._provider, self._store = request, job, provider, store
        self._catalog = Catalog(store)
        self._chain: Sequence[CatalogEntry] = ()

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
        return self._result(entry, vm, changed=True)

    def _undo_the_dead(self) -> None:
        for sentence in self._provider.clean_up_imports():
            self._job.log("warning", sentence)

    def _find(self) -> tuple[CatalogEntry, tuple[VmSpec, str] | None]:
        """The export, and the VM of that name with the export that it was made of."""
        self._store.require_root()
        entry = self._catalog.find(self._request.export, self._request.vm)
        present = self._provider.imported(self._request.placement.name)
        if present is not None and present[1] == entry.manifest.export_id:
            with suppress(VmferryError):  # what is imported needs its chain no more
                self._chain = chain_of(entry, self._catalog.beside(entry))
        return entry, present

    def _check(self, entry: CatalogEntry) -> tuple[VmSpec, Mapping[str, bytes], Sequence[Finding]]:
        self._chain = chain_of(entry, self._catalog.beside(entry))
        exported, native = read_machine(self._store, entry)
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
            self._job.phase("importing", [(disk.id, disk.size) for disk in entry.manifest.disks])
            for warning in session.warnings:
                self._job.warn(warning)
            for number, (disk, sink) in enumerate(zip(entry.manifest.disks, session.sinks)):
                layers = layers_of(chain, disk.id)
                copy_checked(self._job, self._store, layers, sink, self._job.progress.disk(number))
            self._job.phase("creating")
            return session.commit()


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
