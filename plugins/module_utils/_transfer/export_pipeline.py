# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers that each take a window through: read, digest, lay out in guest order, deliver.

Laying out is the only serial step, and it moves no data: it decides where bytes go. There is no queue: a worker owns
one window's memory, so memory is bounded by the number of workers. Windows are numbered in guest order as they are
taken, and a worker never waits for memory while an older window needs what it holds, so there is no deadlock.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Callable, Iterator

from .._blocks import LEAF, BlockSource, ImageOutput, ImageWriter, PartReceipt, PartWriter
from .digests import DigestWriter, leaf_digests
from .flow import Flow
from .parts import MIB, PART, PARTS_IN_MEMORY, PartAssembler, PartLimits, PartSizes, ordered
from .progress import Progress
from .windows import ExtentMap, Window
from .workers import run_workers

WINDOW = 2 * MIB
MakeImage = Callable[[ImageOutput, int], ImageWriter]  # given where its bytes go and how much data will come


@dataclass(frozen=True)
class Limits:
    """What bounds the memory of a transfer: `workers` windows, and `parts` parts where a store takes whole ones."""

    workers: int = 0  # 0: one per core, but two at least: one reads while the other sends
    window: int = WINDOW
    parts: int = PARTS_IN_MEMORY

    @property
    def worker_count(self) -> int:
        return self.workers or max(2, min(os.cpu_count() or 2, 8))


@dataclass(frozen=True)
class Written:
    """What became of one disk. The object is not complete yet: that is the caller's to decide."""

    receipts: list[PartReceipt]
    size: int  # bytes of the object
    bytes_read: int
    bytes_changed: int  # in leaves that are not zero


class ExportPipeline:
    """One disk from a source into the parts of an image. To be run once."""

    def __init__(
        self,
        source: BlockSource,
        make_image: MakeImage,
        digests: DigestWriter,
        limits: Limits,
        flow: Flow,
        progress: Progress,
    ) -> None:
        self._source, self._digests, self._limits = source, digests, limits
        self._flow, self._progress = flow, progress
        self._taking = Lock()
        self._make_image = make_image
        self._map = ExtentMap(source)
        self._read = self._changed = 0

    def run(self, store: PartWriter, part_limits: PartLimits, what: str) -> Written:
        """`what` names the object for the refusal of one that cannot fit."""
        self._parts = PartAssembler(store, self._flow)
        self._image = self._make_image(self._parts, self._map.data_bytes)
        sizes = PartSizes.for_object(self._image.size_bound, self._image.head_size, part_limits, what)
        in_memory = max(2, self._limits.parts * PART // sizes.other)
        self._parts.open(sizes, self._image.head_size, min(self._limits.parts, in_memory))
        self._windows = enumerate(self._map.windows(self._limits.window))
        self._progress.disk_total(self._map.data_bytes)
        self._flow.start_turns()
        run_workers(self._flow, self._limits.worker_count, self._work)
        self._image.finish()
        self._progress.sent(self._parts.deliver(self._parts.finish(self._image.head())))
        return Written(ordered(self._parts.receipts), self._parts.position, self._read, self._changed)

    def _work(self) -> None:
        buffer = bytearray(self._limits.window + LEAF)  # a leaf more: the disk's short last leaf is padded in place
        view = memoryview(buffer)
        while taken := self._take():
            number, window = taken
            pieces = window.pieces(view)
            self._source.read_into(pieces)
            count = sum(len(piece) for _, piece in pieces)
            self._progress.read(count)
            digests = leaf_digests(buffer, count)
            with self._flow.turn(number):
                self._lay_out(window, view, digests)
                placed = self._parts.take_placed()
                self._read += count
            self._progress.sent(self._parts.deliver(placed))

    def _take(self) -> tuple[int, Window] | None:
        with self._taking:
            return None if self._flow.error else next(self._windows, None)

    def _lay_out(self, window: Window, view: memoryview, digests: list[bytes | None]) -> None:
        at = 0  # leaves of this window laid out so far
        for run in window.runs:
            first, count = run.offset // LEAF, -(-run.length // LEAF)
            if run.kind == "zero":
                self._image.zero(run.offset, run.length)
                continue
            found = digests[at : at + count]
            for index, digest in enumerate(found, first):
                self._digests.leaf(index, digest)
            if run.length % LEAF and found[-1]:  # the cluster around a short leaf is padded: a digest of its own
                end = (at + count) * LEAF
                view[end - LEAF + run.length % LEAF : end] = bytes(LEAF - run.length % LEAF)
                found[-1] = sha256(view[end - LEAF : end]).digest()
            for start, stop in equal_runs(found):
                if found[start] is None:
                    self._image.zero(run.offset + start * LEAF, min(run.end - run.offset, stop * LEAF) - start * LEAF)
                else:
                    data = view[(at + start) * LEAF : (at + stop) * LEAF]
                    self._image.data(run.offset + start * LEAF, data, [digest for digest in found[start:stop] if digest])
                    self._changed += (stop - start) * LEAF
            at += count


def equal_runs(found: list[bytes | None]) -> Iterator[tuple[int, int]]:
    """(start, stop) of neighbours that are all zero, or all not."""
    start = 0
    for at in range(1, len(found) + 1):
        if at == len(found) or (found[at] is None) != (found[start] is None):
            yield start, at
            start = at
