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

from .._exports.manifest import DiskRecord, ProvenPart, StoredFile
from .._providers.base import ExportDisk
from .._stores.base import Store
from .._transfer import pipeline
from .._transfer.digest_file import digest_file_bound
from .._transfer.digests import DigestWriter
from .._transfer.failpoints import failpoint
from .._transfer.object_stream import SequentialObject
from .._transfer.parts import object_proof_root
from .._transfer.progress import DiskProgress
from .image_formats import image_writer
from .running_job import RunningJob


@dataclass(frozen=True)
class WrittenDisk:
    record: DiskRecord
    statistics: dict[str, Any]


def export_disk(
    job: RunningJob,
    store: Store,
    key: Callable[[str], str],
    disk: ExportDisk,
    format: str,
    export_id: str,
    progress: DiskProgress,
) -> WrittenDisk:
    """The objects are complete, and nothing commits to them yet. Raising leaves neither."""
    started, rules, size = time.monotonic(), job.capabilities, disk.source.size
    image_file, digest_file = f"{disk.spec.id}.{format}", f"{disk.spec.id}.digests"
    metadata = {"vmferry-export": export_id}
    digest_sum, digest_size = sha256(), 0
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

        written = pipeline.export_disk(
            disk.source,
            lambda output, data_bound: image_writer(format, size, output, data_bound),
            image,
            DigestWriter(size, emit),
            limits=job.limits,
            rules=rules,
            flow=job.flow,
            progress=progress,
        )
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
        bytes_changed=size - written.bytes_zero,
        digest_root=written.digest_root,
        digests=StoredFile(digest_file, digest_size, digest_sum.hexdigest()),
        parts=tuple(ProvenPart(receipt.part.size, receipt.proof.hex()) for receipt in written.receipts),
        proof_root=object_proof_root(written.receipts),
    )
    duration = round(time.monotonic() - started, 3)
    return WrittenDisk(record, {"duration": duration, "bytes_read": written.bytes_read})


def _undo(job: RunningJob, what: str, undo: Callable[[], object]) -> None:
    with job.undoing(what):
        undo()
