# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One disk of a point in time, as an image and its digests in the attempt's folder."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Mapping

from ..._blocks import Codec, ImageOutput, ImageWriter, PartWriter
from ..._errors import VmferryError
from ..._exports.encryption import ChainKeys, DiskKeys, is_nonce, new_nonce
from ..._exports.manifest import DiskRecord, StoredFile
from ..._exports.naming import attempt_of
from ..._exports.packed import format_of_disk
from ..._exports.proven import ProvenPart
from ..._providers.base import ExportDisk
from ..._stores.base import Store
from ..._transfer import pipeline
from ..._transfer.digest_file import digest_file_bound
from ..._transfer.digests import DigestWriter, LeafHash, plain_hash
from ..._transfer.failpoints import failpoint
from ..._transfer.journal import KnownDisk
from ..._transfer.limits import Limits
from ..._transfer.object_stream import SequentialObject
from ..._transfer.open_parts import object_proof_root
from ..._transfer.progress import DiskProgress
from ..._transfer.spot_check import SpotCheck
from ..._transfer.windows import ExtentMap
from ..attempts.attempt_journal import AttemptJournal
from ..jobs.keeping import TakenOver
from ..jobs.requests import ExportRequest
from ..jobs.running_job import RunningJob
from ..stored.image_formats import image_codec, image_file, image_writer, streamed_image
from ..stored.readable_chain import insist_on
from ..stored.stored_disk import MergedLeaves, proved_leaves
from .export_base import Base, UnfitParent

_NONCE = " nonce="  # in what a journal is bound to


@dataclass(frozen=True)
class WrittenDisk:
    """`changed`: whether anything differs from the parent; always, without one."""

    record: DiskRecord
    statistics: dict[str, Any]
    changed: bool = True
    bytes_kept: int = 0  # of the object, that an earlier run had sent
    bytes_sent: int = 0
    keys: DiskKeys | None = None  # of an encrypted one


