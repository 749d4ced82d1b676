# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One attempt at an export: its folder in the store, its point in time, its data, and the manifest that commits it."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Callable, ContextManager, Iterator, Sequence

from ..._errors import VmferryError
from ..._exports.catalog import Catalog, CatalogEntry
from ..._exports.chain import BROKEN
from ..._exports.intent import Intent
from ..._exports.manifest import MANIFEST, Manifest, read_manifest
from ..._exports.marks import CHECKED, checked_mark
from ..._exports.naming import attempt_of, export_id, new_attempt
from ..._exports.packed import image_format_of
from ..._providers.base import ExportSession, Provider, Tracking
from ..._providers.job import Job
from ..._providers.spec import DiskSpec, VmSpec
from ..._stores.base import Store
from ..._transfer.failpoints import failpoint
from ..._transfer.journal import UnfitJournal
from ..attempts.attempt import AttemptFolder
from ..attempts.attempt_journal import AttemptJournal
from ..attempts.clean_up_machine import clean_up_machine
from ..attempts.dead_attempts import Claimed
from ..attempts.litter import remove_litter
from ..jobs.findings import raise_first_error
from ..jobs.keeping import NotResumable, tell_what_is_kept
from ..jobs.requests import ExportRequest
from ..jobs.running_job import RunningJob
from ..stored.locked_exports import lock_export, lock_manifest
from ..stored.readable_chain import readable_chain
from .export_base import Base, Choice, sound_base
from .export_snapshot import ExportedSnapshot
from .guest_power import GuestPower
from .owed_copies import OwedCopies
from .resumable import Resumable, bytes_there
from .write_export import Identity, write_export


