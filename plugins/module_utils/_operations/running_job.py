# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One transfer under way: its record, its progress, and what its store calls go through (bandwidth, then retry)."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Mapping, Sequence, TypeVar

from .._errors import VmferryError
from .._stores.base import Store, StoreCapabilities
from .._stores.limited import LimitedStore
from .._stores.open import open_store
from .._stores.retrying import RetryingStore
from .._transfer.export_pipeline import Limits
from .._transfer.flow import Flow, Stopped
from .._transfer.limiter import Limiter, parse_timetable
from .._transfer.owner import this_process
from .._transfer.progress import Progress
from .._transfer.record import JobRecord, default_state_dir
from .._transfer.retry import Retry, RetryPolicy
from .._transfer.supervise import cancel_on_signals, supervise
from .requests import StoreSpec, TransferOptions

Result = TypeVar("Result")


class RunningJob:
    """In check mode it has no record: nothing is written anywhere."""

    def __init__(self, job_id: str, options: TransferOptions, record: JobRecord | None) -> None:
        self.id, self.options = job_id, options
        self._record = record
        self.flow, self.progress = Flow(), Progress()
        self.owner: Mapping[str, Any] = this_process()
        self.warnings: list[str] = []
        self.capabilities: StoreCapabilities | None = None  # of the store, once it was probed
        self.limits = Limits(workers=options.parallel or 0)
        policy = RetryPolicy(max_retries=options.max_retries, give_up_after=options.idle_timeout)
        self._retry = Retry(policy, self.flow.sleep, self._retried)

    @classmethod
    @contextmanager
    def start(cls, kind: str, options: TransferOptions, vm: str, url: str, check_mode: bool) -> Iterator[RunningJob]:
        """However the job ends, its record says so before the caller hears of it."""
        job_id = options.job_id or secrets.token_hex(16)
        record = None
        if not check_mode:
            record = JobRecord.create(options.state_dir or default_state_dir(), job_id, kind=kind, vm=vm, url=url)
        job = cls(job_id, options, record)
        try:
            yield job
        except BaseException as error:
            failure = error if isinstance(error, VmferryError) else VmferryError("internal", f"{type(error).__name__}")
            failure.phase = failure.phase or job.progress.phase
            failure.job = job.as_result() if record else None
            job._end("cancelled" if failure.kind == "cancelled" else "failed", failure)
            raise
        job._end("ready", None)

    def open_store(self, spec: StoreSpec) -> Store:
        store = open_store(spec.url, {**spec.settings, "connections": self.limits.worker_count + 2})
        timetable = parse_timetable(self.options.bandwidth_limit)
        if any(rate for _, rate in timetable.entries):
            store = LimitedStore(store, Limiter(timetable, self.flow.sleep, self.options.bandwidth_burst))
        return RetryingStore(store, self._retry)

    def supervise(self, work: Callable[[], Result]) -> Result:
        """`work` in a thread, this thread watching; TERM, INT and HUP cancel it."""
        options = self.options
        with cancel_on_signals(self.flow):
            return supervise(
                self.flow,
                self.progress,
                work,
                self._write_record,
                idle_timeout=options.idle_timeout,
                max_duration=options.max_duration,
            )

    def phase(self, name: str) -> None:
        if self.flow.error is not None:
            raise Stopped
        self.progress.enter(name)
        if self._record is not None:
            self._record.update(self.progress.snapshot(), at_once=True)

    def announce(self, sizes: Sequence[int]) -> None:
        self.progress.announce(sizes)

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
        self.log("warning", message)

    def log(self, level: str, message: str) -> None:
        if self._record is not None:
            self._record.log(level, message)

    def as_result(self) -> dict[str, str]:
        if self._record is None:
            return {}
        folder = self._record.path.parent
        return {"id": self.id, "record": str(self._record.path), "state_dir": str(folder.parent.parent)}

    def _write_record(self) -> None:
        if self._record is not None:
            self._record.update(self.progress.snapshot())

    def _retried(self, error: VmferryError, pause: float) -> None:
        self.progress.retried()
        self.log("warning", f"{error} Trying again in {pause:.1f} s.")

    def _end(self, phase: str, error: VmferryError | None) -> None:
        if self._record is None:
            return
        if error is not None:
            self._record.log("error", str(error))
        result = None if error is None else {**error.as_result(), "msg": str(error)}
        self.progress.enter(phase)
        self._record.finish(self.progress.snapshot(), phase, result)
