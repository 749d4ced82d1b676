# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A point in time as an export: its images, their proof, and the manifest that nothing has committed yet."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from hashlib import sha256
from secrets import token_hex
from typing import Callable, Sequence

from ..._errors import VmferryError
from ..._exports.encryption import ChainKeys
from ..._exports.fields import Fields
from ..._exports.manifest import Machine, Manifest, StoredFile
from ..._exports.naming import attempt_of
from ..._exports.packed import PACKED
from ..._providers.base import ExportDisk, ExportSession
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..._transfer.failpoints import failpoint
from ..._transfer.limits import Limits
from ..attempts.attempt_journal import AttemptJournal, AttemptState
from ..jobs.keeping import NotResumable
from ..jobs.requests import ExportRequest
from ..jobs.running_job import RunningJob
from ..stored.readable_chain import OF_WHAT_IS_THERE, held_still
from ..stored.stored_disk import StoredDisk
from ..stored.stored_proof import verify_archive, verify_disk, verify_file
from .export_base import Base, Choice, UnfitParent, full_instead, resized
from .export_disk import WrittenDisk, export_disk
from .export_disks import export_disks

VERSION = "0.1.0"  # of the collection; a test compares it with galaxy.yml


@dataclass(frozen=True)
class Identity:
    """What is known of an export before its first byte."""

    export_id: str
    chain_id: str  # that the provider's token is named after
    started: float
    key: Callable[[str], str]  # of a file in its folder
    journal: AttemptJournal
    resumed: AttemptState | None = None  # of the dead run that it goes on with


def write_export(
    job: RunningJob, store: Store, request: ExportRequest, session: ExportSession, choice: Choice, identity: Identity
) -> Manifest | None:
    """None where nothing differs from the parent: what was written is of no use then."""
    return _Writing(job, store, request, session, identity).write(choice)


