# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes that are known from the start, a file's or an object's, into an object: in parallel, digested on the way."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Callable, Iterator, Mapping, Protocol, Sequence

from .._blocks import LEAF, Part, PartReceipt, PartWriter
from .digests import equal_runs, leaf_zeros
from .failpoints import failpoint
from .flow import Flow, Turns
from .part_sizes import PartRules, PartSizes
from .progress import DiskProgress
from .workers import run_workers

BUDGET = 32 * 1024 * 1024  # bytes of all buffers, where no store asks for larger parts
WORKERS = 4  # unless asked for otherwise: each waits for the network most of the time
PART = 8 * 1024 * 1024
MOST_PIECES = 65_536  # of a file, whose receipts are held in memory
Seen = Callable[[int, Sequence[bytes]], object]


class ByteSource(Protocol):
    @property
    def size(self) -> int: ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer or raise; thread-safe."""


@dataclass(frozen=True)
class Cut:
    """How an object is cut, and how many of its parts are under way at once."""

    sizes: PartSizes
    workers: int

    @classmethod
    def of(cls, size: int, rules: PartRules, any_offset: bool, parallel: int | None) -> Cut:
        """Raises `unsupported` where the store takes no object of that size."""
        wanted = parallel or WORKERS
        preferred = min(PART, max(LEAF * 16, BUDGET // wanted // LEAF * LEAF))
        sizes = PartSizes.for_object(size, 0, preferred, rules)
        if any_offset:
            part = max(preferred, -(-size // MOST_PIECES // LEAF) * LEAF)
            sizes = PartSizes(part, part)
        return cls(sizes, max(1, min(wanted, BUDGET // sizes.other)))

    def parts(self, size: int) -> Iterator[Part]:
        """None of an empty object."""
        at, number = 0, 1
        while at < size:
            part = self.sizes.part(number)
            yield Part(number, at, min(part.size, size - at))
            at, number = at + part.size, number + 1


@dataclass(frozen=True)
class Moved:
    sha256: str  # in hex, of the whole
    receipts: Sequence[PartReceipt]
    bytes_kept: int  # that an earlier run had sent


def move_bytes(
    source: ByteSource,
    writer: PartWriter,
    cut: Cut,
    flow: Flow,
    progress: DiskProgress,
    *,
    kept: Mapping[int, PartReceipt] | None = None,
    kept_source: ByteSource | None = None,
    taken: Callable[[PartReceipt], object] = lambda receipt: None,
    seen: Seen | None = None,
    sparse: bool = True,
) -> Moved:
    """`kept`: parts that the writer holds, by number. Their bytes are read all the same, from `kept_source` or else the
    source, for the digest of the whole; one whose bytes are others now is read from the source and sent again.

    `taken` is told each part that was sent. Its proof is the SHA-256 of all up to its end: that is known on the way to
    the digest of the whole, so nothing is hashed twice. `seen` is told, in order, of each part its offset and the
    SHA-256 of each 64 KiB, which costs a second pass.
    `sparse`: zeros need not be written where the writer takes any offset, since nothing was written there before.
    """
    mover = _Mover(source, writer, flow, progress, kept or {}, kept_source or source, taken, seen, sparse)
    return mover.run(cut)


class _Mover:
    def __init__(
        self,
        source: ByteSource,
        writer: PartWriter,
        flow: Flow,
        progress: DiskProgress,
        kept: Mapping[int, PartReceipt],
        kept_source: ByteSource,
        taken: Callable[[PartReceipt], object],
        seen: Seen | None,
        sparse: bool,
    ) -> None:
        self._source, self._writer, self._flow, self._progress = source, writer, flow, progress
        self._kept, self._kept_source, self._taken, self._seen, self._sparse = kept, kept_source, taken, seen, sparse
        self._whole, self._turns, self._lock = sha256(), Turns(flow), Lock()
        self._receipts: list[PartReceipt] = []
        self._bytes_kept = 0

    def run(self, cut: Cut) -> Moved:
        self._progress.expect(self._source.size)
        parts = cut.parts(self._source.size)

        def take() -> Part | None:
            with self._lock:
                return next(parts, None)

        def work() -> None:
            buffer = bytearray(min(cut.sizes.other, self._source.size))
            while (part := take()) is not None:
                self._flow.raise_if_stopped()
                self._move(part, buffer)

        run_workers(self._flow, min(cut.workers, max(1, cut.sizes.count(self._source.size))), work)
        ordered = sorted(self._receipts, key=lambda receipt: receipt.part.number)
        return Moved(self._whole.hexdigest(), tuple(ordered), self._bytes_kept)

    def _move(self, part: Part, buffer: bytearray) -> None:
        kept, data = self._kept.get(part.number), memoryview(buffer)[: part.size]
        kept = kept if kept is not None and kept.part == part else None
        (self._source if kept is None else self._kept_source).read_into(part.offset, data)
        self._progress.read(part.size)
        digests = self._leaves(data) if kept is None else []
        with self._turns.turn(part.number - 1):
            is_kept = kept is not None and self._is_as_it_was(part, data, kept.proof)
            if not is_kept:
                self._whole.update(data)
            proof = self._whole.digest()
            if self._seen is not None:
                self._seen(part.offset, digests or self._leaves(data))
        if kept is not None and is_kept:
            self._note(kept)
        else:
            sparse = self._sparse and part.number not in self._kept
            receipt = PartReceipt(part, proof, self._write(part, buffer, skip=sparse))
            self._progress.sent(part.size)
            self._taken(receipt)
            self._note(receipt)
            failpoint("object-part-sent")
        self._progress.settled(part.size)

    def _leaves(self, data: memoryview) -> Sequence[bytes]:
        return [sha256(data[at : at + LEAF]).digest() for at in range(0, len(data), LEAF)] if self._seen else []

    def _is_as_it_was(self, part: Part, data: memoryview, proof: bytes) -> bool:
        """Then it is in the digest of the whole; else `data` is what the source has there."""
        whole = self._whole.copy()
        whole.update(data)
        if whole.digest() == proof:
            self._whole = whole
            return True
        if self._kept_source is not self._source:
            self._source.read_into(part.offset, data)
        return False

    def _note(self, receipt: PartReceipt) -> None:
        with self._lock:
            self._receipts.append(receipt)
            if receipt is self._kept.get(receipt.part.number):
                self._bytes_kept += receipt.part.size

    def _write(self, part: Part, buffer: bytearray, *, skip: bool) -> str:
        data = memoryview(buffer)[: part.size]
        if not self._writer.any_offset:
            return self._writer.write_part(part, data)
        if not skip:
            self._writer.write_at(part.offset, data)
            return ""
        zeros = leaf_zeros(buffer, part.size)
        for first, behind in equal_runs(zeros):
            if zeros[first] is not None:
                self._writer.write_at(part.offset + first * LEAF, data[first * LEAF : behind * LEAF])
        return ""