class Taking:
    """`committed` is the export as soon as nothing takes it back."""

    def __init__(
        self,
        request: ExportRequest,
        job: RunningJob,
        provider: Provider,
        store: Store,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        existing: Sequence[CatalogEntry],
        snapshot: ExportedSnapshot | None,
        power: GuestPower,
    ) -> None:
        """`existing`: this VM's exports."""
        self._request, self._job, self._provider, self._store = request, job, provider, store
        self._vm, self._disks, self._existing, self._catalog = vm, disks, existing, Catalog(store, request.seals)
        self._snapshot, self._power = snapshot, power
        self.committed: CatalogEntry | None = None
        self._opened = self._kept_token = False

    def begin(self, choice: Choice) -> None:
        """Makes none where nothing changed since the export that this one was to stand on."""
        started, attempt = self._second_of_its_own(), new_attempt()
        parent = choice.base.parent.manifest if choice.base is not None else None
        chain = attempt if parent is None else parent.chain_id
        owner, identity = Job(self._job.id, attempt, chain), export_id(started, attempt)
        if choice.base is not None:  # whose image it names by a relative path
            home = choice.base.parent.home
        else:
            home = self._catalog.folder_for(self._vm.name, self._vm.id)
        folder = f"{home}/{identity}"
        intent = Intent(
            export_id=identity,
            job_id=self._job.id,
            vm_id=self._vm.id,
            vm_name=self._vm.name,
            started_at=started,
            lease_until=started,
            owner=self._job.owner,
            parent="" if parent is None else parent.export_id,
            token=owner.token,
            window=self._request.resume_window,
        ).renewed(started, {})

        def open_new() -> ContextManager[ExportSession]:
            if self._snapshot is not None:
                return self._snapshot.session(self._disks, owner)
            tracking = self._tracking(choice)
            return self._provider.open_export(self._vm, self._disks, self._request.consistency, owner, tracking)

        claimed = AttemptFolder(self._store, folder, intent, self._job)
        journal = AttemptJournal(self._store, claimed.folder, self._request.seals.journal_key)
        journal.expect()
        self._in_folder(claimed, Identity(identity, chain, started, claimed.key, journal), owner, choice, open_new)

    def go_on(self, left: Resumable, claimed: Claimed) -> None:
        """Raises `NotResumable`, and has removed all of the attempt then."""
        identity, state = claimed.intent.export_id, left.state
        owner = Job(self._job.id, attempt_of(identity), state.chain)

        def reopen() -> ContextManager[ExportSession]:
            if self._snapshot is not None:
                return self._snapshot.reopened(self._disks, owner, state.reference)
            tracking = self._tracking(left.choice)
            return self._provider.reopen_export(self._vm, self._disks, owner, tracking, state.reference)

        self._job.log("info", f"Going on with the unfinished export {identity}.")
        self._job.keeping.is_at_stake("found" if self._request.keeps else "nothing")
        intent = replace(claimed.intent, window=self._request.resume_window)
        attempt = AttemptFolder(self._store, left.folder, intent, self._job, claimed.written)
        journal = AttemptJournal(self._store, attempt.folder, self._request.seals.journal_key)
        whose = Identity(identity, state.chain, state.started, attempt.key, journal, state)
        try:
            self._in_folder(attempt, whose, owner, left.choice, reopen)
        except Exception as error:
            cause = self._job.flow.error or error
            if not self._opened and not self._job.keeps(error):
                self._undo_on_host(owner.attempt, claimed.intent)
            if not isinstance(cause, (NotResumable, UnfitJournal)):
                raise
            self._job.begin_anew()
            raise NotResumable(cause.message.rstrip(".")) from error

    def _undo_on_host(self, attempt: str, intent: Intent) -> None:
        """What no session took over. The folder is gone by now, and with it who would tell of the token."""
        with self._job.undoing(f"What the unfinished export {intent.export_id} left on {self._vm.name}"):
            clean_up_machine(self._provider, self._vm, self._job, [attempt], [attempt])
            if intent.token:
                self._provider.forget(self._vm, [intent.token])

    def _in_folder(
        self,
        attempt: AttemptFolder,
        identity: Identity,
        owner: Job,
        choice: Choice,
        open_session: Callable[[], ContextManager[ExportSession]],
    ) -> None:
        self._job.unfinished = lambda: (identity.export_id, attempt.held_until)
        try:
            with attempt as claimed:
                try:
                    self._resume_or_begin(identity, claimed, owner, choice, open_session)
                except BaseException as error:
                    self._job.keeping.settle(self._job.keeps(error))
                    raise
        except Exception as error:  # whatever it is: what is committed is done
            if self.committed is None:
                if self._job.keeps(error):
                    tell_what_is_kept(self._job.flow.error or error, identity.export_id, attempt.held_until)
                raise
            self._job.warn(
                f"The export is made, but its point in time may not be removed: {str(error) or type(error).__name__}"
            )

    def _resume_or_begin(
        self,
        identity: Identity,
        claimed: AttemptFolder,
        owner: Job,
        choice: Choice,
        open_session: Callable[[], ContextManager[ExportSession]],
    ) -> None:
        if identity.resumed is not None:
            there = bytes_there(self._store, claimed.folder, self._disks, self._request.seals.journal_key)
            self._job.tell(resumed={"export": identity.export_id, "bytes_kept": there})
        remove_litter(self._store, [entry.folder for entry in self._existing], claimed.claimed_at, self._job.log)
        try:
            choice = self._looked_again(choice)
        except VmferryError as error:
            if identity.resumed is None or error.kind not in BROKEN:
                raise
            raise NotResumable(error.message.rstrip(".")) from error
        self._take(identity, claimed, owner, choice, open_session)

    def _looked_again(self, choice: Choice) -> Choice:
        """With its chain as it is now: from here on, a cleanup that merges exports sees the intent."""
        if choice.base is None:
            return choice
        seen = self._seen_again(choice.base)
        return replace(choice, base=Base(readable_chain(self._store, seen, self._catalog.beside(seen))))

    def _take(
        self,
        identity: Identity,
        claimed: AttemptFolder,
        owner: Job,
        choice: Choice,
        open_session: Callable[[], ContextManager[ExportSession]],
    ) -> None:
        self._job.phase("snapshotting")
        try:
            with ExitStack() as stack:
                if identity.resumed is None:  # else it has to be as it was when that one died
                    self._switch_off(stack, claimed.folder)
                opened = self._job.session(_entered(open_session, identity.resumed is not None))
                session = stack.enter_context(opened)
                self._opened = True
                try:
                    self._make(session, identity, claimed, choice)
                except BaseException as error:
                    self._job.keeping.settle(self._job.keeps(error) and session.stay())
                    raise
                self._job.progress.enter("finishing")
        except Exception as error:
            if self._kept_token and self.committed is None and not self._job.keeps(error):
                with self._job.undoing(f"The change token {owner.token}"):
                    self._provider.forget(self._vm, [owner.token])
            raise
        for warning in session.warnings:  # also of leaving it
            self._job.warn(warning)

    def _switch_off(self, stack: ExitStack, folder: str) -> None:
        """A guest that is to be shut down first, until the stack is left."""
        vm = stack.enter_context(self._power.off(self._vm, folder))
        if vm is not self._vm:
            self._vm = vm
            raise_first_error(self._provider.check_export(vm, self._disks, self._request.consistency))

    def _make(self, session: ExportSession, identity: Identity, claimed: AttemptFolder, choice: Choice) -> None:
        manifest = write_export(self._job, self._store, self._request, session, choice, identity)
        session.confirm()
        if manifest is not None:
            self._kept_token = True
            session.keep_token()
            failpoint("token_kept")
            self.committed = self._commit(claimed, manifest, choice.base)
        elif choice.base is not None:
            self._insist_on(choice.base)
            self._note_check(choice.base)

    def _note_check(self, base: Base) -> None:
        """That the VM was seen to equal this export, so that reports of recovery points stay true. Whoever follows this
        run finds it once the intent is gone.
        """
        self._store.put(base.parent.key(CHECKED), checked_mark(time.time(), self._job.id))

    def _second_of_its_own(self) -> float:
        """Times in manifests are whole seconds: two exports of a VM that shared one would have no order."""
        now = time.time()
        if int(now) in {int(entry.manifest.created_at) for entry in self._existing}:
            self._job.flow.sleep(int(now) + 1 - now)
        return time.time()

    def _tracking(self, choice: Choice) -> Tracking:
        since = choice.base.parent.manifest.change_token if choice.base is not None else ""
        keep = self._request.track_changes and image_format_of(self._request.format).layers
        return Tracking(since, keep=keep)

    def _commit(self, claimed: AttemptFolder, manifest: Manifest, base: Base | None) -> CatalogEntry:
        seals = self._request.seals
        text = seals.seal(manifest.to_json(lambda file: self._store.location(claimed.key(file))))
        seen = read_manifest(text, self._store.object_url(claimed.key(MANIFEST)), seals)  # or it would be no export
        if manifest.parent and base is not None:
            self._insist_on(base)
        manifest = replace(manifest, signatures=seen.signatures, signature=seen.signature)
        made = CatalogEntry(claimed.folder, manifest, trust=seals)
        for spec in self._request.copies_to:  # or nobody knew of them if this run is killed behind the commit
            OwedCopies(self._store, spec.url).note(made)
        lock_export(self._store, made)
        self._power.renew()
        claimed.commit(text)
        lock_manifest(self._store, made, self._job.warn)
        return made

    def _insist_on(self, base: Base) -> None:
        """It may have been removed, replaced or damaged since the intent named it."""
        seen = self._seen_again(base)
        flaw = sound_base(self._store, seen)[1]
        if flaw:
            raise self._became("was damaged", seen)

    def _seen_again(self, base: Base) -> CatalogEntry:
        seen = self._catalog.beside(base.parent)(base.parent.manifest.export_id)
        if seen is None:
            raise self._became("was removed", base.parent)
        if _roots(seen) != _roots(base.parent):
            raise self._became("was replaced", seen)
        return seen

    def _became(self, what: str, parent: CatalogEntry) -> VmferryError:
        return VmferryError(
            "conflict",
            f"The export {parent.manifest.export_id}, on which this one of {self._vm.name} stands, {what} meanwhile.",
            "Export again.",
            retryable=True,
        )


def _roots(entry: CatalogEntry) -> list[str]:
    return [disk.digest_root for disk in entry.manifest.disks]


@contextmanager
def _entered(open_session: Callable[[], ContextManager[ExportSession]], reopened: bool) -> Iterator[ExportSession]:
    with ExitStack() as stack:
        try:
            session = stack.enter_context(open_session())
        except VmferryError as error:
            if reopened and error.kind == "not_found":
                raise NotResumable(error.message.rstrip(".")) from error
            raise
        yield session
