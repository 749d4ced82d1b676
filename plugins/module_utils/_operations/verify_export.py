# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof that what lies in the store is what was read: by its bytes, or by its content."""

from __future__ import annotations

from hashlib import sha256
from typing import Callable, Iterator

from .._blocks import LEAF, BlockSink
from .._errors import VmferryError
from .._exports.manifest import DiskRecord
from .._stores.base import Store
from .._transfer.copy_blocks import BlockCopy
from .._transfer.digests import DigestReader
from .._transfer.workers import run_workers
from .image_formats import image_reader
from .requests import Verify
from .running_job import RunningJob

Key = Callable[[str], str]
SAMPLED_PARTS = 8  # re-read where the store itself vouches for all of them
DIGEST_PIECE = 1024 * 1024  # bytes
BLOCKS_AT_ONCE = 16


class NullSink:
    """Plays BlockSink for a copy that is only made to be checked."""

    reads_zero = True

    def __init__(self, size: int) -> None:
        self.size = size

    def write(self, pieces: object) -> None:
        """Nothing is kept."""

    def zero(self, offset: int, length: int) -> None:
        """Nothing is kept."""

    def flush(self) -> None:
        """Nothing was kept."""

    def close(self) -> None:
        """Nothing is held."""


def verify_disk(job: RunningJob, store: Store, key: Key, disk: DiskRecord, how: Verify) -> None:
    """`stored`: the object has its size, and its parts are what was sent: a sample of them where the store was seen to
    refuse what a checksum does not fit, and every one where it was not. `content`: every leaf, read through the image.
    """
    store.drop_cache(key(disk.file))
    info = store.stat(key(disk.file))
    if info is None or info.size != disk.bytes_stored:
        found = "is missing" if info is None else f"has {info.size} bytes"
        raise _wrong(store, key, disk, f"{found}; {disk.bytes_stored} bytes were sent")
    if how == "content":
        copy_checked(job, store, key, disk, NullSink(disk.size))
        return
    trusted = job.capabilities is not None and job.capabilities.verifies_checksums
    verify_parts(job, store, key, disk, SAMPLED_PARTS if trusted else len(disk.parts))


def copy_checked(job: RunningJob, store: Store, key: Key, disk: DiskRecord, sink: BlockSink) -> None:
    """The disk out of its image into `sink`, every leaf compared with its digest on the way."""
    where = store.object_url(key(disk.digests.path))
    digests = DigestReader(disk.size, disk.digest_root, _pieces(store, key, disk), where)
    source = image_reader(store, key(disk.file), disk)
    try:
        BlockCopy(source, sink, digests, job.limits, job.flow, job.progress, where).run()
    finally:
        source.close()


def verify_parts(job: RunningJob, store: Store, key: Key, disk: DiskRecord, count: int) -> None:
    """The first part, which has the image's head, the last, and others spread between them."""
    offsets, at = [], 0
    for part in disk.parts:
        offsets.append(at)
        at += part.size
    step = max(1, -(-len(offsets) // max(1, count)))
    chosen = sorted({*range(0, len(offsets), step), *([len(offsets) - 1] if offsets else [])})
    queue = iter(chosen)

    def work() -> None:
        buffer = memoryview(bytearray(BLOCKS_AT_ONCE * LEAF))
        for number in _shared(queue):
            if job.flow.error:
                return
            part = disk.parts[number]
            if _proof(job, store, key(disk.file), offsets[number], part.size, buffer) != part.sha256:
                raise _wrong(store, key, disk, f"differs from what was sent in the part at {offsets[number]}")

    run_workers(job.flow, job.limits.worker_count, work)


def _shared(queue: Iterator[int]) -> Iterator[int]:
    """A list's iterator gives each item to one thread: `next` on it is one step of the interpreter."""
    while True:
        number = next(queue, None)
        if number is None:
            return
        yield number


def _proof(job: RunningJob, store: Store, key: str, offset: int, size: int, buffer: memoryview) -> str:
    whole = sha256()
    at = 0
    while at < size:
        piece = buffer[: min(len(buffer), size - at)]
        store.read_into(key, offset + at, piece)
        job.progress.read(0)
        for block in range(0, len(piece), LEAF):
            whole.update(sha256(piece[block : block + LEAF]).digest())
        at += len(piece)
    return whole.hexdigest()


def _pieces(store: Store, key: Key, disk: DiskRecord) -> Iterator[bytes]:
    at = 0
    while at < disk.digests.size:
        piece = bytearray(min(DIGEST_PIECE, disk.digests.size - at))
        store.read_into(key(disk.digests.path), at, memoryview(piece))
        yield bytes(piece)
        at += len(piece)


def _wrong(store: Store, key: Key, disk: DiskRecord, what: str) -> VmferryError:
    return VmferryError(
        "checksum_mismatch",
        f"{store.object_url(key(disk.file))} {what}.",
        "The store did not keep what it was given; look at its health before trying again.",
    )
