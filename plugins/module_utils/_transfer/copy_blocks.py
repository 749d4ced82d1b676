# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From blocks to blocks: an import, proved leaf by leaf before a byte is written; or a proof alone."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock
from typing import Sequence, Tuple

from .._blocks import LEAF, BlockSink, BlockSource, LayeredSink, Piece
from .._errors import VmferryError
from .digest_check import LeafCheck
from .digests import Digests, equal_runs, leaf_digests, leaf_zeros
from .failpoints import failpoint
from .flow import Flow
from .limits import Limits
from .progress import DiskProgress
from .windows import ExtentMap, Window, windows
from .workers import run_workers

ZERO_STEP = 256 * 1024 * 1024  # bytes a sink is asked to zero at once, so that a stop is noticed in between
_DAMAGE = ("checksum_mismatch", "invalid_config")  # kinds of errors that an image itself is to blame for
_UNREADABLE = b""  # the digest of nothing that is expected
Expected = Sequence[Tuple[int, Digests]]  # first leaf of a data run, and what the digest file says of its leaves


@dataclass(frozen=True)
class CopyResult:
    """In bytes; `digest_root` in hex, empty where nothing was checked."""

    bytes_read: int
    bytes_written: int
    bytes_zero: int
    digest_root: str


def copy_blocks(
    source: BlockSource,
    sink: BlockSink | None,
    check: LeafCheck | None,
    *,
    limits: Limits,
    flow: Flow,
    progress: DiskProgress | None = None,
) -> CopyResult:
    """Copy a disk and flush it; without a sink, only check it.

    Zeros are left out where the sink reads zero already, and what is `unchanged` is kept by one that has it. Raises
    `checksum_mismatch`, naming the place on the disk, before the leaf in question is written; nothing written may be
    used unless this returns.
    """
    with ExitStack() as woken:  # whoever waits for the source or the sink, when the job stops
        woken.enter_context(flow.on_stop(source.close))
        if sink is not None:
            woken.enter_context(flow.on_stop(sink.close))
        return _copied(source, sink, check, limits, flow, progress or DiskProgress())


def _copied(
    source: BlockSource,
    sink: BlockSink | None,
    check: LeafCheck | None,
    limits: Limits,
    flow: Flow,
    progress: DiskProgress,
) -> CopyResult:
    if check is not None and check.size != source.size:
        raise VmferryError(
            "checksum_mismatch", f"The image holds a disk of {source.size} bytes; its digests are of {check.size}."
        )
    if sink is not None and sink.size < source.size:
        raise VmferryError(
            "invalid_config", f"The target has {sink.size} bytes; the disk needs {source.size}.", "Enlarge the target."
        )
    extents = ExtentMap(source.extents(), source.size)
    if extents.bytes_of("unchanged"):
        _keep(sink, extents)
    progress.expect(extents.bytes_of("data"))
    copy = _Copy(source, sink, check, extents, limits, flow, progress)
    run_workers(flow, limits.workers, copy.work)
    root = check.finish() if check is not None else ""
    if sink is not None:
        copy.zero(source.size, sink.size - source.size)
        with progress.rest():
            sink.flush()
    zeros = extents.bytes_of("zero") + copy.zeros_found
    return CopyResult(extents.bytes_of("data"), copy.bytes_written, zeros, root)


def _keep(sink: BlockSink | None, extents: ExtentMap) -> None:
    if not isinstance(sink, LayeredSink):
        raise VmferryError("internal", "What was read has parts that only its parent knows.")
    for run in extents:
        if run.kind == "unchanged":
            sink.keep(run.offset, run.length)


