# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm_export` does: a point in time of a VM into a store.

The order is what keeps data safe: intent, point in time, data, complete objects, proof, the parent looked at once more,
manifest; then older change tokens are dropped and the point in time is removed. Whatever goes wrong before the manifest
leaves nothing behind, in the store or on the provider.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import Any, Sequence

from .._errors import VmferryError
from .._exports.catalog import Catalog, CatalogEntry
from .._exports.intent import LEASE, Intent
from .._exports.manifest import MANIFEST, Manifest, read_manifest
from .._exports.marks import CHECKED, checked_mark
from .._exports.naming import export_id, new_attempt
from .._providers.base import Provider, Tracking
from .._providers.finding import Finding
from .._providers.job import Job
from .._providers.open import open_provider
from .._stores.base import Store
from .._transfer.failpoints import failpoint
from .attempt import AttemptFolder, remove_dead_attempt
from .export_base import Base, Choice, choose_base, has_same_disks
from .export_plan import (
    checked,
    chosen_disks,
    finding_of,
    insist_on_disks,
    plan,
    raise_first_error,
    satisfying_export,
    told_in,
    too_large,
)
from .litter import probe_key, remove_litter
from .requests import ExportRequest
from .results import export_result
from .running_job import RunningJob
from .write_export import Identity, write_export

PHASES = {"exporting": 1.0, "verifying": 0.5}


