# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm_export` does: a point in time of a VM into a store.

The order is what keeps data safe: intent, point in time, data, complete objects, proof, the parent looked at once more,
manifest; then older change tokens are dropped and the point in time is removed. Whatever goes wrong before the manifest
leaves nothing behind, in the store or on the provider; but a run that is killed leaves all that the next one can go on
with.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Sequence

from .._errors import VmferryError
from .._exports.catalog import CLOCK_SKEW, Catalog, CatalogEntry, newest
from .._exports.intent import Intent
from .._exports.naming import attempt_of, iso_time
from .._exports.packed import PACKED
from .._exports.verifications import read_verifications
from .._providers.base import Provider
from .._providers.finding import Finding
from .._stores.base import Store
from .._stores.open import insist_on_exports
from .._transfer.failpoints import failpoint
from .attempts.clean_up_machine import clean_up_behind_commits, clean_up_machine
from .attempts.dead_attempts import attempts_known_dead, claim_dead_attempt, remove_dead_attempt
from .attempts.litter import probe_key
from .exporting.export_base import Choice, choose_base, has_same_disks, images_to_stand_on, sealed_otherwise
from .exporting.export_plan import (
    chosen_disks,
    insist_on_disks,
    is_as_asked,
    not_native,
    objects_that_do_not_fit,
    plan,
    satisfying_export,
    too_large,
)
from .exporting.export_snapshot import ExportedSnapshot, tracked_first
from .exporting.follow_export import Following
from .exporting.guest_power import GuestPower
from .exporting.resumable import foreseen, newest_unfinished, resumable
from .jobs.findings import checked, finding_of, raise_first_error, told_in
from .jobs.keeping import NotResumable
from .jobs.requests import ExportRequest
from .jobs.running_job import RunningJob
from .stored.image_formats import image_codec, insist_on_encryptable
from .stored.results import begun_anew, export_result, outcome_of
from .vm_files.open import open_provider

if TYPE_CHECKING:
    from .exporting.take_export import Taking

PHASES = {"exporting": 1.0, "verifying": 0.5}
PHASES_WITH_COPIES = {**PHASES, "transferring": 0.5}


