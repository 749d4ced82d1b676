# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof that what lies in the store is what was read: by its bytes, or by its content."""

from __future__ import annotations

from hashlib import sha256
from threading import Lock
from typing import Callable, Iterator

from .._blocks import LEAF, BlockSink
from .._errors import VmferryError
from .._exports.manifest import DiskRecord, StoredFile
from .._stores.base import Store
from .._transfer.copy_blocks import copy_blocks
from .._transfer.digest_check import DigestCheck
from .._transfer.digest_file import DigestReader, merged_leaves
from .._transfer.object_stream import SequentialReader
from .._transfer.progress import DiskProgress
from .._transfer.workers import run_workers
from .image_formats import image_reader
from .requests import Verify
from .running_job import RunningJob

Key = Callable[[str], str]
SAMPLED_PARTS = 8  # re-read where the store itself vouches for all of them
READ_AT_ONCE = 16 * LEAF


def verify_disk(job: RunningJob, store: Store, key: Key, disk: DiskRecord, how: Verify, progress: DiskProgress) -> None:
    """`stored`: the object has its size, and its parts are what was sent: a sample of them where the store was seen to
    refuse what a checksum does not fit, and every one where it was not. `content`: every leaf, read through the image.
    The digest file is read in full either way: nothing can be imported without it.
    """
    _check_size(store, key(disk.file), disk.bytes_stored)
    if how == "content":
        copy_checked(job, store, key, disk, None, progress)
        return
    verify_file(job, store, key, disk.digests, progress.alive)
    trusted = job.capabilities.verifies_checksums
    _verify_parts(job, store, key, disk, SAMPLED_PARTS if trusted else len(disk.parts), progress)


def verify_file(
    job: RunningJob, store: Store, key: Key, file: StoredFile, alive: Callable[[], object] = lambda: None
) -> None:
    """A small file in the store is, byte for byte, the one the manifest names."""
    _check_size(store, key(file.path), file.size)
    whole, buffer = sha256(), memoryview(bytearray(min(READ_AT_ONCE, file.size)))
    for piece in _pieces(job, store, key(file.path), 0, file.size, buffer):
        whole.update(piece)
        alive()
    if whole.hexdigest() != file.sha256:
        raise _wrong(store, key(file.path), "is damaged: it is not what was sent")


def copy_checked(
    job: RunningJob, store: Store, key: Key, disk: DiskRecord, sink: BlockSink | None, progress: DiskProgress
) -> None:
    """The disk out of its image into `sink`, every leaf compared with its digest on the way; or only compared.

    The digests themselves are compared with the manifest first, so that damage of theirs is not taken for the image's.
    """
    verify_file(job, store, key, disk.digests, progress.alive)
    digests = SequentialReader(
        lambda offset, buffer: store.read_into(key(disk.digests.path), offset, buffer), disk.digests.size
    )
    reader = DigestReader(digests.read, store.object_url(key(disk.digests.path)))
    if reader.header.size != disk.size:
        found = f"has the digests of a disk of {reader.header.size} bytes, not of {disk.size}"
        raise _wrong(store, key(disk.digests.path), found)
    check = DigestCheck(disk.size, merged_leaves([reader]), disk.digest_root, store.object_url(key(disk.file)))
    source = image_reader(store, key(disk.file), disk)
    try:
        copy_blocks(source, sink, check, limits=job.limits, flow=job.flow, progress=progress)
    finally:
        source.close()


def _verify_parts(
    job: RunningJob, store: Store, key: Key, disk: DiskRecord, count: int, progress: DiskProgress
) -> None:
    """The first part, which has the image's head, the last, and others spread between them."""
    offsets, at = [], 0
    for part in disk.parts:
        offsets.append(at)
        at += part.size
    step = max(1, -(-len(offsets) // max(1, count)))
    chosen = sorted({*range(0, len(offsets), step), *([len(offsets) - 1] if offsets else [])})
    progress.expect(sum(disk.parts[number].size for number in chosen))
    queue, taking = iter(chosen), Lock()

    def take() -> int | None:
        with taking:
            return next(queue, None)

    def work() -> None:
        buffer = memoryview(bytearray(READ_AT_ONCE))
        while (number := take()) is not None:
            whole = sha256()
            for piece in _pieces(job, store, key(disk.file), offsets[number], disk.parts[number].size, buffer):
                progress.read(len(piece))
                for block in range(0, len(piece), LEAF):
                    whole.update(sha256(piece[block : block + LEAF]).digest())
                progress.settled(len(piece))
            if whole.hexdigest() != disk.parts[number].sha256:
                raise _wrong(store, key(disk.file), f"differs from what was sent in the part at {offsets[number]}")

    run_workers(job.flow, min(job.limits.workers, max(1, len(chosen))), work)


def _pieces(
    job: RunningJob, store: Store, key: str, offset: int, size: int, buffer: memoryview
) -> Iterator[memoryview]:
    for at in range(0, size, max(1, len(buffer))):
        job.flow.raise_if_stopped()
        piece = buffer[: min(len(buffer), size - at)]
        store.read_into(key, offset + at, piece)
        yield piece


def _check_size(store: Store, key: str, size: int) -> None:
    info = store.stat(key)
    if info is None or info.size != size:
        found = "is missing" if info is None else f"has {info.size} bytes"
        raise _wrong(store, key, f"{found}; {size} bytes were sent")
    store.drop_cache(key)


def _wrong(store: Store, key: str, what: str) -> VmferryError:
    return VmferryError(
        "checksum_mismatch",
        f"{store.object_url(key)} {what}.",
        "The store did not keep what it was given. Look at its health, and use another copy of the export.",
    )
