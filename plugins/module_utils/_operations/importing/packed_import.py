# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM made of what others packed, an appliance or a disk image: read where it lies, as the disks are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any, Callable, ContextManager, Iterator, Mapping, Sequence, Tuple

from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..._exports.naming import new_attempt
from ..._providers.base import ImportSession, Provider
from ..._providers.finding import Finding
from ..._providers.job import Job
from ..._providers.spec import VmSpec
from ..._stores.address import split_object_url
from ..._stores.base import Store
from ..._transfer.progress import DiskProgress
from ..jobs.fill_disks import DiskContent, Proved, fill_disks
from ..jobs.findings import checked, insist_on_same, raise_first_error
from ..jobs.requests import ImportRequest
from ..jobs.running_job import RunningJob
from ..vm_files.open import open_import_target


class Packed(ABC):
    """`kind`: what it is, in one word, under which the result tells of it. `identity`: of its content."""

    kind: str
    where: str
    identity: str
    is_mixed = False  # whether parts of all its disks come in turn, and cannot be had otherwise

    @abstractmethod
    def describe(self) -> Tuple[VmSpec, Sequence[Finding]]:
        """The machine that it is of, each disk with what it takes about, and what is worth knowing. Raises
        `invalid_config` or `unsupported` for what would not be read.
        """

    @abstractmethod
    def copy(self, job: RunningJob, session: ImportSession) -> None:
        """All of its disks into the session, in their order."""

    @abstractmethod
    def disks(self) -> Sequence[Tuple[int, int]]:
        """Of each its size, and how many bytes are read at the most."""

    def confirm(self) -> None:
        """After the last disk. Raises `conflict` where the files changed while they were read, if nothing else told."""
        return

    @abstractmethod
    def told(self) -> Mapping[str, Any]:
        """What the result says of it."""


class PackedDisks(Packed):
    """Of which each disk can be read on its own."""

    @abstractmethod
    def open(self, number: int, alive: Callable[[], object]) -> ContextManager[BlockSource]:
        """One of its disks, of which nothing is read that was not proved, as far as it can be. What takes long calls
        `alive` now and then.
        """

    def copy(self, job: RunningJob, session: ImportSession) -> None:
        fill_disks(job, session, [DiskContent(self._opener(number, job)) for number in range(len(self.disks()))])

    def _opener(self, number: int, job: RunningJob) -> Callable[[DiskProgress], ContextManager[Proved]]:
        @contextmanager
        def opened(_progress: DiskProgress) -> Iterator[Proved]:
            with self.open(number, job.going_on) as source:
                yield source, None

        return opened


Find = Callable[[RunningJob, Store, str], Packed]


def import_packed(request: ImportRequest, check_mode: bool, what: str, find: Find) -> dict[str, Any]:
    """The module's result. `what`: it is, in a sentence; `find`: by the store and the key. Raises `VmferryError`."""
    _insist_on_options(request, what)
    above, key = split_object_url(request.store.url)
    name = request.placement.name
    with ExitStack() as stack:
        job = stack.enter_context(
            RunningJob.start("import", request.transfer, name, request.store.url, {"importing": 1.0}, check_mode)
        )
        provider = stack.enter_context(closing(open_import_target(request, job)))
        store = stack.enter_context(closing(job.open_store(replace(request.store, url=above))))
        return PackedImport(request, job, provider, lambda: find(job, store, key)).run(check_mode)


def _insist_on_options(request: ImportRequest, what: str) -> None:
    if request.export or request.vm:
        raise VmferryError(
            "invalid_config",
            f"{request.store.url} is {what} of one VM; export and vm choose among exports.",
            "Leave them out.",
        )
    if request.seals.trusts:
        raise VmferryError(
            "invalid_config",
            f"{request.store.url} is {what}: it has no signature or passphrase of an export.",
            "Leave out trusted_keys and encryption, or import an export.",
        )