def export_disk(
    job: RunningJob,
    store: Store,
    key: Callable[[str], str],
    disk: ExportDisk,
    request: ExportRequest,
    export_id: str,
    progress: DiskProgress,
    base: Base | None = None,
    journal: AttemptJournal | None = None,
    resumed: bool = False,
    chain_keys: ChainKeys | None = None,
    mark: str = "",
    limits: Limits | None = None,
) -> WrittenDisk:
    """The objects are complete, and nothing commits to them yet. Raising leaves neither. `mark`: of the attempt.

    With `base` an increment; raises `UnfitParent` where it turns out that it must not be one. `resumed`: of what a dead
    run left of this disk, all is used that is in `journal` and in the store. `limits`: the job's, but where other disks
    have some of them.
    """
    started, rules, size, format = time.monotonic(), job.capabilities, disk.source.size, _format(request, disk)
    file, digest_file = image_file(format, disk.spec.id), f"{disk.spec.id}.digests"
    metadata = {"vmferry-export": export_id}
    codec = image_codec(format, request.compression, request.compression_level)
    limits = limits or job.limits
    limits = limits if codec is None or job.options.parallel else limits.for_compression()
    source = disk.changes if base is not None and disk.changes is not None else disk.source
    known = journal.known_disk(disk.spec.id) if resumed and journal is not None else None
    keys = _keys(chain_keys, export_id, disk.spec.id, known)
    leaf_hash = keys.leaf_hash if keys is not None else plain_hash  # of the chain, whatever the nonce
    parent = _Parent(store, disk, base, request.spot_check, export_id, leaf_hash) if base is not None else None
    backing = parent.image if parent is not None else ""
    stands_on = f"{backing} {parent.digest_root if parent is not None else ''}"
    bound_to = f"{export_id} {disk.spec.id} {format} {request.compression} {stands_on}"
    binding, identity = _binding(bound_to, chain_keys, keys), f"{mark} {export_id} {disk.spec.id}".lstrip()
    image = None
    if resumed and journal is not None:
        known, image = _left(job, store, key(file), known, binding, size, limits, metadata)
        store.abort_uploads(key(digest_file))
        if known is None:  # another image is begun than the one that had this nonce
            keys = _keys(chain_keys, export_id, disk.spec.id, None)
            binding = _binding(bound_to, chain_keys, keys)
    extents = known.extents if known is not None else pipeline.read_extents(source, job.flow)
    with ExitStack() as on_error:
        target = _opened(
            job, store, key(file), extents, request, format, backing, codec, metadata, image, keys, identity
        )
        image = target.parts
        on_error.push(_Left(job, store.object_url(key(file)), image))
        stream = SequentialObject(
            store.open_parts(key(digest_file), metadata=metadata), digest_file_bound(size, size), rules
        )
        on_error.callback(undo, job, store.object_url(key(digest_file)), stream.abort)
        with job.flow.on_stop(target.interrupt):
            written = pipeline.export_disk(
                source,
                target.make,
                image,
                DigestWriter(size, stream.write, parent.leaves() if parent is not None else None, leaf_hash),
                limits=limits,
                rules=rules,
                flow=job.flow,
                progress=progress,
                extents=extents,
                journal=journal.of_disk(disk.spec.id, binding, image.token) if journal and target.resumes else None,
                known=known,
            )
        if parent is not None:
            parent.check(job, extents)
        failpoint("data-sent")
        with progress.rest():
            image.complete(written.receipts, written.size)
            stream.finish()
        on_error.pop_all()
    failpoint("objects-complete")
    record = DiskRecord(
        id=disk.spec.id,
        name=disk.spec.name,
        size=size,
        boot=disk.spec.boot,
        file=file,
        format=format,
        bytes_stored=written.size,
        bytes_read=written.bytes_read,
        bytes_changed=size - (written.bytes_zero if base is None else written.bytes_unchanged),
        digest_root=written.digest_root,
        digests=StoredFile(digest_file, stream.size, stream.sha256),
        parts=tuple(ProvenPart(receipt.part.size, receipt.proof.hex()) for receipt in written.receipts),
        proof_root=object_proof_root(written.receipts),
        parent_root=parent.digest_root if parent is not None else "",
        key_nonce=keys.nonce if keys is not None else "",
    )
    statistics: dict[str, Any] = {"duration": round(time.monotonic() - started, 3), "bytes_read": written.bytes_read}
    statistics["sent_as"] = target.sent_as
    if disk.method:
        statistics["read_by"] = disk.method
    if parent is not None:
        statistics["spot_checked"] = parent.bytes_checked
    changed = base is None or written.bytes_unchanged < size
    return WrittenDisk(record, statistics, changed, written.bytes_kept, written.bytes_stored, keys)


def _format(request: ExportRequest, disk: ExportDisk) -> str:
    return format_of_disk(request.format, disk.spec.format)


def _keys(chain: ChainKeys | None, export_id: str, disk_id: str, known: KnownDisk | None) -> DiskKeys | None:
    """Those of the image that a dead run began, as far as its journal tells; a nonce is no secret."""
    if chain is None:
        return None
    told = known.header.binding.rpartition(_NONCE)[2] if known is not None else ""
    return chain.of_disk(export_id, disk_id, told if is_nonce(told) else new_nonce())


def _binding(image: str, chain: ChainKeys | None, keys: DiskKeys | None) -> str:
    if chain is None or keys is None:
        return image
    return f"{image} {chain.encryption.public_key}{_NONCE}{keys.nonce}"


def _left(
    job: RunningJob,
    store: Store,
    key: str,
    known: KnownDisk | None,
    binding: str,
    size: int,
    limits: Limits,
    metadata: Mapping[str, str],
) -> tuple[KnownDisk, PartWriter] | tuple[None, None]:
    """What a dead run knew of this disk, and its object, where both are there; else neither is."""
    if known is not None and known.fits(binding, size, limits):
        parts = store.resume_parts(key, known.header.token, known.end, metadata=metadata)
        if parts is not None:
            return known, parts
    store.abort_uploads(key)
    return None, None