def export_vm(request: ExportRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`."""
    with ExitStack() as stack:
        job = stack.enter_context(
            RunningJob.start("export", request.transfer, request.vm, request.store.url, PHASES, check_mode)
        )
        provider = stack.enter_context(closing(open_provider(request.provider.name, request.provider.settings)))
        store = stack.enter_context(closing(job.open_store(request.store)))
        return _Export(request, job, provider, store).run(check_mode)


class _Export:
    def __init__(self, request: ExportRequest, job: RunningJob, provider: Provider, store: Store) -> None:
        self._request, self._job, self._provider, self._store = request, job, provider, store
        self._catalog = Catalog(store)
        self._existing: Sequence[CatalogEntry] = ()
        self._committed: CatalogEntry | None = None

    def run(self, check_mode: bool) -> dict[str, Any]:
        self._job.phase("validating")
        self._job.ask(self._describe)
        if check_mode:
            return self._job.supervise(self._check)  # a signal, too, finds the probe removed
        insist_on_disks(self._vm, self._request.disks)
        enough = self._job.ask(self._look)
        if enough is not None:
            return self._found(enough)
        self._job.wait_for_slot(self._provider)
        result = self._job.supervise(self._checked_export, self._made)
        return {**result, "warnings": list(self._job.warnings)}

    def _describe(self) -> None:
        self._vm = self._provider.describe(self._request.vm)
        self._disks = chosen_disks(self._vm, self._request.disks)

    def _look(self) -> CatalogEntry | None:
        """The export that makes a new one needless."""
        self._existing = self._catalog.of_vm(self._vm.id)
        return satisfying_export(self._request, self._vm, self._disks, self._existing)

    def _check(self) -> dict[str, Any]:
        """All findings at once, so that nobody mends one only to meet the next."""
        findings: list[Finding] = []
        choice: Choice | None = None
        with told_in(findings):
            insist_on_disks(self._vm, self._request.disks)
        with told_in(findings):
            enough = self._look()
            if enough is not None and not findings:
                return self._found(enough)
            choice = Choice(None, "")
        if choice is not None:  # or it is known already why the store cannot be used
            with told_in(findings):
                choice = self._choose()
        findings += self._preflight_of_machine()
        if choice is not None:
            findings += self._preflight_of_store(choice)
        diff = _diff(self._existing, "a new export")
        found = checked(findings, self._plan(choice or Choice(None, "")), diff["before"], diff["after"])
        return {**found, "job": self._job.as_result()}

    def _choose(self) -> Choice:
        newest = max(self._existing, key=lambda entry: entry.manifest.taken_at, default=None)
        find = self._catalog.beside(newest) if newest is not None else lambda export_id: None
        return choose_base(self._request, self._disks, self._existing, find, time.time())

    def _plan(self, choice: Choice) -> dict[str, Any]:
        token = choice.base.parent.manifest.change_token if choice.base is not None else ""
        changed = self._provider.changed_since(self._vm, self._disks, token) if token else {}
        return plan(self._disks, choice, changed, self._request.format)

    def _made(self) -> dict[str, Any] | None:
        return None if self._committed is None else self._result(self._committed, changed=True)

    def _checked_export(self) -> dict[str, Any]:
        raise_first_error([*self._preflight_of_machine(), *self._preflight_of_store(Choice(None, ""))])
        self._undo_the_dead()
        enough = self._look()  # a job that had the slot before may have made it
        if enough is not None:
            return self._found(enough)
        choice = self._choose()
        made = self._export(choice)
        if made is not None:
            self._forget_older_tokens(made)
            failpoint("tokens_forgotten")
            return self._result(made, changed=True)
        if choice.base is None:
            raise VmferryError("internal", "A full export was taken for an increment without changes.")
        self._note_check(choice.base)
        return self._unchanged(choice.base.parent)

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
            "warnings": list(self._job.warnings),
        }

    def _preflight_of_machine(self) -> list[Finding]:
        found = self._provider.check_export(self._vm, self._disks, self._request.consistency)
        return [*found, *too_large(self._disks)]

    def _preflight_of_store(self, choice: Choice) -> list[Finding]:
        try:
            self._job.capabilities = self._store.probe(probe_key())
        except VmferryError as error:
            return [finding_of(error)]
        self._job.flow.raise_if_stopped()
        free, needed = self._store.free_space(), self._plan(choice)["bytes_to_send"]
        if free is None or free >= needed:
            return []
        message = f"{self._store.url} has {free} bytes free, and up to {needed} are needed for {self._vm.name}."
        return [Finding("warning", message, "Free some space, or choose another store.", "no_space")]

    def _undo_the_dead(self) -> None:
        """What earlier runs on this VM and store left behind; `busy` where one of them still lives."""
        for sentence in self._provider.clean_up(self._vm):
            self._job.log("warning", sentence)
        for folder, intent in list(self._catalog.unfinished(self._vm.id)):
            if remove_dead_attempt(
                self._store, folder, self._job.capabilities, self._job.warn, self._forget_point_in_time
            ):
                self._job.log("warning", f"Removed the unfinished export {intent.export_id} of a job that died.")

    def _forget_point_in_time(self, intent: Intent) -> None:
        if intent.token:
            self._provider.forget(self._vm, [intent.token])

    def _export(self, choice: Choice) -> CatalogEntry | None:
        """None where nothing changed since the export that this one was to stand on."""
        started, attempt = self._second_of_its_own(), new_attempt()
        parent = choice.base.parent.manifest if choice.base is not None else None
        chain = new_attempt() if parent is None else parent.chain_id
        owner, identity = Job(self._job.id, attempt, chain), export_id(started, attempt)
        folder = f"{self._catalog.folder_for(self._vm.name, self._vm.id)}/{identity}"
        intent = Intent(
            export_id=identity,
            job_id=self._job.id,
            vm_id=self._vm.id,
            vm_name=self._vm.name,
            started_at=started,
            lease_until=started + LEASE,
            owner=self._job.owner,
            parent="" if parent is None else parent.export_id,
            token=owner.token,
        )
        try:
            with AttemptFolder(self._store, folder, intent, self._job) as claimed:
                whole = [entry.folder for entry in self._existing]
                remove_litter(self._store, whole, claimed.claimed_at, self._job.log)
                self._take(Identity(identity, chain, started, claimed.key), claimed, owner, choice)
        except Exception as error:  # whatever it is: what is committed is done
            if self._committed is None:
                raise
            self._job.warn(
                f"The export is made, but its point in time may not be removed: {str(error) or type(error).__name__}"
            )
        return self._committed

    def _take(self, identity: Identity, claimed: AttemptFolder, owner: Job, choice: Choice) -> None:
        self._job.phase("snapshotting")
        kept = False
        try:
            point_in_time = self._provider.open_export(
                self._vm, self._disks, self._request.consistency, owner, self._tracking(choice)
            )
            with self._job.session(point_in_time) as session:
                manifest = write_export(self._job, self._store, self._request, session, choice, identity)
                session.confirm()
                if manifest is not None:
                    kept = True
                    session.keep_token()
                    failpoint("token_kept")
                    self._commit(claimed, manifest, choice.base)
                    self._committed = CatalogEntry(claimed.folder, manifest)
                self._job.progress.enter("finishing")
        except Exception:
            if kept and self._committed is None:
                with self._job.undoing(f"The change token {owner.token}"):
                    self._provider.forget(self._vm, [owner.token])
            raise
        for warning in session.warnings:  # also of leaving it
            self._job.warn(warning)

    def _second_of_its_own(self) -> float:
        """Times in manifests are whole seconds: two exports of a VM that shared one would have no order."""
        newest = max((int(entry.manifest.created_at) for entry in self._existing), default=0)
        now = time.time()
        if newest <= now < newest + 1:
            self._job.flow.sleep(newest + 1 - now)
        return time.time()

    def _tracking(self, choice: Choice) -> Tracking:
        since = choice.base.parent.manifest.change_token if choice.base is not None else ""
        return Tracking(since, keep=self._request.track_changes and self._request.format == "qcow2")

    def _commit(self, claimed: AttemptFolder, manifest: Manifest, base: Base | None) -> None:
        text = manifest.to_json(lambda file: self._store.location(claimed.key(file)))
        read_manifest(text, self._store.object_url(claimed.key(MANIFEST)))  # what nobody can read is no export
        if manifest.parent and base is not None:
            self._insist_on_parent(base)
        claimed.commit(text)

    def _insist_on_parent(self, base: Base) -> None:
        """It may have been removed, or replaced, since the intent named it."""
        seen = self._catalog.beside(base.parent)(base.parent.manifest.export_id)
        roots = [disk.digest_root for disk in base.parent.manifest.disks]
        if seen is None or [disk.digest_root for disk in seen.manifest.disks] != roots:
            raise VmferryError(
                "conflict",
                f"The export {base.parent.manifest.export_id}, on which this one of {self._vm.name} stands, was "
                f"{'removed' if seen is None else 'replaced'} meanwhile.",
                "Export again.",
                retryable=True,
            )

    def _forget_older_tokens(self, made: CatalogEntry) -> None:
        """Of exports of these disks in this store: nothing will ever be asked since them again."""
        older = {entry.manifest.change_token for entry in self._existing if has_same_disks(entry, self._disks)}
        try:
            for sentence in self._provider.forget(self._vm, sorted(older - {"", made.manifest.change_token})):
                self._job.log("info", sentence)
        except VmferryError as error:
            self._job.warn(f"Older change tokens of {self._vm.name} may be left, for the next export to drop: {error}")

    def _note_check(self, base: Base) -> None:
        """That the VM was seen to equal this export, so that reports of recovery points stay true."""
        self._store.put(base.parent.key(CHECKED), checked_mark(time.time(), self._job.id))


def _diff(existing: Sequence[CatalogEntry], *made: str) -> dict[str, Any]:
    before = [entry.manifest.export_id for entry in existing]
    return {"before": {"exports": before}, "after": {"exports": [*before, *made]}}