class PackedImport:
    def __init__(self, request: ImportRequest, job: RunningJob, provider: Provider, find: Callable[[], Packed]) -> None:
        self._request, self._job, self._provider, self._find = request, job, provider, find

    def run(self, check_mode: bool) -> dict[str, Any]:
        self._job.phase("validating")
        if not check_mode:  # or the files of a dead run of this very task would stand in its way
            self._job.supervise(self._undo_the_dead)
        placement = self._request.placement
        packed = self._job.ask(self._find)
        present = self._job.ask(lambda: self._provider.imported(placement.name, placement.folder))
        if present is not None and present[1] == packed.identity:
            return self._present(packed, present[0], check_mode)
        vm, findings = self._job.ask(lambda: self._check(packed))
        if check_mode:
            after = {"vm": placement.name, packed.kind: packed.where}
            return {**checked(findings, _plan(packed), {}, after), "job": self._job.as_result()}
        raise_first_error(findings)
        for finding in findings:
            self._job.warn(f"{finding.message} {finding.hint}".rstrip())
        self._job.wait_for_slot(self._provider)
        return self._result(packed, self._job.supervise(lambda: self._import(packed, vm)), changed=True)

    def _undo_the_dead(self) -> None:
        for _unused, sentence in self._provider.clean_up_imports():
            self._job.log("warning", sentence)

    def _check(self, packed: Packed) -> Tuple[VmSpec, Sequence[Finding]]:
        vm, own = packed.describe()
        vm = vm.without_drives(self._request.detach)
        findings = [*self._provider.check_import(vm, self._request.placement, packed.identity), *own]
        if packed.is_mixed and self._provider.takes_disks:
            text = f"{packed.where} is packed, its disks in turn, and {self._provider.name} writes one by one."
            findings.append(Finding("error", text, "Unpack it with zstd -d, gunzip or lzop -d first.", "unsupported"))
        return vm, findings

    def _import(self, packed: Packed, vm: VmSpec) -> VmSpec:
        self._job.phase("creating")
        owner = Job(self._job.id, new_attempt())
        made = self._provider.open_import(vm, {}, self._request.placement, packed.identity, owner)
        with self._job.session(made) as session:
            self._job.phase("importing", [(disk.id, disk.size) for disk in vm.disks])
            for warning in session.warnings:
                self._job.warn(warning)
            packed.copy(self._job, session)
            packed.confirm()
            self._job.phase("creating")
            whole = session.commit()
        for warning in session.warnings:  # of what stays, or is left
            if warning not in self._job.warnings:
                self._job.warn(warning)
        return whole

    def _present(self, packed: Packed, vm: VmSpec, check_mode: bool) -> dict[str, Any]:
        """Imported before, but never started, or not any more."""
        insist_on_same(self._provider, vm, self._request.placement)
        starts = self._request.placement.power_on and vm.power_state in ("powered_off", "crashed")
        if starts and not check_mode:
            vm = self._job.supervise(lambda: self._provider.start(vm))
        made = self._result(packed, vm, changed=starts)
        diff = {"before": {"power_state": "powered_off"}, "after": {"power_state": "powered_on"}}
        return {**made, "diff": diff} if starts else made

    def _result(self, packed: Packed, vm: VmSpec, *, changed: bool) -> dict[str, Any]:
        after = {"vm": vm.name, packed.kind: packed.where}
        return {
            "changed": changed,
            "vm": vm.as_dict(),
            packed.kind: {"id": packed.identity, "url": packed.where, **packed.told()},
            "job": self._job.as_result(),
            "diff": {"before": {} if changed else after, "after": after},
            "warnings": list(self._job.warnings),
        }


def _plan(packed: Packed) -> dict[str, Any]:
    disks = packed.disks()
    return {
        "export": "",
        "disks": [
            {"id": f"disk-{number}", "size": size, "bytes_to_read": count} for number, (size, count) in enumerate(disks)
        ],
        "bytes_to_read": sum(count for _size, count in disks),
    }
