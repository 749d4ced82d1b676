# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of an import, filled from wherever they are read: into the sinks of a session, or by a session itself."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock
from typing import Callable, ContextManager, Optional, Sequence, Tuple

from ..._blocks import BlockSource
from ..._providers.base import ImportSession, ReadDisk
from ..._transfer.copy_blocks import copy_blocks
from ..._transfer.digest_check import LeafCheck
from ..._transfer.limits import Limits
from ..._transfer.progress import DiskProgress
from ..._transfer.workers import run_workers
from .running_job import RunningJob

Proved = Tuple[BlockSource, Optional[LeafCheck]]  # and what its leaves have to be, where anybody knows


@dataclass(frozen=True)
class DiskContent:
    """What one disk is to hold. Opening it may take long, and tells by the progress that it lives."""

    open: Callable[[DiskProgress], ContextManager[Proved]]


def fill_disks(job: RunningJob, session: ImportSession, contents: Sequence[DiskContent], at_once: int = 1) -> None:
    """In their order; the phase that the job is in has as many disks. Raises `checksum_mismatch` before what does not
    fit is written.

    `at_once`: so many are best read side by side. A session that takes the disks itself decides that for itself.
    """
    if not session.takes_disks:
        _fill(job, session, contents, min(at_once, len(contents), job.options.parallel or len(contents)))
        return
    with ExitStack() as stack:
        disks = []
        for number, content in enumerate(contents):
            progress = job.progress.disk(number)
            source, check = stack.enter_context(content.open(progress))
            disks.append(ReadDisk(source, progress, check))
        job.progress.disk(0)
        session.take(disks, job.options.parallel, job.progress.disk)


def _fill(job: RunningJob, session: ImportSession, contents: Sequence[DiskContent], count: int) -> None:
    """`count` of the disks at once, which together take no more memory than one would. The first error ends all."""

    def fill(number: int, limits: Limits) -> None:
        progress = job.progress.disk(number)
        with contents[number].open(progress) as (source, check):
            copy_blocks(source, session.sinks[number], check, limits=limits, flow=job.flow, progress=progress)

    if count < 2:
        for number in range(len(contents)):
            fill(number, job.limits)
        return
    limits, waiting, taking = job.limits.beside(count), iter(range(len(contents))), Lock()

    def work() -> None:
        while True:
            job.flow.raise_if_stopped()
            with taking:
                number = next(waiting, None)
            if number is None:
                return
            fill(number, limits)

    run_workers(job.flow, count, work, patient=True)
