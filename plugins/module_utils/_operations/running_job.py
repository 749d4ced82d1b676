# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One transfer under way: its record, its progress, and what its store calls go through (retry, then bandwidth)."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Mapping, Sequence, TypeVar

from .._errors import VmferryError
from .._stores.base import Store, StoreCapabilities
from .._stores.limited import LimitedStore
from .._stores.open import open_store
from .._stores.retrying import RetryingStore
from .._transfer.flow import Flow
from .._transfer.limiter import Limiter, parse_timetable
from .._transfer.progress import Progress
from .._transfer.record import JobRecord, default_state_dir, is_alive, this_process
from .._transfer.retry import Retry, RetryPolicy
from .._transfer.supervise import cancel_on_signals, supervise
from .requests import StoreSpec, TransferOptions

Result = TypeVar("Result")


class RunningJob:
    """In check mode it has no record: nothing is written anywhere."""

    capabilities: StoreCapabilities | None = None

    def __init__(self, job_id: str, options: TransferOptions, record: JobRecord | None) -> None:
        self.id, self.options = job_id, options
        self._record = record
        self.flow, self.progress = Flow(), Progress()
        self.owner: Mapping[str, Any] = this_process()
        self.warnings: list[str] = []
        self.retries = 0
        policy = RetryPolicy(max_retries=options.max_retries, give_up_after=options.idle_timeout)
        self._retry = Retry(policy, sleep=self.flow.sleep, on_retry=self._retried)

    @classmethod
    @contextmanager
    def start(cls, kind: str, options: TransferOptions, vm: str, url: str, check_mode: bool) -> Iterator[RunningJob]:
        """Whatever ends the job is in its record before it goes on to the caller."""
        job_id = options.job_id or secrets.token_hex(16)
        record = None
        if not check_mode:
            record = JobRecord.create(options.state_dir or default_state_dir(), job_id, kind=kind, vm=vm, url=url)
        job = cls(job_id, options, record)
        try:
            yield job
        except BaseException as error:
            if isinstance(error, VmferryError):
                error.phase = error.phase or job.progress.phase
            job._finish("cancelled" if getattr(error, "kind", "") == "cancelled" else "failed", error)
            if record is not None:
                error.job = job.as_result()  # type: ignore[attr-defined]
            raise
        job._finish("ready", None)
