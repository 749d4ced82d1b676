# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Committed exports copied to further stores: every byte compared with its digest on the way, each manifest last."""

from __future__ import annotations

import time
from contextlib import closing
from hashlib import sha256
from typing import Any, Iterator, Sequence

from ..._blocks import LEAF
from ..._errors import VmferryError
from ..._exports.catalog import Catalog, CatalogEntry
from ..._exports.intent import INTENT, Intent, read_intent
from ..._exports.locations import with_locations
from ..._exports.manifest import MANIFEST, MANIFEST_LIMIT, Manifest, StoredFile, read_manifest
from ..._exports.proven import ProvenObject
from ..._stores.base import Store
from ..attempts.attempt import AttemptFolder
from ..attempts.attempt_life import in_use, is_dead
from ..attempts.dead_attempts import remove_dead_attempt
from ..attempts.litter import probe_key
from ..jobs.requests import StoreSpec
from ..jobs.running_job import RunningJob
from ..jobs.store_access import keeps_files, takes_any_offset
from ..objects.byte_sources import StoredObject
from ..objects.move_object import ObjectMove, Target, Wanted
from ..stored.locked_exports import lock_export, lock_manifest
from ..stored.readable_chain import OF_WHAT_IS_THERE, held_still, insist_on, manifest_text, readable_chain, settled
from .owed_copies import OwedCopies


class ExportCopies:
    """Of one export, and of what it stands on as far as that is not there yet."""

    def __init__(self, job: RunningJob, store: Store, entry: CatalogEntry) -> None:
        self._job, self._store, self._entry = job, store, entry
        self._sent = 0

    def copy_to(self, spec: StoreSpec) -> dict[str, Any]:
        """What the result tells of this copy. Raises `VmferryError`; then nothing of what was not committed is left."""
        started, self._sent = time.monotonic(), 0
        chain = self._chain()
        with closing(self._job.open_store(spec)) as target:
            self._job.capabilities = target.probe(probe_key())
            self._job.phase("transferring")
            missing = _missing(target, chain)
            owed = OwedCopies(self._store, spec.url)
            if missing:
                owed.note(self._entry)  # whatever becomes of this process
            with held_still(self._job, self._store, chain):
                for entry in missing:
                    self._copy(entry, chain, target, spec)
            with self._job.undoing(f"That the export is not in {spec.url} yet"):
                for entry in missing or [self._entry]:
                    owed.forget(entry)
            return {
                "url": target.object_url(self._entry.folder),
                "holds": True,
                "changed": bool(missing),
                "exports": [entry.manifest.export_id for entry in missing],
                "bytes_sent": self._sent,
                "duration": round(time.monotonic() - started, 3),
                "msg": "",
            }

    def missing_in(self, target: Store) -> list[CatalogEntry]:
        return _missing(target, self._chain())

    def _chain(self) -> tuple[CatalogEntry, ...]:
        return settled(
            readable_chain(self._store, self._entry, Catalog(self._store, self._entry.trust).beside(self._entry))
        )

    def _copy(self, entry: CatalogEntry, chain: Sequence[CatalogEntry], target: Store, spec: StoreSpec) -> None:
        _undo_the_dead(self._job, target, entry)
        manifest = entry.manifest
        with AttemptFolder(target, entry.folder, self._intent(manifest), self._job) as claimed:
            work = list(_objects(manifest))
            self._job.phase("transferring", [(path, size) for path, size, _unused in work])
            for number, (path, size, proof) in enumerate(work):
                key = entry.key(path)
                to = Target(target, key, keeps_files(spec), takes_any_offset(spec))
                if isinstance(proof, str):
                    self._move(key, size, to, Wanted(read_back=True, checksum=proof), number)
                    continue
                parts = _Parts(proof, self._store.object_url(key))
                self._move(key, size, to, Wanted(read_back=True, seen=parts.see), number)
                parts.end()
            insist_on(self._store, [entry])  # or what was copied is no longer the export
            text = manifest_text(self._store, entry)
            self._job.progress.enter("finishing")
            lock_export(target, entry)
            self._insist_on_parent(entry, chain, target)
            claimed.commit(with_locations(text, lambda file: target.location(entry.key(file))))
            lock_manifest(target, entry, self._job.warn)

    def _insist_on_parent(self, entry: CatalogEntry, chain: Sequence[CatalogEntry], target: Store) -> None:
        """Since the intent names it, no cleanup removes it any more; one that had begun before may have."""
        parent = next((one for one in chain if one.manifest.export_id == entry.manifest.parent), None)
        if parent is not None and not _is_whole_there(target, parent):
            raise VmferryError(
                "conflict",
                f"{target.object_url(parent.folder)} was removed while what stands on it was copied.",
                "Run the task again: it copies both.",
                retryable=True,
            )

    def _intent(self, manifest: Manifest) -> Intent:
        now = time.time()
        machine = manifest.machine
        intent = Intent(
            export_id=manifest.export_id,
            job_id=self._job.id,
            vm_id=machine.id,
            vm_name=machine.name,
            started_at=now,
            lease_until=now,
            owner=self._job.owner,
            parent=manifest.parent,
        )
        return intent.renewed(now, {})

    def _move(self, key: str, size: int, target: Target, wanted: Wanted, number: int) -> None:
        info = self._store.stat(key)
        if info is None or info.size != size:
            found = "is missing" if info is None else f"has {info.size} bytes"
            raise _damaged(self._store.object_url(key), f"{found}; {size} bytes were sent")
        sent = ObjectMove(self._job, StoredObject(self._store, info), target, wanted).run(
            self._job.progress.disk(number)
        )
        self._sent += sent.bytes_sent if sent is not None else 0