@dataclass(frozen=True)
class _Target:
    """Where an image goes, and how it is laid out there."""

    parts: PartWriter
    make: Callable[[ImageOutput, int], ImageWriter]
    sent_as: str
    resumes: bool = True
    interrupt: Callable[[], object] = lambda: None


def _opened(
    job: RunningJob,
    store: Store,
    key: str,
    extents: ExtentMap,
    request: ExportRequest,
    format: str,
    backing: str,
    codec: Codec | None,
    metadata: Mapping[str, str],
    left: PartWriter | None,
    keys: DiskKeys | None,
    identity: str,
) -> _Target:
    """`left`: what a dead run began, and is gone on with.

    A store that moves the bytes of parts more than once is sent one stream, unless the next run is to go on with it, or
    nobody knows before how long the image gets.
    """
    size, joins = extents.size, job.capabilities.joins_parts
    if joins and left is None and not backing and codec is None and keys is None and not request.keeps:
        planned = streamed_image(format, size, extents, identity)
        stream = store.open_stream(key, planned.size, metadata=metadata) if planned is not None else None
        if planned is not None and stream is not None:
            return _Target(stream, lambda output, bound: planned.writer(output), "stream", False, stream.interrupt)
    return _Target(
        left or store.open_parts(key, metadata=metadata),
        lambda output, bound: image_writer(format, size, output, extents, bound, backing, codec, keys, identity),
        "joined_parts" if joins else "parts",
    )


class _Parent:
    """The disk that an increment stands on."""

    def __init__(
        self, store: Store, disk: ExportDisk, base: Base, samples: int, export_id: str, leaf_hash: LeafHash
    ) -> None:
        self._store, self._disk, self._layers = store, disk, base.layers(disk.spec.id)
        self._chain = base.chain
        record, entry = self._layers[-1].record, base.parent
        self.digest_root = record.digest_root
        self.image = f"../{entry.manifest.export_id}/{record.file}"  # as tools find it, wherever both are copied to
        self._damage = ""
        shift = int(attempt_of(export_id), 16) / (1 << 32)  # of attempts no two of which are alike, changes or none
        self._spot_check = None
        if disk.changes is not None:
            self._spot_check = SpotCheck(record.size, samples, shift, leaf_hash, disk.block)

    @property
    def bytes_checked(self) -> int:
        return self._spot_check.bytes_read if self._spot_check is not None else 0

    def leaves(self) -> MergedLeaves:
        """Read by the workers, whose errors end the job: what makes an increment impossible is kept for `check`."""
        try:
            found = proved_leaves(self._store, self._layers)
            yield from found if self._spot_check is None else self._spot_check.watching(found)
        except VmferryError as error:
            if error.kind not in ("checksum_mismatch", "not_found"):
                raise
            self._damage = error.message

    def check(self, job: RunningJob, extents: ExtentMap) -> None:
        """What is scanned needs no sample: all of it was read."""
        if self._damage:
            insist_on(self._store, self._chain)
            raise UnfitParent(self._damage)
        if self._spot_check is None:
            return
        with job.flow.on_stop(self._disk.source.close):
            wrong = self._spot_check.compare(self._disk.source, extents)
        if wrong is not None:
            raise UnfitParent(
                f"bytes {wrong.start} to {wrong.end} of {self._disk.spec.id} changed, and its change tracking "
                "did not say so"
            )


class _Left:
    """The image of an export that failed: gone, or left for the next run, or for one that goes on with it already."""

    def __init__(self, job: RunningJob, what: str, parts: PartWriter) -> None:
        self._job, self._what, self._parts = job, what, parts

    def __enter__(self) -> _Left:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stays = self._job.keeps(error) or isinstance(self._job.flow.error or error, TakenOver)
        with self._job.undoing(self._what):
            self._parts.leave() if stays else self._parts.abort()


def undo(job: RunningJob, what: str, how: Callable[[], object]) -> None:
    with job.undoing(what):
        how()
