# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Merges exports into the one that stands on them, so that it needs them no more. Its guest data never changes.

1. `folding.json` claims it. Then it is looked whether anybody is at work on it: each writes before it looks.
2. The new images are sent, as parts that are no objects yet, and every leaf read for them is proved by its digest.
   Their digest files are objects of new names.
3. `folding.json` gets the manifest that will be there. From here on, a run that finds it goes on forwards as soon as
   one image was replaced.
4. Each image is replaced, in one step. The old one and the new one read the same, as long as the parents are there.
5. What was written is verified, and the manifest is replaced if nobody changed it.
6. What only the old manifest named is deleted, then `folding.json`. An increment that began meanwhile may still be
   reading it: then both stay, for the next cleanup.

The parents are ordinary exports that nothing stands on then, and are deleted as such by whoever wants them gone.
"""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Callable, Iterator, Mapping, Sequence

from ..._errors import VmferryError
from ..._exports.catalog import Catalog, CatalogEntry
from ..._exports.deletion import DELETION
from ..._exports.folding import DIGESTS, FOLDING, backing_of, manifest_to_be
from ..._exports.manifest import MANIFEST, MANIFEST_LIMIT, DiskRecord, Manifest, read_manifest
from ..._exports.marks import read_pin
from ..._exports.naming import iso_time
from ..._exports.seals import UNCHECKED, IfSigned, Seals
from ..._exports.signing import Trust
from ..._exports.verifications import VERIFIED
from ..._stores.base import Store, StoreCapabilities
from ..._stores.open import store_kind
from ..._transfer.failpoints import failpoint
from ..._transfer.limits import Limits
from ..._transfer.progress import DiskProgress
from ..jobs.requests import TransferOptions
from ..jobs.running_job import RunningJob
from ..stored.readable_chain import readable_chain, replaced_disks
from ..stored.stored_bytes import stored_bytes
from ..stored.stored_disk import StoredDisk, insist_on_keys, layers_of
from ..stored.stored_proof import verify_disk
from .fold_claim import FoldClaim, new_folding
from .fold_disk import FoldedDisk, Layers, fold_disk
from .orphans import Orphan
from .vm_folder import VmFolder


@dataclass(frozen=True)
class Merged:
    """`stays`: why nothing was merged, a sentence; or the parents must stay for now, where `done`. Sizes in bytes."""

    stays: str = ""
    done: bool = False
    bytes_read: int = 0
    bytes_written: int = 0
    grown: int = 0  # of the export


class Merger:
    def __init__(
        self,
        store: Store,
        capabilities: StoreCapabilities,
        family: VmFolder,
        warn: Callable[[str], object],
        seals: Seals = UNCHECKED,
    ) -> None:
        self._store, self._capabilities, self._family, self._warn = store, capabilities, family, warn
        self._seals, self._if_signed = seals, IfSigned(seals.strict(), seals)

    def merge(self, into: CatalogEntry, merged: Sequence[CatalogEntry]) -> Merged:
        """`merged`: oldest first, each the parent of the next, the last one that of `into`. Raises `unsupported`."""
        self.insist_on_store(into)
        self.insist_on_seals(into, merged)
        folder, job = into.folder, self._new_job()
        names = tuple(entry.manifest.export_id for entry in merged)
        claim = FoldClaim.take(job, self._store, folder, new_folding(into, names))
        with _left(claim):
            failpoint("fold_claimed")
            self._family.look_again()
            stays = self._who_objects(into, merged) or self._family.who_builds_on([into.manifest.export_id, *names])
            if stays:
                claim.remove()
                return Merged(stays)
            return self._go_forward(job, claim, into, {})

    def dead_merge(self, folder: str) -> Orphan:
        reason = "A run that was merging exports into it died."
        return Orphan("merge", self._store.object_url(folder), reason, lambda: self.resume(folder))

    def resume(self, folder: str) -> str | bool:
        """What became of a merge whose run died; False where nothing did. Raises `busy` where that lives after all."""
        job = self._new_job()
        claim = FoldClaim.take_over(job, self._store, folder)
        if claim is None:
            return False
        with _left(claim):
            text, key = claim.folding.manifest, f"{folder}/{MANIFEST}"
            self._store.abort_uploads(f"{folder}/")  # or one might still become an object
            if self._store.stat(key) is None:
                claim.remove()
                return "What was to take it over was deleted."
            found = self._store.get(key, MANIFEST_LIMIT)
            entry = CatalogEntry(folder, read_manifest(found, self._store.object_url(key), self._if_signed))
            if found == text:
                return not self._finish(claim, entry) and "It was merged."
            done = self._replaced(claim, entry)
            if done:
                self.insist_on_seals(entry, ())
                self._go_forward(job, claim, entry, done)
                return "It was merged halfway, and is merged now."
            self._tidy(claim, entry)
            return "It had replaced nothing."

    def _replaced(self, claim: FoldClaim, entry: CatalogEntry) -> dict[str, DiskRecord]:
        where = self._store.object_url(entry.key(FOLDING))
        will_be = manifest_to_be(claim.folding, entry.manifest, where, self._trust_in(entry.manifest))
        replaced = replaced_disks(self._store, entry, will_be) if will_be is not None else ()
        return {disk.id: disk for disk in will_be.disks if disk.id in replaced} if will_be is not None else {}

    def insist_on_store(self, into: CatalogEntry) -> None:
        """Raises `unsupported` where an image cannot be replaced such that nobody loses by it."""
        rules = self._capabilities
        where = self._store.object_url(into.folder)
        if not (rules.conditional_put and rules.conditional_replace):
            raise VmferryError(
                "unsupported",
                f"Nothing can be merged into {where}: its store does not write on conditions.",
                "Use merge: false there. What stands on an export keeps it then.",
            )
        for disk in into.manifest.disks:
            info = self._store.stat(into.key(disk.file))
            if info is not None and info.locked:
                raise VmferryError(
                    "unsupported",
                    f"Nothing can be merged into {where}: {disk.file} is locked against being replaced.",
                    "Wait until its object lock is over, or use merge: false.",
                )

    def insist_on_seals(self, into: CatalogEntry, merged: Sequence[CatalogEntry]) -> None:
        """Raises `Locked` for want of a passphrase, `invalid_config` where what is signed would not be any more, and
        `Untrusted` where a signature would be put on what had none that is trusted."""
        if into.manifest.encryption is not None:
            made, _etag = self._manifest(into.folder, self._if_signed)
            insist_on_keys(self._store, [replace(into, manifest=made)])
        self._seals.insist_on_signing(into.manifest.signatures, self._store.object_url(into.folder))
        for entry in [*merged, into] if into.manifest.signatures else ():
            self._manifest(entry.folder, self._trust_in_layers_of(into.manifest))

    def _trust_in(self, made: Manifest) -> Seals:
        """A merge signs what was signed, and no more."""
        return self._seals.strict() if made.signatures else self._seals

    def _trust_in_layers_of(self, made: Manifest) -> Seals:
        """Nothing plain gets into an export that is encrypted."""
        trust = self._trust_in(made)
        if made.encryption is None or trust.keyring is None:
            return trust
        return replace(trust, keyring=replace(trust.keyring, strict=True))

    def _who_objects(self, into: CatalogEntry, merged: Sequence[CatalogEntry]) -> str:
        """Whatever is not as it was when it was decided."""
        for folder in self._family.foldings():
            if folder != into.folder:
                return f"Another cleanup is merging exports into {_id(folder)}."
        for entry in [*merged, into]:
            if self._store.stat(entry.key(DELETION)) is not None:
                return f"Another run is deleting {entry.manifest.export_id}."
            if self._manifest(entry.folder)[0] != entry.manifest:
                return f"{entry.manifest.export_id} was changed meanwhile."
        for entry in merged:
            if read_pin(self._store, entry) is not None:
                return f"{entry.manifest.export_id} was pinned meanwhile."
        return ""

    def _go_forward(
        self, job: RunningJob, claim: FoldClaim, entry: CatalogEntry, done: Mapping[str, DiskRecord]
    ) -> Merged:
        """`done`: the records of disks whose images an earlier run replaced."""
        made, etag = self._manifest(entry.folder, self._if_signed)
        trust = self._trust_in_layers_of(made)
        entry = replace(entry, manifest=made, trust=trust)
        chain = readable_chain(self._store, entry, Catalog(self._store, trust).beside(entry))
        below = chain[: len(chain) - 1 - len(claim.folding.merged)]
        parent = below[-1].manifest.export_id if below else ""
        will_be = replace(made, mode="incremental" if parent else "full", parent=parent, verified="stored")
        disks: list[FoldedDisk] = []
        try:
            for disk in made.disks:
                if disk.id not in done:
                    layers = self._layers(chain, disk.id, len(below))
                    backing, fold_id = backing_of(will_be, disk), claim.folding.fold_id
                    disks.append(
                        fold_disk(
                            job, self._store, layers, backing, fold_id, made.export_id, made.compression, made.keys
                        )
                    )
            will_be = _with_disks(will_be, claim, [*done.values(), *(disk.record for disk in disks)])
            text = will_be.to_json(lambda file: self._store.location(entry.key(file)))
            text = self._seals.seal(text) if made.signatures else text
            read_manifest(text, self._store.object_url(entry.folder), trust)  # what nobody can read is no export
            claim.note(text)
        except BaseException:
            self._abort(job, disks)
            if not done:
                with job.undoing(f"What was written beside {self._store.object_url(entry.folder)}"):
                    self._tidy(claim, entry)
            for warning in job.warnings:
                self._warn(warning)
            raise
        failpoint("fold_recorded")
        self._replace(job, claim, disks)
        for disk in will_be.disks:
            proved = [*layers_of(below, disk.id), StoredDisk(disk, entry.key)]
            verify_disk(job, self._store, proved, "stored", DiskProgress())
        failpoint("fold_verified")
        claim.insist()
        self._swap(entry.folder, made, etag, text)
        failpoint("fold_swapped")
        self._family.note(entry.folder, parent)
        return Merged(
            self._finish(claim, CatalogEntry(entry.folder, will_be)),
            done=True,
            bytes_read=sum(disk.bytes_read for disk in disks),
            bytes_written=sum(disk.record.bytes_stored for disk in disks),
            grown=stored_bytes(will_be) - stored_bytes(made),
        )

    def _swap(self, folder: str, made: Manifest, etag: str, text: bytes) -> None:
        """A verification that looked for our claim just before there was one may have filled in checksums since."""
        try:
            self._store.put(f"{folder}/{MANIFEST}", text, if_match=etag)
        except VmferryError as error:
            found, etag = self._manifest(folder)
            if error.kind != "conflict" or found != made:
                raise
            self._store.put(f"{folder}/{MANIFEST}", text, if_match=etag)

    def _layers(self, chain: Sequence[CatalogEntry], disk: str, below: int) -> Layers:
        found = layers_of(chain, disk)
        if len(found) != len(chain):
            raise VmferryError(
                "conflict",
                f"What {chain[-1].manifest.export_id} stands on is being merged itself.",
                "Run the cleanup again.",
                retryable=True,
            )
        layers = Layers(found[:below], found[below:])
        self._insist_on_room(layers)
        return layers

    def _replace(self, job: RunningJob, claim: FoldClaim, disks: Sequence[FoldedDisk]) -> None:
        for number, disk in enumerate(disks):
            try:
                claim.insist()
            except VmferryError:
                self._abort(job, disks[number:])
                raise
            try:
                disk.complete()
            except VmferryError:  # whether it took effect is for the next run to find out
                self._abort(job, disks[number + 1 :])
                raise
            failpoint("fold_replaced")

    def _abort(self, job: RunningJob, disks: Sequence[FoldedDisk]) -> None:
        for disk in disks:
            with job.undoing(f"The unfinished {disk.record.file}"):
                disk.image.abort()

    def _finish(self, claim: FoldClaim, entry: CatalogEntry) -> str:
        """A sentence where somebody may still read what is to be deleted, so that it stays for now."""
        self._family.look_again()
        stays = self._family.who_builds_on([entry.manifest.export_id, *claim.folding.merged])
        if stays:
            claim.let_go()
            return stays
        self._store.delete(entry.key(VERIFIED))  # it is about what lay here before
        self._tidy(claim, entry)
        return ""

    def _tidy(self, claim: FoldClaim, entry: CatalogEntry) -> None:
        """Removes the digest files that the manifest does not name, and the claim."""
        claim.insist()
        prefix, named = f"{entry.folder}/", {disk.digests.path for disk in entry.manifest.disks}
        for info in list(self._store.list(prefix)):
            name = info.key[len(prefix) :]
            if name.endswith(DIGESTS) and name not in named:
                self._store.delete(info.key)
        failpoint("fold_tidied")
        claim.remove()

    def _insist_on_room(self, layers: Layers) -> None:
        free, needed = self._store.free_space(), sum(layer.record.bytes_stored for layer in layers.above)
        if free is not None and free < needed:
            raise VmferryError(
                "no_space",
                f"{self._store.url} has {free} bytes free, and up to {needed} are needed to merge "
                f"{self._store.object_url(layers.key(layers.disk.file))} with what it stands on.",
                "Free some space, or use merge: false.",
            )

    def _manifest(self, folder: str, trust: Trust = UNCHECKED) -> tuple[Manifest, str]:
        """And the tag by which it is replaced only if it is still that one."""
        key = f"{folder}/{MANIFEST}"
        info = self._store.stat(key)
        text = self._store.get(key, MANIFEST_LIMIT)
        return read_manifest(text, self._store.object_url(key), trust), info.etag if info is not None else ""

    def _new_job(self) -> RunningJob:
        """Without a record: the cleanup's result tells of it."""
        job = RunningJob(secrets.token_hex(16), TransferOptions(), None, {"merging": 1.0})
        job.capabilities = self._capabilities
        job.limits = Limits.of_transfer(store_kind(self._store.url).any_offset, None)
        return job


def _with_disks(made: Manifest, claim: FoldClaim, records: Sequence[DiskRecord]) -> Manifest:
    by_id = {record.id: record for record in records}
    told = {"exports": list(claim.folding.merged), "merged_at": iso_time(time.time())}
    disks = tuple(by_id[disk.id] for disk in made.disks)
    return replace(made, disks=disks, statistics={**made.statistics, "merged": told})


@contextmanager
def _left(claim: FoldClaim) -> Iterator[None]:
    """However it ends, no claim is held on any more; what is left is the next run's to finish."""
    try:
        yield
    except BaseException:
        with suppress(VmferryError):
            claim.let_go()
        raise


def _id(folder: str) -> str:
    return folder.rpartition("/")[2]
