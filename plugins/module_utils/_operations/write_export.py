# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A point in time as an export: its images, their proof, and the manifest that nothing has committed yet."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Callable, Sequence

from .._exports.manifest import Machine, Manifest, StoredFile
from .._providers.base import ExportSession
from .._providers.spec import VmSpec
from .._stores.base import Store
from .export_base import Base, Choice, UnfitParent, full_instead, resized
from .export_disk import WrittenDisk, export_disk
from .requests import ExportRequest
from .running_job import RunningJob
from .stored_disk import StoredDisk
from .stored_proof import verify_disk, verify_file

VERSION = "0.1.0"  # of the collection; a test compares it with galaxy.yml


@dataclass(frozen=True)
class Identity:
    """What is known of an export before its first byte."""

    export_id: str
    chain_id: str  # of a chain that a full export begins
    started: float
    key: Callable[[str], str]  # of a file in its folder


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

    def write(self, choice: Choice) -> Manifest | None:
        for warning in self._session.warnings:
            self._job.warn(warning)
        choice = self._settled(choice)
        try:
            written = self._images(choice.base)
        except UnfitParent as error:
            choice = self._full_instead(error.message)
            written = self._images(None)
        if choice.base is not None and self._is_needless(choice.base, written):
            return None
        self._verify(choice.base, written)
        self._job.phase("committing")
        return self._manifest(choice, written, self._files())

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

    def _images(self, base: Base | None) -> list[WrittenDisk]:
        self._job.phase("exporting", [(disk.spec.id, disk.source.size) for disk in self._session.disks])
        return [
            export_disk(
                self._job,
                self._store,
                self._identity.key,
                disk,
                self._request,
                self._identity.export_id,
                self._job.progress.disk(number),
                base,
            )
            for number, disk in enumerate(self._session.disks)
        ]

    def _verify(self, base: Base | None, written: Sequence[WrittenDisk]) -> None:
        if self._request.verify == "none":
            return
        self._job.phase("verifying", [(disk.record.id, disk.record.size) for disk in written])
        for number, disk in enumerate(written):
            below = base.layers(disk.record.id) if base is not None else ()
            layers = (*below, StoredDisk(disk.record, self._identity.key))
            verify_disk(self._job, self._store, layers, self._request.verify, self._job.progress.disk(number))

    def _is_needless(self, base: Base, written: Sequence[WrittenDisk]) -> bool:
        """Neither the disks nor the machine differ, and whoever looks for this export would find the parent."""
        request, parent = self._request, base.parent.manifest
        same_labels = not request.name and set(request.tags) <= set(parent.tags) and request.purpose == parent.purpose
        return same_labels and not any(disk.changed for disk in written) and self._is_same_machine(base)

    def _is_same_machine(self, base: Base) -> bool:
        """By the provider's own description, which does not say whether the VM runs."""
        before = {file.path: file.sha256 for file in base.parent.manifest.files if file.path.startswith("native/")}
        now = {f"native/{name}": sha256(data).hexdigest() for name, data in self._session.native.items()}
        return before == now

    def _files(self) -> list[StoredFile]:
        files = [self._put("vm.json", self._session.vm.to_json())]
        files += [self._put(f"native/{name}", data) for name, data in sorted(self._session.native.items())]
        if self._request.verify != "none":
            for file in files:
                verify_file(self._job, self._store, self._identity.key, file)
        return files

    def _put(self, path: str, data: bytes) -> StoredFile:
        self._store.put(self._identity.key(path), data)
        return StoredFile(path, len(data), sha256(data).hexdigest())

    def _manifest(self, choice: Choice, written: Sequence[WrittenDisk], files: Sequence[StoredFile]) -> Manifest:
        now, session, identity = time.time(), self._session, self._identity
        parent = choice.base.parent.manifest if choice.base is not None else None
        return Manifest(
            export_id=identity.export_id,
            chain_id=identity.chain_id if parent is None else parent.chain_id,
            job_id=self._job.id,
            machine=_machine(session.vm),
            taken_at=session.taken_at,
            created_at=now,
            consistency=session.consistency,
            format=self._request.format,
            disks=tuple(disk.record for disk in written),
            files=tuple(files),
            mode="full" if parent is None else "incremental",
            parent="" if parent is None else parent.export_id,
            change_token=session.token,
            name=self._request.name,
            tags=self._request.tags,
            purpose=self._request.purpose,
            verified=self._request.verify,
            warnings=tuple(self._job.warnings),
            version=VERSION,
            statistics={
                "reason": choice.reason,
                "fell_back": choice.fell_back,
                "duration": round(now - identity.started, 3),
                "retries": self._job.progress.retries,
                "disks": {disk.record.id: disk.statistics for disk in written},
            },
        )


def _machine(vm: VmSpec) -> Machine:
    nics = tuple({"id": nic.id, "mac": nic.mac, "network": nic.network} for nic in vm.nics)
    return Machine(vm.provider, vm.id, vm.name, vm.cpu, vm.memory_mb, vm.firmware, vm.secure_boot, vm.guest_os, nics)
