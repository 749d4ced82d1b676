# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a stream in which the pieces of several disks take turns, to all of these disks at once."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock
from typing import Callable, Dict, Iterator, List, Optional, Sequence

from .._blocks import BlockSink, Piece
from .._errors import VmferryError
from .copy_blocks import ZERO_STEP
from .flow import Flow
from .limits import Limits
from .progress import DiskProgress
from .workers import run_workers

_MOST_RUNS = 4096  # that a worker takes at once


@dataclass(frozen=True)
class StreamedRun:
    """`disk`: its number. `data` is None for zeros."""

    disk: int
    offset: int
    length: int
    data: Optional[memoryview]


@dataclass(frozen=True)
class StreamedDisk:
    """Where one of them goes, and how large it is."""

    sink: BlockSink
    size: int
    progress: DiskProgress
    begin: Callable[[], object] = lambda: None  # it is the one that is read now


def copy_stream(runs: Iterator[StreamedRun], disks: Sequence[StreamedDisk], *, limits: Limits, flow: Flow) -> None:
    """Copy and flush all of them. `runs` have every byte of every disk, once and in any order, and raise what is wrong
    with the stream: nothing written may be used unless this returns.
    """
    for disk in disks:
        if disk.sink.size < disk.size:
            text = f"The target has {disk.sink.size} bytes; the disk needs {disk.size}."
            raise VmferryError("invalid_config", text, "Enlarge the target.")
    with ExitStack() as woken:  # whoever waits for a sink, when the job stops
        for disk in disks:
            woken.enter_context(flow.on_stop(disk.sink.close))
        copy = _Copy(runs, disks, limits.window, flow)
        run_workers(flow, limits.workers, copy.work)
        for disk in disks:
            copy.zero(disk, disk.size, disk.sink.size - disk.size)
            with disk.progress.rest():
                disk.sink.flush()


class _Copy:
    def __init__(self, runs: Iterator[StreamedRun], disks: Sequence[StreamedDisk], window: int, flow: Flow) -> None:
        self._runs, self._disks, self._window, self._flow = runs, disks, window, flow
        self._reading = Lock()
        self._zeros = [0] * len(disks)  # bytes
        self._current = -1  # the disk that was read last

    def work(self) -> None:
        """One worker reads, and the others write."""
        while taken := self._take():
            pieces: Dict[int, List[Piece]] = {}
            for run in taken:
                if run.data is None:
                    self.zero(self._disks[run.disk], run.offset, run.length)
                else:
                    pieces.setdefault(run.disk, []).append((run.offset, run.data))
            for number, found in pieces.items():
                disk, count = self._disks[number], sum(len(data) for _offset, data in found)
                disk.sink.write(found)
                disk.progress.sent(count)
                disk.progress.settled(count)

    def _take(self) -> Sequence[StreamedRun]:
        """The next of them, of a window's data or somewhat more."""
        found: List[StreamedRun] = []
        left = self._window
        with self._reading:
            self._flow.raise_if_stopped()
            for run in self._runs:
                self._count(run)
                found.append(run)
                left -= 0 if run.data is None else run.length
                if left <= 0 or len(found) == _MOST_RUNS:
                    break
        return found

    def _count(self, run: StreamedRun) -> None:
        disk = self._disks[run.disk]
        if run.disk != self._current:
            self._current = run.disk
            disk.begin()
        if run.data is not None:
            disk.progress.read(run.length)
            return
        self._zeros[run.disk] += run.length
        disk.progress.expect(disk.size - self._zeros[run.disk])

    def zero(self, disk: StreamedDisk, offset: int, length: int) -> None:
        if disk.sink.reads_zero:
            return
        for at in range(offset, offset + length, ZERO_STEP):
            self._flow.raise_if_stopped()
            disk.sink.zero(at, min(ZERO_STEP, offset + length - at))
            disk.progress.alive()
