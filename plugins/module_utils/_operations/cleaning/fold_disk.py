# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One disk of an export, with what some of the layers below it hold, as an image for the very key that it has."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Callable, Sequence, Tuple

from ..._blocks import PartReceipt, PartWriter
from ..._errors import VmferryError
from ..._exports.encryption import ChainKeys, new_nonce
from ..._exports.folding import new_digests
from ..._exports.manifest import DiskRecord, StoredFile
from ..._exports.proven import ProvenPart
from ..._stores.base import Store
from ..._transfer import pipeline
from ..._transfer.digest_file import digest_file_bound
from ..._transfer.digests import DigestWriter, plain_hash
from ..._transfer.failpoints import failpoint
from ..._transfer.object_stream import SequentialObject
from ..._transfer.open_parts import object_proof_root
from ..._transfer.progress import DiskProgress
from ..exporting.export_disk import undo
from ..jobs.running_job import RunningJob
from ..stored.image_formats import image_codec, image_writer
from ..stored.stored_disk import Blank, StoredDisk, disk_source, proved_leaves


@dataclass(frozen=True)
class FoldedDisk:
    """All of its bytes are in the store, and its digests are an object; its image is none until `complete`."""

    record: DiskRecord
    image: PartWriter
    receipts: Tuple[PartReceipt, ...]
    bytes_read: int

    def complete(self) -> None:
        """In the place of the old one, in one step. Whatever comes of it, the image must not be aborted any more."""
        self.image.complete(self.receipts, self.record.bytes_stored)


@dataclass(frozen=True)
class Layers:
    """`below` stays what the disk stands on; `above` become one layer, of which the last is the disk's own."""

    below: Sequence[StoredDisk]
    above: Sequence[StoredDisk]

    @property
    def disk(self) -> DiskRecord:
        return self.above[-1].record

    @property
    def key(self) -> Callable[[str], str]:
        return self.above[-1].key

    @property
    def all(self) -> Tuple[StoredDisk, ...]:
        return (*self.below, *self.above)


def fold_disk(
    job: RunningJob,
    store: Store,
    layers: Layers,
    backing: str,
    fold_id: str,
    export_id: str,
    compression: str,
    chain_keys: ChainKeys | None,
) -> FoldedDisk:
    """Every leaf is digested as it is read, and the disk's root must come out: raises `checksum_mismatch` otherwise.

    Raising leaves nothing of it. `backing`: as tools will find what it stands on; empty where that is nothing.
    `compression`: of the image; `chain_keys`: of an encrypted one, which gets a key that none had before.
    """
    disk, rules, key = layers.disk, job.capabilities, layers.key
    digest_file, metadata = new_digests(disk, fold_id), {"vmferry-export": export_id}
    codec = image_codec(disk.format, compression)
    keys = chain_keys.of_disk(export_id, disk.id, new_nonce()) if chain_keys is not None else None
    leaf_hash = keys.leaf_hash if keys is not None else plain_hash
    proved = proved_leaves(store, layers.below) if layers.below else None
    source = disk_source(store, layers.above, Blank(disk.size, "unchanged") if layers.below else None)
    with ExitStack() as on_error:
        on_error.callback(source.close)
        extents = pipeline.read_extents(source, job.flow)
        image = store.open_parts(key(disk.file), metadata=metadata)
        on_error.callback(undo, job, store.object_url(key(disk.file)), image.abort)
        parts = store.open_parts(key(digest_file), metadata=metadata)
        stream = SequentialObject(parts, digest_file_bound(disk.size, disk.size), rules)
        on_error.callback(undo, job, store.object_url(key(digest_file)), stream.abort)
        written = pipeline.export_disk(
            source,
            lambda output, data_bound: image_writer(
                disk.format, disk.size, output, extents, data_bound, backing, codec, keys
            ),
            image,
            DigestWriter(disk.size, stream.write, proved, leaf_hash),
            limits=job.limits,
            rules=rules,
            flow=job.flow,
            progress=DiskProgress(),
            extents=extents,
        )
        if written.digest_root != disk.digest_root:
            raise _damaged(store, layers)
        failpoint("fold_sent")
        stream.finish()
        on_error.pop_all()
    source.close()
    record = replace(
        disk,
        bytes_stored=written.size,
        bytes_changed=disk.size - (written.bytes_unchanged if layers.below else written.bytes_zero),
        digests=StoredFile(digest_file, stream.size, stream.sha256),
        parts=tuple(ProvenPart(receipt.part.size, receipt.proof.hex()) for receipt in written.receipts),
        proof_root=object_proof_root(written.receipts),
        parent_root=layers.below[-1].record.digest_root if layers.below else "",
        key_nonce=keys.nonce if keys is not None else "",
    )
    return FoldedDisk(record, image, written.receipts, written.bytes_read)


def _damaged(store: Store, layers: Layers) -> VmferryError:
    where = store.object_url(layers.key(layers.disk.file))
    return VmferryError(
        "checksum_mismatch",
        f"{where}, or an image it stands on, is damaged: what was read is not what was exported.",
        "Nothing was replaced or deleted. export_verify tells in which places it is damaged.",
    )