def export_vm(request: ExportRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`."""
    if request.format in PACKED:  # nobody can go on with one, so that nothing is held for that
        request = replace(request, resume_window=0.0)
    with ExitStack() as stack:
        phases = PHASES_WITH_COPIES if request.copies_to else PHASES
        job = stack.enter_context(
            RunningJob.start("export", request.transfer, request.vm, request.store.url, phases, check_mode)
        )
        for spec in (request.store, *request.copies_to):
            insist_on_exports(spec.url, spec.settings)
        named = (request.provider.name, request.provider.settings)
        provider = stack.enter_context(closing(open_provider(*named, job.open_source, job.going_on, job.flow)))
        provider.export_by(request.method, request.vendor_task)
        store = stack.enter_context(closing(job.open_store(request.store)))
        result = _Export(request, job, provider, store).run(check_mode)
        if not request.copies_to:
            return result
        # A module is compiled anew at every start, so what few of them need is imported by those.
        from .exporting.export_copies import checked_copies, with_copies

        failpoint("copies_owed")
        complete = checked_copies if check_mode else with_copies
        return complete(request, job, store, result)


class _Export:
    def __init__(self, request: ExportRequest, job: RunningJob, provider: Provider, store: Store) -> None:
        self._request, self._job, self._provider, self._store = request, job, provider, store
        self._catalog = Catalog(store, request.seals)
        self._existing: Sequence[CatalogEntry] = ()
        self._taking: Taking | None = None
        self._snapshot: ExportedSnapshot | None = None
        self._power = GuestPower(request, job, provider, store)
        self._enough: dict[str, Any] | None = None  # as `_look` saw it last
        self._resumed: dict[str, Any] | None = None  # what became of an unfinished export, if there was one

    def run(self, check_mode: bool) -> dict[str, Any]:
        self._job.phase("validating")
        codec = image_codec(self._request.format, self._request.compression, self._request.compression_level)
        if self._is_encrypted:
            insist_on_encryptable(self._request.format, codec)
        else:
            self._request.seals.insist_on_own()
        if self._request.part_size is not None:
            self._job.limits = self._job.limits.cut_in(self._request.part_size)
        self._job.ask(self._describe)
        if check_mode:
            return self._job.supervise(self._check)  # a signal, too, finds the probe removed
        insist_on_disks(self._vm, self._request.disks)
        enough = self._job.ask(self._look)
        if enough is not None:
            return self._ended(self._job.supervise(lambda: self._in_order(enough), self._made))
        while True:
            followed = self._follow() if self._request.attach else None
            if followed is not None:
                return followed
            self._job.wait_for_slot(self._provider)
            result = self._job.supervise(self._checked_export_unless_led, self._made)
            if result is not None:
                return self._ended(result)
            self._job.leave_slot()  # or the one to be followed may wait for it

    @property
    def _is_encrypted(self) -> bool:
        return self._request.seals.keyring is not None

    def _ended(self, result: dict[str, Any]) -> dict[str, Any]:
        if self._power.left_off is not None:  # whatever was made: nobody must take this for done
            raise self._power.left_off
        return {**result, "warnings": list(self._job.warnings)}

    def _describe(self) -> None:
        self._vm = self._provider.describe(self._request.vm)
        self._disks = chosen_disks(self._vm, self._request.disks)
        if self._power.goes_off(self._vm):  # nobody can go on with what the guest has written to since
            self._request = replace(self._request, resume_window=0.0)
        if self._request.snapshot is not None:
            self._snapshot = ExportedSnapshot(self._request, self._provider, self._vm, self._job)

    def _following(self) -> Following:
        return Following(self._job, self._store, self._catalog, self._vm)

    def _follow(self) -> dict[str, Any] | None:
        """None where nobody exports it, or where that one did not make what is asked for here."""
        seen = self._following().to_its_end()
        if seen is None or not is_as_asked(self._request, self._disks, seen[1]):
            return None
        leader, entry, changed = seen
        self._existing = self._job.ask(lambda: self._catalog.of_vm(self._vm.id))
        self._job.note(f"followed the job {leader.job_id}")
        told = self._result(entry, changed=changed) if changed else self._unchanged(entry)
        return {**told, "attached": leader.as_result()}

    def _look(self) -> dict[str, Any] | None:
        """The result, where there is an export that makes a new one needless."""
        self._existing = self._catalog.of_vm(self._vm.id, self._tell_of_untrusted)
        enough = satisfying_export(self._request, self._vm, self._disks, self._existing, self._damage)
        if enough is None and self._snapshot is not None:
            enough = self._snapshot.satisfying_export(self._disks, self._existing, self._damage)
        damage = self._damage(enough) if enough is not None else ""
        if enough is not None and damage:
            self._job.warn(f"{self._store.object_url(enough.folder)} is known to be damaged: {damage}.")
        self._enough = None if enough is None else self._found(enough)
        return self._enough

    def _damage(self, entry: CatalogEntry) -> str:
        return read_verifications(self._store, entry).damage

    def _check(self) -> dict[str, Any]:
        """All findings at once, so that nobody mends one only to meet the next."""
        findings: list[Finding] = []
        choice: Choice | None = None
        with told_in(findings):
            insist_on_disks(self._vm, self._request.disks)
        with told_in(findings):
            enough = self._look()
            if enough is not None and not findings:
                return enough
            choice = Choice(None, "")
        if choice is not None:  # or it is known already why the store cannot be used
            with told_in(findings):
                choice = self._choose()
            with told_in(findings):
                left = foreseen(self._store, self._request, self._disks, self._existing, self._vm.id, findings)
                choice = left.choice if left is not None else choice
            with told_in(findings):
                findings += self._power.owed_findings(self._vm)
        findings += self._preflight_of_machine()
        if self._request.attach:
            findings = self._following().foreseen(findings)
        if choice is not None:
            findings += self._preflight_of_store(choice)
        diff = _diff(self._existing, "a new export")
        found = checked(findings, self._plan(choice or Choice(None, "")), diff["before"], diff["after"])
        return {**found, "job": self._job.as_result()}

    def _choose(self) -> Choice:
        now = time.time()
        self._tell_of_the_future(now)
        fit = tracked_first(self._existing) if self._snapshot is None else self._snapshot.to_stand_on(self._existing)
        choice = choose_base(self._request, self._disks, fit, self._store, now)
        seals = self._request.seals
        if seals.keyring is not None and seals.trusts and choice.base is None:
            seals.insist_on_own(seals.keyring.new_chain(self._vm.id, "").encryption)
        return choice

    def _tell_of_the_future(self, now: float) -> None:
        for entry in self._existing:
            if entry.manifest.taken_at > now + CLOCK_SKEW:
                self._job.warn(
                    f"The export {entry.manifest.export_id} was taken at {iso_time(entry.manifest.taken_at)}, which is "
                    "yet to come: a clock is wrong, or was. It does not count as the newest."
                )

    def _plan(self, choice: Choice) -> dict[str, Any]:
        base = choice.base if self._snapshot is None else None
        token = base.parent.manifest.change_token if base is not None else ""
        changed = self._provider.changed_since(self._vm, self._disks, token) if token else {}
        return plan(self._disks, choice, changed, self._request.format, self._is_encrypted)

    def _made(self) -> dict[str, Any] | None:
        committed = self._taking.committed if self._taking is not None else None
        return self._enough if committed is None else self._result(committed, changed=True)

    def _checked_export_unless_led(self) -> dict[str, Any] | None:
        """None where another run was faster, which is to be followed."""
        try:
            return self._checked_export()
        except VmferryError as error:
            led = error.kind == "busy" and self._request.attach and self._taking is None
            if not led or self._following().leader() is None:
                raise
            self._resumed = None
            return None

    def _checked_export(self) -> dict[str, Any]:
        self._start_what_is_owed()
        raise_first_error([*self._preflight_of_machine(), *self._preflight_of_store(Choice(None, ""))])
        enough = self._look()  # a job that had the slot before may have made it
        if enough is not None:
            return self._in_order(enough)
        found = newest_unfinished(self._store, self._catalog, self._vm.id)
        choice = self._go_on(found) if found is not None else None
        if choice is not None:
            with self._job.undoing(f"What other runs left on {self._vm.name}"):
                self._undo_the_dead()
        else:
            self._undo_the_dead()
            choice = self._choose()
            self._taking = self._new_taking()
            self._taking.begin(choice)
        made = self._taking.committed if self._taking is not None else None
        if made is not None:
            self._forget_older_tokens(made)
            failpoint("tokens_forgotten")
            self._job.tell(outcome=outcome_of(made.manifest))
            return self._result(made, changed=True)
        if choice.base is None:
            raise VmferryError("internal", "A full export was taken for an increment without changes.")
        return self._unchanged(choice.base.parent)

    def _in_order(self, enough: dict[str, Any]) -> dict[str, Any]:
        """A run may have been killed behind the commit of what is there."""
        self._start_what_is_owed()
        clean_up_behind_commits(self._provider, self._vm, self._job, self._existing)
        return enough

    def _start_what_is_owed(self) -> None:
        if self._power.start_what_is_owed(self._vm):
            self._describe()

    def _found(self, entry: CatalogEntry) -> dict[str, Any]:
        self._job.note(f"the export {entry.manifest.export_id} is there already")
        return self._result(entry, changed=False)

    def _unchanged(self, entry: CatalogEntry) -> dict[str, Any]:
        since = entry.manifest.export_id
        self._job.note(f"nothing changed since {since}")
        return {**self._result(entry, changed=False), "unchanged_since": since}

    def _result(self, entry: CatalogEntry, *, changed: bool) -> dict[str, Any]:
        made = entry.manifest.export_id
        return {
            "changed": changed,
            "unchanged_since": "",
            "export": export_result(self._store, entry, self._existing),
            "job": self._job.as_result(),
            "diff": _diff(self._existing, made) if changed else _diff(self._existing),
            **({} if self._resumed is None else {"resumed": self._resumed}),
            "warnings": list(self._job.warnings),
        }

    def _preflight_of_machine(self) -> list[Finding]:
        if self._snapshot is not None:
            return [*self._snapshot.findings(self._disks), *self._unfit_disks()]
        vm = self._power.foreseen(self._vm)
        found = self._provider.check_export(vm, self._disks, self._request.consistency)
        return [*self._power.findings(self._vm), *found, *self._unfit_disks()]

    def _unfit_disks(self) -> list[Finding]:
        format = self._request.format
        return [*too_large(self._disks, format), *not_native(self._vm, self._disks, format)]

    def _preflight_of_store(self, choice: Choice) -> list[Finding]:
        try:
            self._job.capabilities = self._store.probe(probe_key())
        except VmferryError as error:
            return [finding_of(error)]
        self._job.flow.raise_if_stopped()
        planned = self._plan(choice)
        unfit = objects_that_do_not_fit(
            planned, self._request.format, self._job.limits, self._job.capabilities, self._is_encrypted
        )
        free, needed = self._store.free_space(), planned["bytes_to_send"]
        if free is None or free >= needed:
            return unfit
        message = f"{self._store.url} has {free} bytes free, and up to {needed} are needed for {self._vm.name}."
        return [*unfit, Finding("warning", message, "Free some space, or choose another store.", "no_space")]

    def _undo_the_dead(self) -> None:
        """What earlier runs on this VM and store left behind; `busy` where one of them still lives."""
        left = list(self._catalog.unfinished(self._vm.id, self._tell_of_unreadable))
        unfinished = [attempt_of(intent.export_id) for _unused, intent in left]
        committed = [attempt_of(entry.manifest.export_id) for entry in self._existing]
        over = [*attempts_known_dead(self._store, left), *committed]
        clean_up_machine(self._provider, self._vm, self._job, [*unfinished, *committed], over)
        for folder, intent in left:
            if remove_dead_attempt(
                self._store, folder, self._job.capabilities, self._job.warn, self._forget_point_in_time
            ):
                self._job.log("warning", f"Removed the unfinished export {intent.export_id} of a job that died.")

    def _tell_of_untrusted(self, error: VmferryError) -> None:
        self._job.warn(f"{error} It does not count here.")

    def _tell_of_unreadable(self, error: VmferryError) -> None:
        self._job.warn(f"An unfinished export is left as it is: {error} Remove it with export_cleanup and orphans.")

    def _forget_point_in_time(self, intent: Intent) -> None:
        if intent.token:
            self._provider.forget(self._vm, [intent.token])

    def _new_taking(self) -> Taking:
        from .exporting.take_export import Taking

        known = (self._vm, self._disks, self._existing, self._snapshot, self._power)
        return Taking(self._request, self._job, self._provider, self._store, *known)

    def _go_on(self, found: tuple[str, Intent]) -> Choice | None:
        """With the export of a run that died. None where that must begin anew; then it says why."""
        folder, intent = found
        try:
            left = resumable(self._store, self._request, self._disks, self._existing, found, time.time())
            claimed = claim_dead_attempt(self._store, folder, self._job.capabilities, self._job.id)
            if claimed is None:
                raise NotResumable("it is gone")
            self._taking = self._new_taking()
            self._taking.go_on(left, claimed)
        except NotResumable as error:
            self._resumed = begun_anew(error.message)
            self._job.tell(resumed=None)
            self._job.log("info", f"The unfinished export {intent.export_id} begins anew: {error.message}.")
            return None
        committed = self._taking.committed
        done = committed.manifest.statistics.get("resumed", {}) if committed is not None else {}
        self._resumed = {"export": intent.export_id, "bytes_kept": 0, "bytes_sent": 0, **done, "reason": ""}
        self._job.tell(resumed=self._resumed)
        return left.choice

    def _forget_older_tokens(self, made: CatalogEntry) -> None:
        """Of exports of these disks in this store, but not of the one that the next increment would stand on.

        An export of a snapshot is no later state than theirs, so that the next increment still asks since them.
        """
        if self._snapshot is not None:
            return
        alike = [entry for entry in [*self._existing, made] if has_same_disks(entry, self._disks)]
        ours = [entry for entry in alike if not sealed_otherwise(self._request, entry.manifest)]
        needed = {"", made.manifest.change_token}
        for chain in (
            ours,
            [entry for entry in alike if entry not in ours],
        ):  # tasks with another passphrase go on, too
            last = newest(images_to_stand_on(tracked_first(chain)), time.time())
            needed.add(last.manifest.change_token if last is not None else "")
        try:
            for sentence in self._provider.forget(
                self._vm, sorted({entry.manifest.change_token for entry in alike} - needed)
            ):
                self._job.log("info", sentence)
        except VmferryError as error:
            self._job.warn(f"Older change tokens of {self._vm.name} may be left, for the next export to drop: {error}")


def _diff(existing: Sequence[CatalogEntry], *made: str) -> dict[str, Any]:
    before = [entry.manifest.export_id for entry in existing]
    return {"before": {"exports": before}, "after": {"exports": [*before, *made]}}