def _objects(manifest: Manifest) -> Iterator[tuple[str, int, str | ProvenObject]]:
    """Path, size, and what proves it: its SHA-256, or the proofs of its parts."""
    files: list[StoredFile] = [*(disk.digests for disk in manifest.disks), *manifest.files]
    for _disk, one in manifest.objects:
        yield one.file, one.size, one
    for file in files:
        yield file.path, file.size, file.sha256


class _Parts:
    """The proofs of an image's parts, which are of whole blocks, compared as its blocks go by in order."""

    def __init__(self, one: ProvenObject, url: str) -> None:
        self._parts, self._url = iter(one.parts), url
        self._proof, self._left, self._wanted = sha256(), 0, ""

    def see(self, offset: int, digests: Sequence[bytes]) -> None:
        for number, digest in enumerate(digests):
            if self._left <= 0:
                part = next(self._parts, None)
                self._proof, self._left = sha256(), part.size if part is not None else 0
                self._wanted = part.sha256 if part is not None else ""
            self._proof.update(digest)
            self._left -= LEAF
            if self._left <= 0 and self._proof.hexdigest() != self._wanted:
                at = offset + number * LEAF
                raise _damaged(self._url, f"differs from what was sent in the part that ends at {at}")

    def end(self) -> None:
        if self._left > 0 or next(self._parts, None) is not None:
            raise _damaged(self._url, "has fewer parts than were sent")


def _damaged(what: str, how: str) -> VmferryError:
    return VmferryError(
        "checksum_mismatch",
        f"{what} {how}. It was not copied.",
        "Run export_verify on the export, and vm_export with mode: full.",
    )


def _missing(target: Store, chain: Sequence[CatalogEntry]) -> list[CatalogEntry]:
    """The oldest first. What an export there stands on is not asked for: a merge there may have put it into that."""
    found: list[CatalogEntry] = []
    for entry in reversed(chain):
        if _is_whole_there(target, entry):
            break
        if not _is_there(target, entry):
            found.append(entry)
    return found[::-1]


def _is_whole_there(target: Store, entry: CatalogEntry) -> bool:
    """With all that it stands on there."""
    if not _is_there(target, entry):
        return False
    catalog = Catalog(target, entry.trust)
    try:
        there = catalog.find(entry.manifest.export_id)
        readable_chain(target, there, catalog.beside(there))
    except VmferryError as error:
        if error.kind not in (*OF_WHAT_IS_THERE, "conflict"):  # a layer that is another
            raise
        return False
    return True


def _is_there(target: Store, entry: CatalogEntry) -> bool:
    """By what it holds of the guest, whichever of its parents a merge has put into either of the two."""
    key = entry.key(MANIFEST)
    text = target.read_whole(key, MANIFEST_LIMIT)
    if text is None:
        return False
    found = read_manifest(text, target.object_url(key), entry.trust)
    if [disk.digest_root for disk in found.disks] != [disk.digest_root for disk in entry.manifest.disks]:
        raise VmferryError(
            "conflict",
            f"{target.object_url(entry.folder)} is there, and is another export than the one of its id here.",
            "Copy to another store, or remove it with export_cleanup.",
        )
    return True


def _undo_the_dead(job: RunningJob, target: Store, entry: CatalogEntry) -> None:
    """What a copy left that was killed. Raises `busy` where another one copies it now."""
    key = entry.key(INTENT)
    text = target.read_whole(key, MANIFEST_LIMIT)
    if text is None:
        return
    intent = read_intent(text, target.object_url(key))
    if not is_dead(intent):
        raise in_use(target, intent)
    remove_dead_attempt(target, entry.folder, job.capabilities, job.warn)
