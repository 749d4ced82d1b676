# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a source to a sink, every leaf compared with its digest before it is written."""

from __future__ import annotations

from threading import Lock

from .._blocks import LEAF, BlockSink, BlockSource, Piece
from .digests import DigestReader, compare, leaf_digests
from .export_pipeline import Limits, equal_runs
from .flow import Flow
from .progress import Progress
from .windows import ExtentMap, Window
from .workers import run_workers


class BlockCopy:
    """To be run once. With `digests`, what is not what was exported raises `checksum_mismatch` and is never written."""

    def __init__(
        self,
        source: BlockSource,
        sink: BlockSink,
        digests: DigestReader,
        limits: Limits,
        flow: Flow,
        progress: Progress,
        where: str,
    ) -> None:
        self._source, self._sink, self._digests, self._where = source, sink, digests, where
        self._limits, self._flow, self._progress = limits, flow, progress
        self._taking = Lock()

    def run(self) -> None:
        """Everything is on the sink, durable, when this returns."""
        found = ExtentMap(self._source)
        self._progress.disk_total(found.data_bytes)
        self._windows = found.windows(self._limits.window)
        run_workers(self._flow, self._limits.worker_count, self._work)
        self._digests.finish()
        self._sink.flush()

    def _work(self) -> None:
        buffer = bytearray(self._limits.window)
        view = memoryview(buffer)
        while taken := self._take():
            window, wanted = taken
            pieces = window.pieces(view)
            self._source.read_into(pieces)
            self._progress.read(sum(len(piece) for _, piece in pieces))
            self._progress.sent(self._write(window, view, buffer, wanted))

    def _take(self) -> tuple[Window, list[list[bytes | None]]] | None:
        """A window, and the digests of each of its data runs: the file is read in guest order, under the lock."""
        with self._taking:
            window = None if self._flow.error else next(self._windows, None)
            if window is None:
                return None
            wanted = []
            for run in window.runs:
                first, count = run.offset // LEAF, -(-run.length // LEAF)
                if run.kind == "data":
                    wanted.append(self._digests.take(first, count))
                else:
                    self._digests.expect_zeros(first, count)
            return window, wanted

    def _write(self, window: Window, view: memoryview, buffer: bytearray, wanted: list[list[bytes | None]]) -> int:
        digests = leaf_digests(buffer, sum(run.length for run in window.runs if run.kind == "data"))
        at, pieces, data_runs = 0, [], iter(wanted)  # type: int, list[Piece], object
        for run in window.runs:
            if run.kind != "data":
                self._zero(run.offset, run.length)
                continue
            count = -(-run.length // LEAF)
            found = digests[at : at + count]
            compare(found, next(data_runs), run.offset // LEAF, self._where)
            for start, stop in equal_runs(found):
                offset, length = run.offset + start * LEAF, min(run.length, stop * LEAF) - start * LEAF
                if found[start] is None:
                    self._zero(offset, length)
                else:
                    pieces.append((offset, view[(at + start) * LEAF :][:length]))
            at += count
        self._sink.write(pieces)
        return sum(len(piece) for _, piece in pieces)

    def _zero(self, offset: int, length: int) -> None:
        if not self._sink.reads_zero:
            self._sink.zero(offset, length)