class _Writing:
    def __init__(
        self, job: RunningJob, store: Store, request: ExportRequest, session: ExportSession, identity: Identity
    ) -> None:
        self._job, self._store, self._request, self._session, self._identity = job, store, request, session, identity
        self._state = identity.resumed
        self._keys: ChainKeys | None = None
        self._vm, self._native = session.vm.without_drives(request.detach), session.native
        self._packed: Sequence[StoredFile] = ()  # what an appliance has besides its disks

    def write(self, choice: Choice) -> Manifest | None:
        for warning in [*(self._state.warnings if self._state is not None else ()), *self._session.warnings]:
            self._job.warn(warning)
        if self._state is None:
            choice = self._settled(choice)
            self._keys = self._keys_of(choice)
            self._state = self._new_state(choice, self._put_files())
            self._identity.journal.begin(self._state)
            self._session.outlive(self._request.resume_window)
        else:
            self._keys = self._keys_found(self._state, choice)
            self._session.outlive(self._request.resume_window)
            self._read_files(self._state.files)
        self._job.keeping.is_at_stake("made" if self._request.keeps else "nothing")
        failpoint("resumable")
        try:
            written = self._images(choice.base, self._state.mark)
        except UnfitParent as error:
            choice = self._full_instead(error.message)
            self._keys = self._keys_of(choice)
            self._state = self._new_state(choice, self._state.files)
            self._identity.journal.begin(self._state)
            written = self._images(None, self._state.mark)
        if choice.base is not None and self._is_needless(choice.base, written):
            return None
        self._verify(choice.base, written, self._files(self._state))
        self._job.phase("committing")
        return self._manifest(choice, written, self._state)

    def _keys_of(self, choice: Choice) -> ChainKeys | None:
        """Those of the chain, or new ones for a new chain."""
        ring = self._request.seals.keyring
        if ring is None:
            return None
        if choice.base is not None:
            return choice.base.parent.manifest.keys
        return ring.new_chain(self._vm.id, self._chain_id(None))

    def _keys_found(self, state: AttemptState, choice: Choice) -> ChainKeys | None:
        ring, made = self._request.seals.keyring, state.encryption
        found = ring.keys(made, self._chain_id(choice.base)) if ring is not None and made is not None else None
        if (found is None) != (ring is None):
            raise NotResumable("it is encrypted in another way, or with another passphrase")
        return found

    def _chain_id(self, base: Base | None) -> str:
        """Another one than the provider's token has, where a full export was made instead of an increment."""
        return attempt_of(self._identity.export_id) if base is None else base.parent.manifest.chain_id

    def _new_state(self, choice: Choice, files: Sequence[StoredFile]) -> AttemptState:
        session, identity = self._session, self._identity
        before = identity.resumed
        return AttemptState(
            chain=identity.chain_id,
            started=identity.started,
            taken_at=before.taken_at if before is not None else session.taken_at,
            consistency=before.consistency if before is not None else session.consistency,
            format=self._request.format,
            compression=self._request.compression,
            compression_level=self._request.compression_level,
            encryption=self._keys.encryption if self._keys is not None else None,
            tracked=self._request.track_changes,
            name=self._request.name,
            tags=self._request.tags,
            purpose=self._request.purpose,
            disks=tuple((disk.spec.id, disk.spec.name) for disk in session.disks),
            parent="" if choice.base is None else choice.base.parent.manifest.export_id,
            reason=choice.reason,
            fell_back=choice.fell_back,
            reference=session.reference,
            files=tuple(files),
            warnings=tuple(self._job.warnings),
            mark=token_hex(16),
        )

    def _settled(self, choice: Choice) -> Choice:
        """Now that the point in time is taken."""
        if choice.base is None:
            return choice
        sizes = [(disk.spec.id, disk.source.size) for disk in self._session.disks]
        reason = self._session.lost or resized(choice.base, sizes)
        if reason:
            return self._full_instead(reason)
        if all(disk.changes is None for disk in self._session.disks):
            return replace(choice, reason="nobody tracks the changes: all was read and compared by digests")
        return choice

    def _full_instead(self, reason: str) -> Choice:
        reason = reason.rstrip(".")
        choice = full_instead(self._request, reason)
        self._job.warn(f"A full export is made instead of an increment: {reason}.")
        return choice

    def _files(self, state: AttemptState) -> tuple[StoredFile, ...]:
        return (*state.files, *self._packed)

    def _images(self, base: Base | None, mark: str) -> Sequence[WrittenDisk]:
        self._job.phase("exporting", [(disk.spec.id, disk.source.size) for disk in self._session.disks])
        if self._request.format in PACKED:
            return self._appliance()

        def write(number: int, disk: ExportDisk, limits: Limits) -> WrittenDisk:
            return export_disk(
                self._job,
                self._store,
                self._identity.key,
                disk,
                self._request,
                self._identity.export_id,
                self._job.progress.disk(number),
                base,
                self._identity.journal,
                self._identity.resumed is not None,
                self._keys,
                mark,
                limits,
            )

        return export_disks(self._job, self._session, write)

    def _appliance(self) -> Sequence[WrittenDisk]:
        from .export_appliance import export_appliance  # a module is compiled anew at every start, and few need it

        identity, disks = self._identity, self._session.disks
        made = export_appliance(
            self._job, self._store, identity.key, self._vm, disks, self._request, identity.export_id
        )
        self._packed = made.texts
        return made.disks

    def _verify(self, base: Base | None, written: Sequence[WrittenDisk], files: Sequence[StoredFile]) -> None:
        if self._request.verify == "none":
            return
        for file in files:
            verify_file(self._job, self._store, self._identity.key, file)
        archive = written[0].record.archive
        whole = [(archive.file, archive.size)] if archive is not None else []
        self._job.phase("verifying", [*((disk.record.id, disk.record.size) for disk in written), *whole])
        if archive is not None:
            progress = self._job.progress.disk(len(written))
            verify_archive(self._job, self._store, self._identity.key, archive, progress)
        for number, disk in enumerate(written):
            below = base.layers(disk.record.id) if base is not None else ()
            layers = (*below, StoredDisk(disk.record, self._identity.key, disk.keys))
            with held_still(self._job, self._store, base.chain if base is not None else ()):
                verify_disk(self._job, self._store, layers, self._request.verify, self._job.progress.disk(number))

    def _is_needless(self, base: Base, written: Sequence[WrittenDisk]) -> bool:
        """Neither the disks nor the machine differ, and whoever looks for this export would find the parent."""
        request, parent = self._request, base.parent.manifest
        if request.snapshot is not None:
            return False
        same_labels = not request.name and set(request.tags) <= set(parent.tags) and request.purpose == parent.purpose
        return same_labels and not any(disk.changed for disk in written) and self._is_same_machine(base)

    def _is_same_machine(self, base: Base) -> bool:
        """By the provider's own description, which does not say whether the VM runs."""
        before = {file.path: file.sha256 for file in base.parent.manifest.files if file.path.startswith("native/")}
        now = {f"native/{name}": sha256(data).hexdigest() for name, data in self._native.items()}
        return before == now

    def _put_files(self) -> list[StoredFile]:
        """Before the data, since they are of the point in time, and a run that goes on cannot ask for them again."""
        files = [self._put("vm.json", self._vm.to_json())]
        return files + [self._put(f"native/{name}", data) for name, data in sorted(self._native.items())]

    def _read_files(self, files: Sequence[StoredFile]) -> None:
        """Raises `NotResumable` where one is not as it was: the point in time is no other's to describe anew."""
        native = {}
        for file in files:
            data = self._read(file)
            if file.path != "vm.json":
                native[file.path.partition("/")[2]] = data
        self._native = native
        if self._vm.drives != self._session.vm.without_drives(self._request.detach).drives:
            raise NotResumable("it describes other drives")

    def _read(self, file: StoredFile) -> bytes:
        key = self._identity.key(file.path)
        try:
            verify_file(self._job, self._store, self._identity.key, file)
            data = self._store.get(key)
            if file.path == "vm.json":
                self._vm = VmSpec.from_dict(Fields.parse(data, self._store.object_url(key)).all())
        except VmferryError as error:
            if error.kind not in OF_WHAT_IS_THERE:
                raise
            raise NotResumable(f"a small file of it is damaged or gone: {error.message.rstrip('.')}") from error
        return data

    def _put(self, path: str, data: bytes) -> StoredFile:
        self._store.put(self._identity.key(path), data)
        return StoredFile(path, len(data), sha256(data).hexdigest())

    def _manifest(self, choice: Choice, written: Sequence[WrittenDisk], state: AttemptState) -> Manifest:
        now, session, identity = time.time(), self._session, self._identity
        parent = choice.base.parent.manifest if choice.base is not None else None
        return Manifest(
            export_id=identity.export_id,
            chain_id=self._chain_id(choice.base),
            job_id=self._job.id,
            machine=_machine(self._vm),
            taken_at=state.taken_at,
            created_at=now,
            consistency=state.consistency,
            format=self._request.format,
            compression=self._request.compression,
            encryption=self._keys.encryption if self._keys is not None else None,
            keys=self._keys,
            disks=tuple(disk.record for disk in written),
            files=self._files(state),
            mode="full" if parent is None else "incremental",
            parent="" if parent is None else parent.export_id,
            change_token=session.token,
            snapshot=session.snapshot,
            name=self._request.name,
            tags=self._request.tags,
            purpose=self._request.purpose,
            all_disks=len(session.disks) == len(session.vm.disks),
            verified=self._request.verify,
            warnings=tuple(self._job.warnings),
            version=VERSION,
            statistics={
                "reason": choice.reason,
                "fell_back": choice.fell_back,
                "duration": round(now - identity.started, 3),
                "retries": self._job.progress.retries,
                "disks": {disk.record.id: disk.statistics for disk in written},
                **({"resumed": _resumed(written)} if identity.resumed is not None else {}),
            },
        )


def _resumed(written: Sequence[WrittenDisk]) -> dict[str, int]:
    return {
        "bytes_kept": sum(disk.bytes_kept for disk in written),
        "bytes_sent": sum(disk.bytes_sent for disk in written),
    }


def _machine(vm: VmSpec) -> Machine:
    nics = tuple({"id": nic.id, "mac": nic.mac, "network": nic.network} for nic in vm.nics)
    return Machine(vm.provider, vm.id, vm.name, vm.cpu, vm.memory_mb, vm.firmware, vm.secure_boot, vm.guest_os, nics)
