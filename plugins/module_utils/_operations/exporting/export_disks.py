# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All disks of a point in time, as images: one after the other, or as many at once as their provider reads best."""

from __future__ import annotations

from dataclasses import replace
from threading import Lock
from typing import Callable, Dict, Iterator, Sequence

from ..._blocks import BlockSource, Extent, Piece
from ..._providers.base import ExportDisk, ExportSession
from ..._transfer.flow import Flow
from ..._transfer.limits import Limits
from ..._transfer.workers import run_workers
from ..jobs.running_job import RunningJob
from .export_base import UnfitParent
from .export_disk import WrittenDisk

Write = Callable[[int, ExportDisk, Limits], WrittenDisk]


def export_disks(job: RunningJob, session: ExportSession, write: Write) -> Sequence[WrittenDisk]:
    """In the session's order, whichever was ready first. `write` gets a disk's number, and how much of the job's memory
    and workers it may have; nothing of the disk stays where it raises.

    The first error ends all, and is raised when each of them has been left in order. `UnfitParent` leaves the sources
    open: the full export that takes the increment's place reads them from their beginning.
    """
    disks = session.disks
    count = _at_once(job, session)
    if count < 2:
        return [write(number, disk, job.limits) for number, disk in enumerate(disks)]
    limits, waiting, taking = job.limits.beside(count), enumerate(disks), Lock()
    written: Dict[int, WrittenDisk] = {}

    def work() -> None:
        while True:
            job.flow.raise_if_stopped()
            with taking:
                taken = next(waiting, None)
            if taken is None:
                return
            number, disk = taken
            written[number] = write(number, _spared(disk, job.flow), limits)

    try:
        run_workers(job.flow, count, work, patient=True)
    except UnfitParent:
        job.flow.forgive()
        raise
    return [written[number] for number in range(len(disks))]


def _at_once(job: RunningJob, session: ExportSession) -> int:
    """No more than there is memory and, where somebody chose their number, workers for."""
    sizes = [disk.source.size for disk in session.disks]
    wanted = min(session.at_once, len(sizes), job.options.parallel or len(sizes))
    return min(wanted, job.limits.disks_at_once(sizes, job.capabilities)) if wanted > 1 else 1


def _spared(disk: ExportDisk, flow: Flow) -> ExportDisk:
    changes = disk.changes
    return replace(disk, source=_Spared(disk.source, flow), changes=changes and _Spared(changes, flow))


class _Spared:
    """Plays BlockSource. It is not closed by a stop that only means that another disk's parent does not fit."""

    def __init__(self, source: BlockSource, flow: Flow) -> None:
        self._source, self._flow = source, flow

    @property
    def size(self) -> int:
        return self._source.size

    def extents(self) -> Iterator[Extent]:
        return self._source.extents()

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._source.read_into(pieces)

    def close(self) -> None:
        if not isinstance(self._flow.error, UnfitParent):
            self._source.close()
