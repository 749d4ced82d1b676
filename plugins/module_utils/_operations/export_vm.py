# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm_export` does: a point in time of a VM into a store.

The order is what keeps data safe: intent, point in time, data, complete objects, proof, manifest; then the point in
time is removed. Whatever goes wrong before the manifest leaves nothing behind, in the store or on the provider.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from hashlib import sha256
from typing import Any, Sequence

from .._errors import VmferryError
from .._exports.catalog import Catalog, CatalogEntry
from .._exports.intent import LEASE, Intent
from .._exports.manifest import MANIFEST, Machine, Manifest, StoredFile, read_manifest
from .._exports.naming import export_id, new_attempt
from .._providers.base import ExportSession, Finding, Job, Provider
from .._providers.open import open_provider
from .._providers.spec import VmSpec
from .._stores.base import Store
from .attempt import AttemptFolder, remove_dead_attempt
from .export_disk import export_disk
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
from .verify_export import verify_disk, verify_file

PHASES = {"exporting": 1.0, "verifying": 0.5}
VERSION = "0.1.0"  # of the collection; a test compares it with galaxy.yml


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
        self._vm = provider.describe(request.vm)
        self._disks = chosen_disks(self._vm, request.disks)
        self._existing: Sequence[CatalogEntry] = ()
        self._committed: CatalogEntry | None = None

    def run(self, check_mode: bool) -> dict[str, Any]:
        self._job.phase("validating")
        if check_mode:
            return self._job.supervise(self._check)  # a signal, too, finds the probe removed
        insist_on_disks(self._vm, self._request.disks)
        existing = self._catalog.of_vm(self._vm.id)
        enough = satisfying_export(self._request, self._vm, self._disks, existing)
        if enough is not None:
            return self._result(enough, existing, changed=False)
        self._job.wait_for_slot(self._provider)
        self._existing = existing
        result = self._job.supervise(self._checked_export, self._made)
        return {**result, "warnings": list(self._job.warnings)}

    def _check(self) -> dict[str, Any]:
        """All findings at once, so that nobody mends one only to meet the next."""
        findings: list[Finding] = []
        existing: Sequence[CatalogEntry] | None = None
        with told_in(findings):
            insist_on_disks(self._vm, self._request.disks)
        with told_in(findings):
            existing = self._catalog.of_vm(self._vm.id)
            enough = satisfying_export(self._request, self._vm, self._disks, existing)
            if enough is not None and not findings:
                return self._result(enough, existing, changed=False)
        findings += self._preflight_of_machine()
        if existing is not None:  # or it is known already why the store cannot be used
            findings += self._preflight_of_store()
        diff = _diff(existing or (), "a new export")
        return checked(findings, plan(self._disks, "every export is a full one"), diff["before"], diff["after"])

    def _made(self) -> dict[str, Any] | None:
        return None if self._committed is None else self._result(self._committed, self._existing, changed=True)

    def _checked_export(self) -> dict[str, Any]:
        raise_first_error([*self._preflight_of_machine(), *self._preflight_of_store()])
        self._undo_the_dead()
        if self._request.name or self._request.max_age is not None:
            # A job that had the slot before may have made the export.
            self._existing = self._catalog.of_vm(self._vm.id)
            enough = satisfying_export(self._request, self._vm, self._disks, self._existing)
            if enough is not None:
                return self._result(enough, self._existing, changed=False)
        return self._result(self._export(), self._existing, changed=True)

    def _result(self, entry: CatalogEntry, existing: Sequence[CatalogEntry], *, changed: bool) -> dict[str, Any]:
        made = entry.manifest.export_id
        return {
            "changed": changed,
            "export": export_result(self._store, entry),
            "job": self._job.as_result(),
            "diff": _diff(existing, made) if changed else _diff(existing),
            "warnings": list(self._job.warnings),
        }

    def _preflight_of_machine(self) -> list[Finding]:
        found = self._provider.check_export(self._vm, self._disks, self._request.consistency)
        return [*found, *too_large(self._disks)]

    def _preflight_of_store(self) -> list[Finding]:
        try:
            self._job.capabilities = self._store.probe(probe_key())
        except VmferryError as error:
            return [finding_of(error)]
        self._job.flow.raise_if_stopped()
        free, needed = self._store.free_space(), plan(self._disks, "")["bytes_to_send"]
        if free is None or free >= needed:
            return []
        message = f"{self._store.url} has {free} bytes free, and up to {needed} are needed for {self._vm.name}."
        return [Finding("warning", message, "Free some space, or choose another store.", "no_space")]

    def _undo_the_dead(self) -> None:
        """What earlier runs on this VM and store left behind; `busy` where one of them still lives."""
        for sentence in self._provider.clean_up(self._vm):
            self._job.log("warning", sentence)
        for folder, intent in list(self._catalog.unfinished(self._vm.id)):
            if remove_dead_attempt(self._store, folder, self._job.capabilities, self._job.warn):
                self._job.log("warning", f"Removed the unfinished export {intent.export_id} of a job that died.")

    def _export(self) -> CatalogEntry:
        started, attempt, chain = time.time(), new_attempt(), new_attempt()
        identity = export_id(started, attempt)
        folder = f"{self._catalog.folder_for(self._vm.name, self._vm.id)}/{identity}"
        intent = Intent(
            export_id=identity,
            job_id=self._job.id,
            vm_id=self._vm.id,
            vm_name=self._vm.name,
            started_at=started,
            lease_until=started + LEASE,
            owner=self._job.owner,
        )
        owner = Job(self._job.id, attempt, chain)
        try:
            with AttemptFolder(self._store, folder, intent, self._job) as claimed:
                whole = [entry.folder for entry in self._existing]
                remove_litter(self._store, whole, claimed.claimed_at, self._job.log)
                self._job.phase("snapshotting")
                with self._provider.open_export(self._vm, self._disks, self._request.consistency, owner) as session:
                    manifest = self._write(session, claimed, identity, chain, started)
                    session.confirm()
                    self._commit(claimed, manifest)
                    self._committed = CatalogEntry(folder, manifest)
                    self._job.progress.enter("finishing")
                for warning in session.warnings:  # also of leaving it
                    self._job.warn(warning)
        except Exception as error:  # whatever it is: what is committed is done
            if self._committed is None:
                raise
            self._job.warn(
                f"The export is made, but its point in time may not be removed: {str(error) or type(error).__name__}"
            )
        return self._committed

    def _commit(self, claimed: AttemptFolder, manifest: Manifest) -> None:
        text = manifest.to_json(lambda file: self._locate(claimed.key(file)))
        read_manifest(text, self._store.object_url(claimed.key(MANIFEST)))  # what nobody can read is no export
        claimed.commit(text)

    def _write(
        self, session: ExportSession, claimed: AttemptFolder, identity: str, chain: str, started: float
    ) -> Manifest:
        for warning in session.warnings:
            self._job.warn(warning)
        self._job.phase("exporting", [(disk.spec.id, disk.source.size) for disk in session.disks])
        written = [
            export_disk(
                self._job,
                self._store,
                claimed.key,
                disk,
                self._request.format,
                identity,
                self._job.progress.disk(number),
            )
            for number, disk in enumerate(session.disks)
        ]
        if self._request.verify != "none":
            self._job.phase("verifying", [(disk.record.id, disk.record.size) for disk in written])
            for number, disk in enumerate(written):
                progress = self._job.progress.disk(number)
                verify_disk(self._job, self._store, claimed.key, disk.record, self._request.verify, progress)
        self._job.phase("committing")
        files = [self._put(claimed, "vm.json", session.vm.to_json())]
        files += [self._put(claimed, f"native/{name}", data) for name, data in sorted(session.native.items())]
        if self._request.verify != "none":
            for file in files:
                verify_file(self._job, self._store, claimed.key, file)
        now = time.time()
        return Manifest(
            export_id=identity,
            chain_id=chain,
            job_id=self._job.id,
            machine=_machine(session.vm),
            taken_at=session.taken_at,
            created_at=now,
            consistency=session.consistency,
            format=self._request.format,
            disks=tuple(disk.record for disk in written),
            files=tuple(files),
            name=self._request.name,
            tags=self._request.tags,
            purpose=self._request.purpose,
            verified=self._request.verify,
            warnings=tuple(self._job.warnings),
            version=VERSION,
            statistics={
                "reason": "every export is a full one",
                "duration": round(now - started, 3),
                "retries": self._job.progress.retries,
                "disks": {disk.record.id: disk.statistics for disk in written},
            },
        )

    def _put(self, claimed: AttemptFolder, path: str, data: bytes) -> StoredFile:
        self._store.put(claimed.key(path), data)
        return StoredFile(path, len(data), sha256(data).hexdigest())

    def _locate(self, key: str) -> str:
        """A path where the store is one, since that is what other tools open; a URL where it is not."""
        url = self._store.object_url(key)
        return url[len("file://") :] if url.startswith("file://") else url


def _machine(vm: VmSpec) -> Machine:
    nics = tuple({"id": nic.id, "mac": nic.mac, "network": nic.network} for nic in vm.nics)
    return Machine(vm.provider, vm.id, vm.name, vm.cpu, vm.memory_mb, vm.firmware, vm.secure_boot, vm.guest_os, nics)


def _diff(existing: Sequence[CatalogEntry], *made: str) -> dict[str, Any]:
    before = [entry.manifest.export_id for entry in existing]
    return {"before": {"exports": before}, "after": {"exports": [*before, *made]}}
