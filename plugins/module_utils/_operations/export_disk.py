# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One disk of a point in time, as an image and its digests in the attempt's folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable

from .._exports.manifest import DiskRecord, ProvenPart, StoredFile
from .._providers.base import ExportDisk
from .._stores.base import Store, StoreCapabilities
from .._transfer.digests import DigestWriter
from .._transfer.export_pipeline import ExportPipeline
from .._transfer.failpoints import failpoint
from .._transfer.object_stream import ObjectStream
from .._transfer.parts import PartLimits, proof_root
from .image_formats import image_writer
from .running_job import RunningJob


@dataclass(frozen=True)
class WrittenDisk:
    record: DiskRecord
    statistics: dict[str, Any]


def export_disk(
    job: RunningJob, store: Store, key: Callable[[str], str], disk: ExportDisk, format: str, export_id: str
) -> WrittenDisk:
    """The objects are complete, and nothing commits to them yet. Raising leaves neither."""
    started = time.monotonic()
    job.progress.next_disk()
    image_file, digest_file = f"{disk.spec.id}.{format}", f"{disk.spec.id}.digests"
    metadata = {"vmferry-export": export_id}
    image = store.open_parts(key(image_file), metadata=metadata)
    try:
        stream = ObjectStream(store.open_parts(key(digest_file), metadata=metadata))
        try:
            digests = DigestWriter(disk.source.size, stream.write)
            pipeline = ExportPipeline(
                disk.source,
                lambda output, data_bound: image_writer(format, disk.source.size, output, data_bound),
                digests,
                job.limits,
                job.flow,
                job.progress,
            )
            written = pipeline.run(image, part_limits(job.capabilities), store.object_url(key(image_file)))
            failpoint("data")
            image.complete(written.receipts, written.size)
            root = digests.finish()
            stored_digests = StoredFile(digest_file, *stream.finish())
        except BaseException:
            stream.abort()
            raise
    except BaseException:
        image.abort()
        raise
    failpoint("objects")
    duration = time.monotonic() - started
    record = DiskRecord(
        id=disk.spec.id,
        name=disk.spec.name,
        size=disk.source.size,
        boot=disk.spec.boot,
        file=image_file,
        format=format,
        bytes_stored=written.size,
        bytes_read=written.bytes_read,
        bytes_changed=written.bytes_changed,
        digest_root=root,
        digests=stored_digests,
        parts=tuple(ProvenPart(receipt.part.size, receipt.proof.hex()) for receipt in written.receipts),
        proof_root=proof_root(written.receipts),
    )
    return WrittenDisk(record, {"duration": round(duration, 3), "bytes_read": written.bytes_read})


def part_limits(capabilities: StoreCapabilities | None) -> PartLimits:
    if capabilities is None:
        return PartLimits()
    return PartLimits(capabilities.max_parts, capabilities.min_part, capabilities.max_part, capabilities.max_object)
