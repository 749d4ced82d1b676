# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm_import` does with an appliance: a VM made of an OVA or an OVF that others wrote.

Its disks are inspected before they are read, and compared with the appliance's checksums while they are copied.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any, Sequence

from ..._appliances.appliance import Appliance
from ..._errors import VmferryError
from ..._exports.naming import new_attempt
from ..._providers.base import Provider
from ..._providers.finding import Finding
from ..._providers.job import Job
from ..._providers.open import open_provider
from ..._providers.spec import VmSpec
from ..._stores.address import split_object_url
from ..._stores.base import Store
from ..._transfer.copy_blocks import copy_blocks
from ..jobs.findings import checked, raise_first_error
from ..jobs.requests import ImportRequest
from ..jobs.running_job import RunningJob
from ..stored.appliance_machine import vm_in
from ..stored.read_appliance import inspected_disks, open_disk, stored_appliance


def import_appliance(request: ImportRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`."""
    insist_on_options(request)
    above, key = split_object_url(request.store.url)
    name = request.placement.name
    with ExitStack() as stack:
        job = stack.enter_context(
            RunningJob.start("import", request.transfer, name, request.store.url, {"importing": 1.0}, check_mode)
        )
        provider = stack.enter_context(closing(open_provider(request.provider.name, request.provider.settings)))
        store = stack.enter_context(closing(job.open_store(replace(request.store, url=above))))
        return ApplianceImport(request, job, provider, store, key).run(check_mode)


def insist_on_options(request: ImportRequest) -> None:
    if request.export or request.vm:
        raise VmferryError(
            "invalid_config",
            f"{request.store.url} is an appliance of one VM; export and vm choose among exports.",
            "Leave them out.",
        )
    if request.seals.trusts:
        raise VmferryError(
            "invalid_config",
            f"{request.store.url} is an appliance: it has no signature or passphrase of an export.",
            "Leave out trusted_keys and encryption, or import an export.",
        )


class ApplianceImport:
    """`key`: of its descriptor in the store, or of the archive."""

    def __init__(self, request: ImportRequest, job: RunningJob, provider: Provider, store: Store, key: str) -> None:
        self._request, self._job, self._provider, self._store, self._key = request, job, provider, store, key

    def run(self, check_mode: bool) -> dict[str, Any]:
        self._job.phase("validating")
        if not check_mode:  # or the files of a dead run of this very task would stand in its way
            self._job.supervise(self._undo_the_dead)
        placement = self._request.placement
        appliance = self._job.ask(lambda: stored_appliance(self._store, self._key))
        vm = vm_in(appliance).without_drives(self._request.detach)
        present = self._job.ask(lambda: self._provider.imported(placement.name))
        if present is not None and present[1] == appliance.identity:
            return self._present(appliance, present[0], check_mode)
        findings = self._job.ask(lambda: self._check(appliance, vm))
        if check_mode:
            after = {"vm": placement.name, "appliance": appliance.where}
            return {**checked(findings, _plan(appliance), {}, after), "job": self._job.as_result()}
        raise_first_error(findings)
        for finding in findings:
            self._job.warn(f"{finding.message} {finding.hint}".rstrip())
        self._job.wait_for_slot(self._provider)
        return self._result(appliance, self._job.supervise(lambda: self._import(appliance, vm)), changed=True)

    def _undo_the_dead(self) -> None:
        for _unused, sentence in self._provider.clean_up_imports():
            self._job.log("warning", sentence)

    def _check(self, appliance: Appliance, vm: VmSpec) -> Sequence[Finding]:
        inspected_disks(appliance)
        found = list(self._provider.check_import(vm, self._request.placement, appliance.identity))
        if not appliance.proves:
            found.append(Finding("warning", f"{appliance.where} has no checksums: damage of its disks is not found."))
        found += [Finding("warning", text) for text in appliance.machine.warnings]
        return found

    def _import(self, appliance: Appliance, vm: VmSpec) -> VmSpec:
        self._job.phase("creating")
        owner = Job(self._job.id, new_attempt())
        made = self._provider.open_import(vm, {}, self._request.placement, appliance.identity, owner)
        with self._job.session(made) as session:
            self._job.phase("importing", [(disk.id, disk.size) for disk in vm.disks])
            for warning in session.warnings:
                self._job.warn(warning)
            for number, (disk, sink) in enumerate(zip(appliance.machine.disks, session.sinks)):
                progress = self._job.progress.disk(number)
                with open_disk(appliance, disk, progress.alive) as source:
                    copy_blocks(source, sink, None, limits=self._job.limits, flow=self._job.flow, progress=progress)
            self._job.phase("creating")
            return session.commit()

    def _present(self, appliance: Appliance, vm: VmSpec, check_mode: bool) -> dict[str, Any]:
        """Imported before, but never started, or not any more."""
        starts = self._request.placement.power_on and vm.power_state in ("powered_off", "crashed")
        if starts and not check_mode:
            vm = self._job.supervise(lambda: self._provider.start(vm))
        made = self._result(appliance, vm, changed=starts)
        diff = {"before": {"power_state": "powered_off"}, "after": {"power_state": "powered_on"}}
        return {**made, "diff": diff} if starts else made

    def _result(self, appliance: Appliance, vm: VmSpec, *, changed: bool) -> dict[str, Any]:
        after = {"vm": vm.name, "appliance": appliance.where}
        return {
            "changed": changed,
            "vm": vm.as_dict(),
            "appliance": {
                "id": appliance.identity,
                "url": appliance.where,
                "name": appliance.machine.name,
                "has_checksums": appliance.proves,
                "eulas": list(appliance.machine.eulas),
            },
            "job": self._job.as_result(),
            "diff": {"before": {} if changed else after, "after": after},
            "warnings": list(self._job.warnings),
        }


def _plan(appliance: Appliance) -> dict[str, Any]:
    sizes = [appliance.member(disk).size if disk.file else 0 for disk in appliance.machine.disks]
    return {
        "export": "",
        "disks": [
            {"id": f"disk-{number}", "size": disk.capacity, "bytes_to_read": sizes[number]}
            for number, disk in enumerate(appliance.machine.disks)
        ],
        "bytes_to_read": sum(sizes),
    }