class _Copy:
    def __init__(
        self,
        source: BlockSource,
        sink: BlockSink | None,
        check: LeafCheck | None,
        extents: ExtentMap,
        limits: Limits,
        flow: Flow,
        progress: DiskProgress,
    ) -> None:
        self._source, self._sink, self._check = source, sink, check
        self._flow, self._progress, self._window_size = flow, progress, limits.window
        self._windows = windows(extents, limits.window)
        self._taking, self._counting = Lock(), Lock()
        self.zeros_found = self.bytes_written = 0

    def work(self) -> None:
        buffer = bytearray(self._window_size)
        view = memoryview(buffer)
        while taken := self._take():
            window, expected = taken
            count = window.data_bytes
            unreadable = self._read(window.pieces(view))
            self._flow.raise_if_stopped()  # whoever waited for the source longer than the job has no sink any more
            self._progress.read(count)
            found = self._proved(window, buffer, expected, unreadable)
            self._write(window, view, found)
            self._progress.settled(count)
            failpoint("window-copied")

    def _read(self, pieces: Sequence[Piece]) -> Sequence[int]:
        """Which leaves of the data, counted in the window, hold nothing that can be read. None, where the first of them
        is the end of it all."""
        try:
            self._source.read_into(pieces)
        except VmferryError as error:
            if not self._may_go_on(error):
                raise
        else:
            return ()
        leaves = [(offset + at, piece[at : at + LEAF]) for offset, piece in pieces for at in range(0, len(piece), LEAF)]
        return [number for number, leaf in enumerate(leaves) if not self._reads(leaf)]

    def _reads(self, leaf: Piece) -> bool:
        self._flow.raise_if_stopped()
        try:
            self._source.read_into([leaf])
        except VmferryError as error:
            if not self._may_go_on(error):
                raise
            return False
        return True

    def _may_go_on(self, error: VmferryError) -> bool:
        return self._check is not None and self._check.tells_all and error.kind in _DAMAGE

    def zero(self, offset: int, length: int) -> None:
        if self._sink is None or self._sink.reads_zero:
            return
        for at in range(offset, offset + length, ZERO_STEP):
            self._flow.raise_if_stopped()
            self._sink.zero(at, min(ZERO_STEP, offset + length - at))
            self._progress.alive()

    def _take(self) -> tuple[Window, Expected] | None:
        self._flow.raise_if_stopped()
        with self._taking:
            window = next(self._windows, None)
            return None if window is None else (window, self._expected(window))

    def _expected(self, window: Window) -> Expected:
        """In guest order, since the digest file is read once, forwards."""
        found = []
        if self._check is not None:
            for run in window.runs:
                first, count = run.offset // LEAF, -(-run.length // LEAF)
                if run.kind == "zero":
                    self._check.expect_zeros(first, count)
                else:
                    found.append((first, self._check.expect(first, count)))
        return found

    def _proved(self, window: Window, buffer: bytearray, expected: Expected, unreadable: Sequence[int] = ()) -> Digests:
        end = window.data_bytes
        if self._check is None:
            return leaf_zeros(buffer, end)
        found = leaf_digests(buffer, end, window.leaves(), self._check.leaf_hash)
        for number in unreadable:
            found[number] = _UNREADABLE
        at = 0
        for first, digests in expected:
            self._check.compare(first, found[at : at + len(digests)], digests)
            at += len(digests)
        return found

    def _write(self, window: Window, view: memoryview, found: Digests) -> None:
        pieces: list[Piece] = []
        zeros = at = 0
        for run in window.runs:
            if run.kind == "zero":
                self.zero(run.offset, run.length)
                continue
            count = -(-run.length // LEAF)
            for start, stop in equal_runs(found[at : at + count]):
                offset, end = run.offset + start * LEAF, min(run.offset + stop * LEAF, run.end)
                if found[at + start] is None:
                    zeros += end - offset
                    self.zero(offset, end - offset)
                else:
                    place = (at + start) * LEAF
                    pieces.append((offset, view[place : place + end - offset]))
            at += count
        written = sum(len(data) for _unused, data in pieces)
        if self._sink is not None and pieces:
            self._sink.write(pieces)
            self._progress.sent(written)
        with self._counting:
            self.zeros_found += zeros
            self.bytes_written += written
