# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm_migrate` does: a VM from one provider to another, with no store between."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Iterator, Literal, Sequence

from .._exports.naming import iso_time
from .._providers.base import Provider
from .._providers.finding import Finding
from .._providers.spec import VmSpec
from .attempts.clean_up_machine import clean_up_machine
from .exporting.export_plan import chosen_disks, insist_on_disks
from .jobs.findings import checked, insist_on_same, raise_first_error, told_in
from .jobs.requests import MigrateRequest
from .jobs.running_job import RunningJob
from .migrating.new_hardware import with_hardware
from .vm_files.open import open_target

if TYPE_CHECKING:
    from .migrating.move_vm import Moved

PHASES = {"transferring": 1.0}
PHASES_WITH_PROOF = {**PHASES, "verifying": 0.5}
OFF = ("powered_off", "crashed")
Proof = Literal["none", "content"]


def migrate_vm(request: MigrateRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`."""
    phases = PHASES if request.verify == "none" else PHASES_WITH_PROOF
    url = str(request.destination.settings.get("url", ""))
    with ExitStack() as stack:
        job = stack.enter_context(RunningJob.start("migrate", request.transfer, request.vm, url, phases, check_mode))

        ends = (open_target(spec, job) for spec in (request.source, request.destination))
        source, destination = (stack.enter_context(closing(end)) for end in ends)
        return _Migration(request, job, source, destination).run(check_mode)


class _Migration:
    def __init__(self, request: MigrateRequest, job: RunningJob, source: Provider, destination: Provider) -> None:
        proof: Proof = request.verify or ("content" if destination.reads_back else "none")
        self._request = replace(request, verify=proof)
        self._job, self._source, self._destination = job, source, destination
        self._present: VmSpec | None = None  # what an earlier run made of this VM

    def run(self, check_mode: bool) -> dict[str, Any]:
        self._job.phase("validating")
        if not check_mode:  # or the files of a dead run of this very task would stand in its way
            self._job.supervise(self._undo_dead_imports)
        self._job.ask(self._look)
        if self._present is not None:
            return self._was_there(self._present, check_mode)
        findings = self._job.ask(self._findings)
        if check_mode:
            after = {"vm": self._name, "source": self._vm.name}
            return {**checked(findings, self._plan(), {}, after), "job": self._job.as_result()}
        raise_first_error(findings)
        self._wait_for_slots()
        source = {self._source.account} if self._source.exports_leave else set()
        self._job.tell(left_at=sorted({self._destination.account, *source}))  # if it is killed from here on
        moved = self._job.supervise(self._migrate)
        if moved is None:  # a job that had the slot before has made it
            return self._was_there(self._present, check_mode)  # type: ignore[arg-type]
        return self._result(moved.vm, moved)

    @property
    def _name(self) -> str:
        return self._request.placement.name

    def _undo_dead_imports(self) -> None:
        for _unused, sentence in self._destination.clean_up_imports():
            self._job.log("warning", sentence)

    def _look(self) -> None:
        self._vm = self._source.describe(self._request.vm)
        self._identity = f"{self._vm.provider}:{self._vm.id}"
        self._disks = chosen_disks(self._vm, self._request.disks)
        placement = self._request.placement
        self._request = replace(self._request, placement=replace(placement, name=placement.name or self._vm.name))
        there = self._destination.imported(self._name, placement.folder)
        self._taken_by = there[0] if there is not None else None
        self._present = there[0] if there is not None and there[1] == self._identity else None

    def _findings(self) -> Sequence[Finding]:
        """All of both ends at once, so that nobody mends one only to meet the next."""
        findings: list[Finding] = []
        with told_in(findings):
            insist_on_disks(self._vm, self._request.disks)
        findings += self._of_the_pair()
        with told_in(findings):
            findings += self._source.check_export(self._vm, self._disks, self._request.consistency)
        with told_in(findings):
            new = self._vm.with_disks(self._disks).without_drives(self._request.detach)
            new = with_hardware(new, self._request.networks)
            findings += self._destination.check_import(new, self._request.placement, self._identity)
        return findings

    def _of_the_pair(self) -> Iterator[Finding]:
        taken = self._taken_by
        if taken is not None and (taken.provider, taken.id) == (self._vm.provider, self._vm.id):
            text = f"{self._name} is the VM itself, which is there already."
            yield Finding("error", text, "Give the new one another name, or go to another destination.", "conflict")
        if self._request.verify == "content" and not self._destination.reads_back:
            text = f"What is written at the provider {self._destination.name} cannot be read back before there is a VM."
            yield Finding("error", text, "Leave verify out, or set it to none.", "unsupported")

    def _wait_for_slots(self) -> None:
        """One of each account, in an order that all jobs take, or two of them could wait for each other."""
        accounts = {end.account: end for end in (self._source, self._destination)}
        for name in sorted(accounts):
            self._job.wait_for_slot(accounts[name])

    def _migrate(self) -> Moved | None:
        self._look()
        if self._present is not None:
            return None
        findings = self._findings()
        raise_first_error(findings)
        for finding in findings:
            if finding.severity == "warning":
                self._job.warn(f"{finding.message} {finding.hint}".rstrip())
        clean_up_machine(self._source, self._vm, self._job, ())
        from .migrating.move_vm import move_vm  # a module is compiled anew at every start, and a look needs less

        ends = (self._source, self._destination)
        return move_vm(self._job, self._request, *ends, self._vm, self._disks, self._identity)

    def _was_there(self, vm: VmSpec, check_mode: bool) -> dict[str, Any]:
        """Whatever happened to either since; but it may never have been started, or not run any more."""
        insist_on_same(self._destination, vm, self._request.placement)
        if not (self._request.placement.power_on and vm.power_state in OFF):
            return self._result(vm)
        diff = {"before": {"power_state": vm.power_state}, "after": {"power_state": "powered_on"}}
        if not check_mode:
            vm = self._job.supervise(lambda: self._destination.start(vm))
        return {**self._result(vm), "changed": True, "diff": diff}

    def _result(self, vm: VmSpec, moved: Moved | None = None) -> dict[str, Any]:
        source = {name: getattr(self._vm, name) for name in ("provider", "id", "name", "power_state")}
        after = {"vm": vm.name, "source": self._vm.name}
        return {
            "changed": moved is not None,
            "vm": vm.as_dict(),
            "source": source,
            **({} if moved is None else {"migration": self._told(moved)}),
            "job": self._job.as_result(),
            "diff": {"before": {} if moved is not None else after, "after": after},
            "warnings": list(self._job.warnings),
        }

    def _told(self, moved: Moved) -> dict[str, Any]:
        read = sum(disk["bytes_read"] for disk in moved.disks)
        return {
            "consistency": moved.session.consistency,
            "taken_at": iso_time(moved.session.taken_at),
            "verified": self._request.verify,
            "disks": list(moved.disks),
            "duration": round(moved.duration, 3),
            "rate": round(read / moved.duration) if moved.duration else 0,
        }

    def _plan(self) -> dict[str, Any]:
        """Bytes are upper bounds: what is allocated is read, and zeros are not written."""
        needed = [disk.size if disk.allocated is None else min(disk.size, disk.allocated) for disk in self._disks]
        return {
            "disks": [
                {"id": disk.id, "name": disk.name, "size": disk.size, "bytes_to_read": count}
                for disk, count in zip(self._disks, needed)
            ],
            "bytes_to_read": sum(needed),
        }
