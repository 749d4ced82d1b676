# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A point in time as an appliance in the attempt's folder: the disks of all in one archive, or each in its file."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any, Callable, Sequence, Tuple

from ..._blocks import PartReceipt, PartWriter
from ..._exports.manifest import DiskRecord, StoredFile
from ..._exports.packed import ARCHIVES, image_format_of
from ..._exports.proven import ProvenObject, ProvenPart
from ..._providers.base import ExportDisk
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..._transfer.digest_file import digest_file_bound
from ..._transfer.digests import DigestWriter
from ..._transfer.failpoints import failpoint
from ..._transfer.object_stream import SequentialObject
from ..._transfer.open_parts import object_proof_root
from ..jobs.keeping import TakenOver
from ..jobs.requests import ExportRequest
from ..jobs.running_job import RunningJob
from ..stored.appliance_files import PART, ApplianceNames, WrittenFile, appliance_limits
from ..stored.write_appliance import ApplianceDisk, Writing, WrittenAppliance, write_ova, write_ovf
from .export_disk import WrittenDisk, undo
from .write_vma import write_vma


@dataclass(frozen=True)
class ExportedAppliance:
    """`texts`: what lies beside the disks."""

    disks: Tuple[WrittenDisk, ...]
    texts: Tuple[StoredFile, ...]


def export_appliance(
    job: RunningJob,
    store: Store,
    key: Callable[[str], str],
    vm: VmSpec,
    disks: Sequence[ExportDisk],
    request: ExportRequest,
    export_id: str,
) -> ExportedAppliance:
    """`vm`: as it is described. All objects are complete, and nothing commits to them yet."""
    return _Appliance(job, store, key, request, export_id).export(_as_read(vm, disks), disks)


class _Appliance:
    def __init__(
        self, job: RunningJob, store: Store, key: Callable[[str], str], request: ExportRequest, export_id: str
    ) -> None:
        self._job, self._store, self._key, self._request = job, store, key, request
        self._metadata = {"vmferry-export": export_id}
        self._is_archive = request.format in ARCHIVES
        self._format = image_format_of(request.format).name

    def export(self, vm: VmSpec, disks: Sequence[ExportDisk]) -> ExportedAppliance:
        started = time.monotonic()
        archive_name = ApplianceNames(vm.name).archive(self._request.format) if self._is_archive else ""
        with ExitStack() as on_error:
            digests = [self._digest_file(disk, on_error) for disk in disks]
            wanted = [
                ApplianceDisk(
                    disk.source,
                    DigestWriter(disk.source.size, digests[number].write),
                    self._job.progress.disk(number),
                    partial(self._job.progress.disk, number),
                )
                for number, disk in enumerate(disks)
            ]
            if self._is_archive:
                write = write_vma if self._request.format == "vma" else write_ova
                made = write(self._how(), self._key(archive_name), vm, wanted)
            else:
                made = write_ovf(self._how(), self._key, vm, wanted)
            failpoint("data-sent")
            for one in digests:
                one.finish()
            on_error.pop_all()
        texts = () if self._is_archive else tuple(self._put(name, text) for name, text in made.texts.items())
        failpoint("objects-complete")
        archive = self._proven(archive_name, 0, made) if self._is_archive else None
        duration = round(time.monotonic() - started, 3)
        return ExportedAppliance(
            tuple(
                self._written(disk, made.files[number], archive or self._proven(made.files[number].file, number, made),
                              digests[number], duration)
                for number, disk in enumerate(disks)
            ),
            texts,
        )  # fmt: skip

    def _how(self) -> Writing:
        request, job = self._request, self._job
        return Writing(
            self._store,
            job.capabilities,
            job.flow,
            self._format,
            request.compression_level,
            appliance_limits(job.options.parallel),
            request.part_size or PART,
            self._metadata,
            gzip=request.format == "ova_gz",
            undo=self._undo,
        )

    def _undo(self, key: str, parts: PartWriter) -> None:
        if not isinstance(self._job.flow.error, TakenOver):  # or another run has it in hand
            undo(self._job, self._store.object_url(key), parts.abort)

    def _digest_file(self, disk: ExportDisk, on_error: ExitStack) -> SequentialObject:
        key = self._key(_digest_name(disk))
        stream = SequentialObject(
            self._store.open_parts(key, metadata=self._metadata),
            digest_file_bound(disk.source.size, disk.source.size),
            self._job.capabilities,
        )
        on_error.callback(undo, self._job, self._store.object_url(key), stream.abort)
        return stream

    def _put(self, name: str, data: bytes) -> StoredFile:
        self._store.put(self._key(name), data)
        return StoredFile(name, len(data), sha256(data).hexdigest())

    def _proven(self, file: str, number: int, made: WrittenAppliance) -> ProvenObject:
        return proven(file, made.objects[number].info.size, made.objects[number].receipts)

    def _written(
        self, disk: ExportDisk, made: WrittenFile, stored: ProvenObject, digests: SequentialObject, duration: float
    ) -> WrittenDisk:
        size = disk.source.size
        record = DiskRecord(
            id=disk.spec.id,
            name=disk.spec.name,
            size=size,
            boot=disk.spec.boot,
            file=stored.file,
            format=self._format,
            bytes_stored=made.size,
            bytes_read=made.bytes_read,
            bytes_changed=size - made.bytes_zero,
            digest_root=made.digest_root,
            digests=StoredFile(_digest_name(disk), digests.size, digests.sha256),
            parts=() if self._is_archive else stored.parts,
            proof_root="" if self._is_archive else stored.proof_root,
            archive=stored if self._is_archive else None,
            offset=made.offset,
        )
        statistics: dict[str, Any] = {
            "duration": duration,
            "bytes_read": made.bytes_read,
            "sent_as": "joined_parts" if self._job.capabilities.joins_parts else "parts",
            "sha256": made.sha256,
            **({"read_by": disk.method} if disk.method else {}),
        }
        return WrittenDisk(record, statistics, bytes_sent=made.size)


def proven(file: str, size: int, receipts: Sequence[PartReceipt]) -> ProvenObject:
    parts = tuple(ProvenPart(receipt.part.size, receipt.proof.hex()) for receipt in receipts)
    return ProvenObject(file, size, parts, object_proof_root(receipts))


def _digest_name(disk: ExportDisk) -> str:
    return f"{disk.spec.id}.digests"


def _as_read(vm: VmSpec, disks: Sequence[ExportDisk]) -> VmSpec:
    """With the disks that are exported, as large as they were read."""
    return vm.with_disks(tuple(replace(disk.spec, size=disk.source.size) for disk in disks))
