# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest that runs, shut down for its export and started again, whatever becomes of that.

That it is owed its start is in the store before it is asked to shut down, and until it runs again; and a process that
outlives this one starts it where this one is killed.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from typing import Iterator

from ..._errors import VmferryError
from ..._exports.power_marks import PowerMark
from ..._providers.base import Provider
from ..._providers.finding import Finding
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..._transfer.failpoints import failpoint
from ..attempts.owed_starts import OFF, OwedStart, origin_of, owed_starts, settle
from ..jobs.requests import ExportRequest
from ..jobs.running_job import RunningJob

ASK_AGAIN = 15.0  # seconds; a guest that was just booting did not hear it, and so long a cancel may go unheard
LOOK_EVERY = 1.0
NEVER_ASKED = ("permission_denied", "unsupported", "not_found", "invalid_config")  # what refuses to ask at all
LAST_WAIT = 30.0  # seconds for a guest that was asked, and is on its way down while its export is given up
START_PATIENCE = 600.0  # seconds; a vCenter takes minutes to start again
HURRY = 40.0  # seconds of that for a run that was stopped, which is left behind after a minute


class GuestPower:
    """`left_off`: why the guest is off, which ran before. None: it runs, or was off all the time."""

    def __init__(self, request: ExportRequest, job: RunningJob, provider: Provider, store: Store) -> None:
        self._timeout, self._job, self._provider, self._store = request.shutdown_timeout, job, provider, store
        self._specs = (request.provider, request.store)
        self._mark: PowerMark | None = None
        self._may_go_off = False  # since it was asked to
        self.left_off: VmferryError | None = None

    def goes_off(self, vm: VmSpec) -> bool:
        return self._timeout is not None and vm.power_state == "powered_on"

    def foreseen(self, vm: VmSpec) -> VmSpec:
        """As it will be exported."""
        return replace(vm, power_state="powered_off") if self.goes_off(vm) else vm

    def findings(self, vm: VmSpec) -> Iterator[Finding]:
        if not self.goes_off(vm):
            return
        if not vm.details.get("persistent", True):
            text = f"{vm.name} is not defined on its hypervisor: once it is shut down, nothing is left to start again."
            yield Finding("error", text, "Define it first, or leave shutdown_timeout out.", "unsupported")
        told = f"{vm.name} runs: its guest is asked to shut down, and has {self._timeout:g} s for that. "
        yield Finding("info", f"{told}It is started again when its disks were read.")

    def owed_findings(self, vm: VmSpec) -> Iterator[Finding]:
        if vm.power_state in OFF:
            for owed in self._owed(vm):
                yield Finding("info", f"{owed.reason} A run starts it first.")

    def start_what_is_owed(self, vm: VmSpec) -> bool:
        """Whether it was started: dead runs had shut it down. What cannot be is a warning: it can be exported so."""
        started = False
        for owed in self._owed(vm):  # also of one that runs: it is owed nothing, should others shut it down one day
            try:
                said = settle(self._store, self._provider, owed)
            except VmferryError as error:
                self._job.warn(f"{owed.reason} It cannot be started: {error} {error.hint}".rstrip())
                continue
            if said:
                self._job.warn(said)
                started = True
        return started

    def _owed(self, vm: VmSpec) -> Iterator[OwedStart]:
        for owed in owed_starts(self._store, vm.provider, vm.id):
            if owed.is_at(self._provider):
                yield owed

    @contextmanager
    def off(self, vm: VmSpec, folder: str) -> Iterator[VmSpec]:
        """Inside, the VM is off, which is what it yields. `folder`: of the attempt."""
        if self.goes_off(vm):
            vm = self._provider.describe(vm.id)  # it may have been switched off while this run waited for its turn
        if not self.goes_off(vm):
            yield vm
            return
        vm_is = (self._provider.name, self._provider.site, origin_of(vm), vm.id, vm.name)
        from .start_watchdog import StartWatchdog  # a module is compiled anew at every start, and few need it

        mark = PowerMark(*vm_is, self._job.id, folder, asked_at=time.time(), owner=self._job.owner)
        watchdog = StartWatchdog(*self._specs, mark)
        try:
            self._mark = mark
            self._note()
            failpoint("shutdown_noted")
            self._job.note(f"waiting for {vm.name} to shut down")
            off = self._shut_down(vm)
            failpoint("guest_off")
            self._mark = replace(mark, was_off=True)
            self._note()
            self._job.note("")
            yield off
        finally:
            with self._job.flow.shielded():
                self._restore(vm)
            if self.left_off is None:  # else it goes on with that, once this process has ended
                watchdog.finish()

    def renew(self) -> None:
        """Right before the export commits: from then on the mark alone tells that somebody is at it."""
        if self._mark is not None:
            self._note()

    def _note(self) -> None:
        if self._mark is not None:
            self._store.put(self._mark.key, self._mark.to_json())

    def _shut_down(self, vm: VmSpec) -> VmSpec:
        timeout, asked = self._timeout or 0.0, False
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            self._may_go_off = True
            try:
                return self._provider.shut_down(vm, max(0.0, min(left, ASK_AGAIN)), force=False)
            except VmferryError as error:
                if error.kind != "timeout":
                    self._may_go_off = asked or error.kind not in NEVER_ASKED
                    raise
                asked = True
                if left <= ASK_AGAIN:
                    hint = "Give it more time, or see what holds it up. It may still go off, and is started then."
                    message = f"{vm.name} did not shut down within {timeout:g} s, so it was not exported."
                    raise VmferryError("timeout", message, hint, retryable=True) from error
            self._job.going_on()
            self._job.flow.sleep(LOOK_EVERY)

    def _restore(self, vm: VmSpec) -> None:
        """Never raises: whatever ends the export is told first."""
        failpoint("guest_to_start")
        error = self._started(vm)
        mark, self._mark = self._mark, None
        if mark is None:
            return
        try:
            if error is None:
                failpoint("guest_started")
                self._store.delete(mark.key)
                return
            self._store.put(mark.key, replace(mark, given_up=True, owner={}).to_json())
        except VmferryError as silent:
            error = error or silent
        self._job.leaves_something()
        text = f"{vm.name} was asked to shut down for its export. {error}"
        self.left_off = error if error is None else VmferryError(error.kind, text, error.hint)
        self._job.warn(f"{text} {error.hint if error is not None else ''}".rstrip())

    def _started(self, vm: VmSpec) -> VmferryError | None:
        """None where it runs, and stays so. A guest that was asked may go off a little later."""
        began, hurried = time.monotonic(), self._job.flow.error is not None
        was_off = self._mark is not None and self._mark.was_off
        while True:
            waited = time.monotonic() - began
            try:
                seen = self._provider.describe(vm.id)
                if seen.power_state in OFF:
                    self._provider.start(seen)
                    return None
                if was_off or not self._may_go_off:
                    return None
                if waited >= (HURRY if hurried else LAST_WAIT):
                    hint = "Should it go off later, its next export, or export_cleanup with orphans, starts it."
                    return VmferryError("timeout", "It still runs.", hint)
            except VmferryError as error:
                if error.kind in ("not_found", "permission_denied") or waited >= (HURRY if hurried else START_PATIENCE):
                    text = f"It could not be started again: {error.message}"
                    hint = "Start it; its next export, or export_cleanup with orphans and its provider, tries it, too."
                    return VmferryError(error.kind, text, hint)
            self._job.flow.sleep(LOOK_EVERY)
