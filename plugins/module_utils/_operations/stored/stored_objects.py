# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects in a store, read and compared with what their manifest says of them. Whoever asks judges what differs."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Callable, Iterator, Protocol, Sequence

from ..._blocks import LEAF
from ..._exports.catalog import CatalogEntry
from ..._exports.manifest import StoredFile
from ..._exports.proven import ProvenPart
from ..._stores.base import Store
from ..._transfer.flow import Flow, Turns
from ..._transfer.limits import Limits
from ..._transfer.progress import DiskProgress
from ..._transfer.workers import run_workers
from ..jobs.running_job import RunningJob

READ_AT_ONCE = 16 * LEAF


def objects_of(entry: CatalogEntry) -> Iterator[tuple[str, str, int]]:
    """Disk, path and size of everything beside the manifest; '' for what is of no disk, or of several."""
    for disk_id, one in entry.manifest.objects:
        yield disk_id, one.file, one.size
    for disk in entry.manifest.disks:
        yield disk.id, disk.digests.path, disk.digests.size
    for file in entry.manifest.files:
        yield "", file.path, file.size


def flaw_of_size(store: Store, key: str, size: int) -> str:
    """What is wrong, as the end of a sentence that begins with the object's URL; or ''. Later reads see the medium."""
    info = store.stat(key)
    if info is None or info.size != size:
        found = "is missing" if info is None else f"has {info.size} bytes"
        return f"{found}; {size} bytes were sent"
    store.drop_cache(key)
    return ""


def flaw_of_file(
    job: RunningJob, store: Store, key: str, file: StoredFile, alive: Callable[[], object] = lambda: None
) -> str:
    """As `flaw_of_size`, of every byte of a small file."""
    flaw = flaw_of_size(store, key, file.size)
    if flaw:
        return flaw
    whole, buffer = sha256(), memoryview(bytearray(min(READ_AT_ONCE, file.size)))
    for at in range(0, file.size, READ_AT_ONCE):
        job.flow.raise_if_stopped()
        piece = buffer[: min(READ_AT_ONCE, file.size - at)]
        store.read_into(key, at, piece)
        whole.update(piece)
        alive()
    return "" if whole.hexdigest() == file.sha256 else "is damaged: it is not what was sent"


@dataclass(frozen=True)
class _Piece:
    order: int
    part: int
    offset: int  # in the object
    length: int
    ends_part: bool


class Reader(Protocol):
    """Who reads: a job."""

    @property
    def flow(self) -> Flow: ...

    @property
    def limits(self) -> Limits: ...


class StoredParts:
    """An object of which every part has a proof. `damaged` is told the number of each part that does not fit its own,
    in order. It may raise.
    """

    def __init__(
        self, job: Reader, store: Store, key: str, parts: Sequence[ProvenPart], damaged: Callable[[int], object]
    ) -> None:
        self._job, self._store, self._key, self._parts, self._damaged = job, store, key, parts, damaged
        self._proof, self._whole = sha256(), sha256()

    def read(self, progress: DiskProgress) -> str:
        """All of it, in parallel; the SHA-256 of the object, in hex."""
        self._read(range(len(self._parts)), progress, whole=True)
        return self._whole.hexdigest()

    def read_some(self, chosen: Sequence[int], progress: DiskProgress) -> None:
        self._read(chosen, progress, whole=False)

    def _read(self, chosen: Sequence[int], progress: DiskProgress, *, whole: bool) -> None:
        progress.expect(sum(self._parts[number].size for number in chosen))
        pieces, taking, turns = self._pieces(chosen), Lock(), Turns(self._job.flow)

        def take() -> _Piece | None:
            with taking:
                return next(pieces, None)

        def work() -> None:
            buffer = memoryview(bytearray(READ_AT_ONCE))
            while (piece := take()) is not None:
                self._job.flow.raise_if_stopped()
                data = buffer[: piece.length]
                if piece.length:
                    self._store.read_into(self._key, piece.offset, data)
                progress.read(piece.length)
                blocks = b"".join(sha256(data[at : at + LEAF]).digest() for at in range(0, piece.length, LEAF))
                with turns.turn(piece.order):
                    if whole:
                        self._whole.update(data)
                    self._prove(piece, blocks)
                progress.settled(piece.length)

        run_workers(self._job.flow, self._job.limits.workers, work)

    def _pieces(self, chosen: Sequence[int]) -> Iterator[_Piece]:
        wanted, order, start = frozenset(chosen), 0, 0
        for number, part in enumerate(self._parts):
            end = start + part.size
            for at in range(start, max(end, start + 1), READ_AT_ONCE) if number in wanted else ():
                length = min(READ_AT_ONCE, end - at)
                yield _Piece(order, number, at, length, at + length == end)
                order += 1
            start = end

    def _prove(self, piece: _Piece, blocks: bytes) -> None:
        self._proof.update(blocks)
        if piece.ends_part:
            if self._proof.hexdigest() != self._parts[piece.part].sha256:
                self._damaged(piece.part)
            self._proof = sha256()
