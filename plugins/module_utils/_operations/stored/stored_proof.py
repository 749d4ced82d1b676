# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof that what lies in the store is what was read: by its bytes, or by its content. What does not fit raises."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterator, Sequence

from ..._blocks import LEAF, BlockSink, BlockSource
from ..._errors import VmferryError
from ..._exports.manifest import StoredFile
from ..._exports.proven import ProvenObject
from ..._stores.base import Store
from ..._transfer.copy_blocks import copy_blocks
from ..._transfer.digest_check import DigestCheck
from ..._transfer.digest_file import CHUNK_LEAVES
from ..._transfer.progress import DiskProgress
from ..jobs.requests import Verify
from ..jobs.running_job import RunningJob
from .changed_units import ChangedUnits
from .stored_disk import Blank, Key, StoredDisk, disk_leaves, disk_source, holders
from .stored_objects import StoredParts, flaw_of_file, flaw_of_size

SAMPLED_PARTS = 8  # re-read where the store itself vouches for all of them


def verify_disk(
    job: RunningJob, store: Store, layers: Sequence[StoredDisk], how: Verify, progress: DiskProgress
) -> None:
    """Of the newest layer. `stored`: the object has its size, and its parts are what was sent: a sample of them where
    the store was seen to refuse what a checksum does not fit, and every one where it was not. `content`: every leaf of
    the disk, read through all images. The digest file is read in full either way: nothing can be imported without it.
    The parts of an archive are for `verify_archive`.
    """
    disk, key = layers[-1].record, layers[-1].key
    _refuse(store, key(disk.file), flaw_of_size(store, key(disk.file), disk.object.size))
    if how == "content":
        copy_checked(job, store, layers, None, progress)
        return
    verify_file(job, store, key, disk.digests, progress.alive)
    if disk.archive is None:
        _verify_parts(job, store, key, disk.object, progress)


def verify_archive(job: RunningJob, store: Store, key: Key, archive: ProvenObject, progress: DiskProgress) -> None:
    """As `stored` of `verify_disk`, of the object that images lie in, with all that lies around them."""
    _refuse(store, key(archive.file), flaw_of_size(store, key(archive.file), archive.size))
    _verify_parts(job, store, key, archive, progress)


def verify_file(
    job: RunningJob, store: Store, key: Key, file: StoredFile, alive: Callable[[], object] = lambda: None
) -> None:
    """A small file in the store is, byte for byte, the one the manifest names."""
    _refuse(store, key(file.path), flaw_of_file(job, store, key(file.path), file, alive))


def copy_checked(
    job: RunningJob, store: Store, layers: Sequence[StoredDisk], sink: BlockSink | None, progress: DiskProgress
) -> None:
    """The disk out of its images into `sink`, every leaf compared with its digest on the way; or only compared.

    The digests themselves are compared with the manifests first, so that damage of theirs is not taken for an image's.
    """
    _verify_digests(job, store, layers, progress)
    copy_compared(job, store, layers, sink, progress, lambda index: _refuse_leaf(store, layers, index))


def copy_compared(
    job: RunningJob,
    store: Store,
    layers: Sequence[StoredDisk],
    sink: BlockSink | None,
    progress: DiskProgress,
    damaged: Callable[[int], object] | None = None,
) -> None:
    """As `copy_checked`, of which the digest files are known to be whole. `damaged` is told every leaf that does not
    fit, and may raise; without it, the first raises. Nothing that was written may be used once it was called.
    """
    check = _check(store, layers, damaged)
    source = disk_source(store, layers)
    try:
        copy_blocks(source, sink, check, limits=job.limits, flow=job.flow, progress=progress)
    finally:
        source.close()


@contextmanager
def proved_disk(
    job: RunningJob, store: Store, layers: Sequence[StoredDisk], progress: DiskProgress
) -> Iterator[tuple[BlockSource, DigestCheck]]:
    """As `copy_checked`, for whoever copies it."""
    _verify_digests(job, store, layers, progress)
    check = _check(store, layers, lambda index: _refuse_leaf(store, layers, index))
    source = disk_source(store, layers)
    try:
        yield source, check
    finally:
        source.close()


@contextmanager
def proved_changes(
    job: RunningJob,
    store: Store,
    layers: Sequence[StoredDisk],
    newer: Sequence[StoredDisk],
    unit: int,
    progress: DiskProgress,
) -> Iterator[tuple[BlockSource, DigestCheck]]:
    """As `proved_disk`, with all `unchanged` that none of the `newer` layers has anything of, in units of so many
    bytes. What is read is compared with what the whole disk has to be there, and so is its root."""
    with proved_disk(job, store, layers, progress) as (source, check):
        changes = disk_source(store, newer, Blank(source.size, "unchanged"))
        try:
            yield ChangedUnits(source, changes, unit), check
        finally:
            changes.close()


def _verify_digests(job: RunningJob, store: Store, layers: Sequence[StoredDisk], progress: DiskProgress) -> None:
    for layer in layers:
        verify_file(job, store, layer.key, layer.record.digests, progress.alive)


def _check(store: Store, layers: Sequence[StoredDisk], damaged: Callable[[int], object] | None) -> DigestCheck:
    disk, key = layers[-1].record, layers[-1].key
    where = store.object_url(key(disk.file))
    return DigestCheck(disk.size, disk_leaves(store, layers), disk.digest_root, where, damaged, layers[-1].leaf_hash)


def _verify_parts(job: RunningJob, store: Store, key: Key, image: ProvenObject, progress: DiskProgress) -> None:
    """The first part, which has the image's head, the last, and others spread between them."""
    count = SAMPLED_PARTS if job.capabilities.verifies_checksums else len(image.parts)
    numbers = range(len(image.parts))
    step = max(1, -(-len(numbers) // max(1, count)))
    chosen = sorted({*numbers[::step], *numbers[-1:]})

    def damaged(number: int) -> None:
        offset = sum(part.size for part in image.parts[:number])
        _refuse(store, key(image.file), f"differs from what was sent in the part at {offset}")

    StoredParts(job, store, key(image.file), image.parts, damaged).read_some(chosen, progress)


def _refuse_leaf(store: Store, layers: Sequence[StoredDisk], index: int) -> None:
    """Whoever puts the object back that it lies in has mended it; what none of them holds is the newest's to hide."""
    disk, layer = layers[-1].record, layers[-1]
    number, position = divmod(index, CHUNK_LEAVES)
    for chunk, held in holders(store, layers):
        if chunk == number and position in held:
            layer = layers[held[position]]
        if chunk >= number:
            break
    raise VmferryError(
        "checksum_mismatch",
        f"{disk.id} is damaged: bytes {index * LEAF} to {min((index + 1) * LEAF, disk.size)} are not what was read "
        f"when it was exported. They lie in {store.object_url(layer.key(layer.record.file))}.",
        "The export was changed or damaged in its store; use another copy of it, or an older export.",
    )


def _refuse(store: Store, key: str, flaw: str) -> None:
    if flaw:
        raise VmferryError(
            "checksum_mismatch",
            f"{store.object_url(key)} {flaw}.",
            "The store did not keep what it was given. Look at its health, and use another copy of the export.",
        )
