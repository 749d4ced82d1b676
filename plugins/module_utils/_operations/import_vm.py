# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm_import` does: a VM made of an export, every block checked against what was read at the source."""

from __future__ import annotations

from contextlib import ExitStack, closing
from hashlib import sha256
from typing import Any, Mapping

from .._errors import VmferryError
from .._exports.catalog import Catalog, CatalogEntry
from .._exports.fields import Fields, lie
from .._exports.naming import new_attempt
from .._providers.base import Finding, Job, Provider
from .._providers.open import open_provider
from .._providers.spec import VmSpec
from .._stores.base import Store
from .export_plan import checked, raise_first_error
from .requests import ImportRequest
from .results import export_result
from .running_job import RunningJob
from .verify_export import copy_checked


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

    def run(self, check_mode: bool) -> dict[str, Any]:
        self._job.phase("validating")
        self._store.require_root()
        entry = Catalog(self._store).find(self._request.export, self._request.vm)
        placement, made = self._request.placement, entry.manifest.export_id
        present = self._provider.imported(placement.name)
        if present is not None and present[1] == made:
            vm = present[0]
            if placement.power_on and vm.power_state in ("off", "crashed"):
                return self._started(entry, vm, check_mode)
            return self._result(entry, vm, changed=False)
        findings: list[Finding] = []
        if entry.manifest.mode != "full":
            findings.append(
                Finding("error", f"{made} is an increment; only full exports can be imported.", "", "unsupported")
            )
        exported, native = self._machine(entry)
        findings += self._provider.check_import(exported, placement, made)
        if check_mode:
            return checked(findings, _plan(entry), {}, {"vm": placement.name, "export": made})
        raise_first_error(findings)
        self._job.wait_for_slot(self._provider)
        vm = self._job.supervise(lambda: self._import(entry, exported, native))
        return self._result(entry, vm, changed=True)

    def _started(self, entry: CatalogEntry, vm: VmSpec, check_mode: bool) -> dict[str, Any]:
        """Imported before, but never started, or not any more."""
        diff = {"before": {"power_state": vm.power_state}, "after": {"power_state": "on"}}
        if check_mode:
            return {"changed": True, "findings": [], "plan": _plan(entry, disks=False), "diff": diff}
        vm = self._job.supervise(lambda: self._provider.start(vm))
        return {**self._result(entry, vm, changed=True), "diff": diff}

    def _result(self, entry: CatalogEntry, vm: VmSpec, *, changed: bool) -> dict[str, Any]:
        after = {"vm": vm.name, "export": entry.manifest.export_id}
        return {
            "changed": changed,
            "vm": vm.as_dict(),
            "export": export_result(self._store, entry),
            "job": self._job.as_result(),
            "diff": {"before": {} if changed else after, "after": after},
            "warnings": list(self._job.warnings),
        }

    def _import(self, entry: CatalogEntry, exported: VmSpec, native: Mapping[str, bytes]) -> VmSpec:
        made = entry.manifest.export_id
        self._job.phase("creating")
        owner = Job(self._job.id, new_attempt())
        with self._provider.open_import(exported, native, self._request.placement, made, owner) as session:
            self._job.phase("importing", [(disk.id, disk.size) for disk in entry.manifest.disks])
            for warning in session.warnings:
                self._job.warn(warning)
            for number, (disk, sink) in enumerate(zip(entry.manifest.disks, session.sinks)):
                copy_checked(self._job, self._store, entry.key, disk, sink, self._job.progress.disk(number))
            self._job.phase("creating")
            return session.commit()

    def _machine(self, entry: CatalogEntry) -> tuple[VmSpec, Mapping[str, bytes]]:
        """`vm.json` and the provider's own files, each as long and as digested as the manifest says."""
        files = {}
        for stored in entry.manifest.files:
            data = self._store.get(entry.key(stored.path))
            if len(data) != stored.size or sha256(data).hexdigest() != stored.sha256:
                raise VmferryError(
                    "checksum_mismatch",
                    f"{self._store.object_url(entry.key(stored.path))} is not what was exported.",
                    "Use another export of this VM.",
                )
            files[stored.path] = data
        where = self._store.object_url(entry.key("vm.json"))
        if "vm.json" not in files:
            raise lie(where, "is missing from the manifest")
        try:
            vm = VmSpec.from_dict(Fields.parse(files["vm.json"], where).all())
        except (TypeError, KeyError, AttributeError) as error:
            raise lie(where, "does not describe a VM") from error
        by_id = {disk.id: disk for disk in vm.disks}
        if any(disk.id not in by_id or by_id[disk.id].size != disk.size for disk in entry.manifest.disks):
            raise lie(where, "has other disks than the manifest")
        native = {path[len("native/") :]: data for path, data in files.items() if path.startswith("native/")}
        return vm.with_disks(tuple(by_id[disk.id] for disk in entry.manifest.disks)), native


def _plan(entry: CatalogEntry, *, disks: bool = True) -> dict[str, Any]:
    """`disks`: whether any has to be read."""
    chosen = entry.manifest.disks if disks else ()
    planned = [{"id": disk.id, "size": disk.size, "bytes_to_read": disk.bytes_stored} for disk in chosen]
    return {
        "export": entry.manifest.export_id,
        "disks": planned,
        "bytes_to_read": sum(disk.bytes_stored for disk in chosen),
    }
