# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One disk of a point in time, as an image and its digests in the attempt's folder."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Callable

from .._errors import VmferryError
from .._exports.manifest import DiskRecord, ProvenPart, StoredFile
from .._providers.base import ExportDisk
from .._stores.base import Store
from .._transfer import pipeline
from .._transfer.digest_file import digest_file_bound
from .._transfer.digests import DigestWriter
from .._transfer.failpoints import failpoint
from .._transfer.flow import Flow
from .._transfer.object_stream import SequentialObject
from .._transfer.parts import object_proof_root
from .._transfer.progress import DiskProgress
from .._transfer.spot_check import SpotCheck
from .._transfer.windows import ExtentMap
from .export_base import Base, UnfitParent
from .image_formats import image_writer
from .requests import ExportRequest
from .running_job import RunningJob
from .stored_disk import MergedLeaves, proved_leaves


@dataclass(frozen=True)
class WrittenDisk:
    """`changed`: whether anything differs from the parent; always, without one."""

    record: DiskRecord
    statistics: dict[str, Any]
    changed: bool = True


def export_disk(
    job: RunningJob,
    store: Store,
    key: Callable[[str], str],
    disk: ExportDisk,
    request: ExportRequest,
    export_id: str,
    progress: DiskProgress,
    base: Base | None = None,
) -> WrittenDisk:
    """The objects are complete, and nothing commits to them yet. Raising leaves neither.

    With `base` an increment; raises `UnfitParent` where it turns out that it must not be one.
    """
    started, rules, size, format = time.monotonic(), job.capabilities, disk.source.size, request.format
    image_file, digest_file = f"{disk.spec.id}.{format}", f"{disk.spec.id}.digests"
    metadata = {"vmferry-export": export_id}
    digest_sum, digest_size = sha256(), 0
    source = disk.changes if base is not None and disk.changes is not None else disk.source
    parent = _Parent(store, disk, base, request.spot_check) if base is not None else None
    extents = pipeline.read_extents(source, job.flow)
    with ExitStack() as on_error:
        image = store.open_parts(key(image_file), metadata=metadata)
        on_error.callback(_undo, job, store.object_url(key(image_file)), image.abort)
        stream = SequentialObject(
            store.open_parts(key(digest_file), metadata=metadata), digest_file_bound(size, size), rules
        )
        on_error.callback(_undo, job, store.object_url(key(digest_file)), stream.abort)

        def emit(data: bytes) -> None:
            nonlocal digest_size
            digest_size += len(data)
            digest_sum.update(data)
            stream.write(data)

        backing = parent.image if parent is not None else ""
        written = pipeline.export_disk(
            source,
            lambda output, data_bound: image_writer(format, size, output, data_bound, backing),
            image,
            DigestWriter(size, emit, parent.leaves() if parent is not None else None),
            limits=job.limits,
            rules=rules,
            flow=job.flow,
            progress=progress,
            extents=extents,
        )
        if parent is not None:
            parent.check(job.flow, extents)
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
        file=image_file,
        format=format,
        bytes_stored=written.size,
        bytes_read=written.bytes_read,
        bytes_changed=size - (written.bytes_zero if base is None else written.bytes_unchanged),
        digest_root=written.digest_root,
        digests=StoredFile(digest_file, digest_size, digest_sum.hexdigest()),
        parts=tuple(ProvenPart(receipt.part.size, receipt.proof.hex()) for receipt in written.receipts),
        proof_root=object_proof_root(written.receipts),
        parent_root=parent.digest_root if parent is not None else "",
    )
    statistics = {"duration": round(time.monotonic() - started, 3), "bytes_read": written.bytes_read}
    if parent is not None:
        statistics["spot_checked"] = parent.bytes_checked
    return WrittenDisk(record, statistics, base is None or written.bytes_unchanged < size)


class _Parent:
    """The disk that an increment stands on."""

    def __init__(self, store: Store, disk: ExportDisk, base: Base, samples: int) -> None:
        self._store, self._disk, self._layers = store, disk, base.layers(disk.spec.id)
        record, entry = self._layers[-1].record, base.parent
        self.digest_root = record.digest_root
        self.image = f"../{entry.manifest.export_id}/{record.file}"  # as tools find it, wherever both are copied to
        self._damage = ""
        self._spot_check = SpotCheck(record.size, samples, base.increments) if disk.changes is not None else None

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

    def check(self, flow: Flow, extents: ExtentMap) -> None:
        """What is scanned needs no sample: all of it was read."""
        if self._damage:
            raise UnfitParent(self._damage)
        if self._spot_check is None:
            return
        with flow.on_stop(self._disk.source.close):
            wrong = self._spot_check.compare(self._disk.source, extents)
        if wrong is not None:
            raise UnfitParent(
                f"bytes {wrong.start} to {wrong.end} of {self._disk.spec.id} changed, and its change tracking "
                "did not say so"
            )


def _undo(job: RunningJob, what: str, undo: Callable[[], object]) -> None:
    with job.undoing(what):
        undo()
