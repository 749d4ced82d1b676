# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One transfer under way: its record, its progress, and what its store calls go through (bandwidth, then retry)."""

from __future__ import annotations

import secrets
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence, TypeVar

from .._errors import VmferryError
from .._providers.base import Provider
from .._stores.base import Store, StoreCapabilities
from .._stores.limited import LimitedStore
from .._stores.open import open_store
from .._stores.retrying import RetryingStore
from .._transfer.flow import Flow
from .._transfer.limiter import Limiter
from .._transfer.limits import PATH_BUDGET, STORE_BUDGET, Limits
from .._transfer.orders import Orders
from .._transfer.owner import current_owner
from .._transfer.progress import Progress
from .._transfer.record import JobRecord, default_state_dir
from .._transfer.retry import Retry, RetryPolicy
from .._transfer.slots import Slots
from .._transfer.supervise import cancel_on_signals, supervise
from .._transfer.timetable import parse_timetable
from .requests import StoreSpec, TransferOptions

Result = TypeVar("Result")
READ_TIMEOUT = 60.0  # seconds without a byte of an answer
SPARE_CONNECTIONS = 2  # for the lease and the digest file, beside those of the workers


def state_dir_of(options: TransferOptions) -> Path:
    return Path(options.state_dir) if options.state_dir else default_state_dir()


class _NoRecord:
    def update(self, snapshot: Mapping[str, Any]) -> None:
        """Check mode leaves nothing behind."""


class RunningJob:
    """In check mode it has no record: nothing is written anywhere."""

    def __init__(self, job_id: str, options: TransferOptions, record: JobRecord | None, phases: Mapping[str, float]):
        """`phases`: those that move bytes, and how long a byte takes in each, relative to the others."""
        self.id, self.options = job_id, options
        self._record = record
        self.flow, self.progress = Flow(), Progress(phases)
        self.owner: Mapping[str, Any] = current_owner()
        self.warnings: list[str] = []
        self.undone = True  # False once something that had to be removed may still be there
        self._moved: dict[str, Any] = {}  # the disks, as a finished job's record tells of them
        self._capabilities: StoreCapabilities | None = None
        self.limits = Limits.within(PATH_BUDGET, any_offset=True, workers=options.parallel)
        policy = RetryPolicy(max_retries=options.max_retries, give_up_after=options.idle_timeout)
        self._retry = Retry(policy, self.flow.sleep, self._retried)
        self._orders = Orders(record.folder, options.controller_timeout) if record else None
        self._held = ExitStack()  # the slot

    @classmethod
    @contextmanager
    def start(
        cls, kind: str, options: TransferOptions, vm: str, url: str, phases: Mapping[str, float], check_mode: bool
    ) -> Iterator[RunningJob]:
        """However the job ends, its record says so before the caller hears of it."""
        job_id = options.job_id or secrets.token_hex(16)
        record = None
        if not check_mode:
            record = JobRecord.create(state_dir_of(options), job_id, kind, vm=vm, url=url)
        job = cls(job_id, options, record, phases)
        try:
            yield job
        except VmferryError as error:
            job._fail(error)
            raise
        except BaseException as error:
            job._fail(VmferryError("internal", f"Unexpected {type(error).__name__}."))
            raise
        finally:
            job._held.close()
        if record is not None:
            job.progress.enter("ready")
            record.update({**job.progress.snapshot(), **job._moved})
            record.finish("ready")

    @property
    def capabilities(self) -> StoreCapabilities:
        """Of the store, which must have been probed."""
        if self._capabilities is None:
            raise VmferryError("internal", "The store was not probed.")
        return self._capabilities

    @capabilities.setter
    def capabilities(self, found: StoreCapabilities) -> None:
        self._capabilities = found

    def open_store(self, spec: StoreSpec) -> Store:
        path = spec.url.startswith(("/", "file:"))
        budget = PATH_BUDGET if path else STORE_BUDGET
        self.limits = Limits.within(budget, any_offset=path, workers=self.options.parallel)
        store = open_store(spec.url, {**self._patience(), **spec.settings}, self.progress.alive)
        timetable = parse_timetable(self.options.bandwidth_limit)
        if not timetable.unlimited:
            burst, alive = self.options.bandwidth_burst, self.progress.alive
            limiter = Limiter(timetable, burst, self.flow.sleep, waiting=alive)
            store = LimitedStore(store, limiter, self.progress.passing)
        return RetryingStore(store, self._retry)

    def _patience(self) -> dict[str, Any]:
        """A store that stands still is not waited for longer than the job would be."""
        return {
            "parallel": self.limits.workers + SPARE_CONNECTIONS,
            "read_timeout": min(READ_TIMEOUT, self.options.idle_timeout),
        }

    def wait_for_slot(self, provider: Provider) -> None:
        """Until the job's end one of `max_jobs` slots is its own. The wait is no part of `max_duration`."""
        slots = Slots(state_dir_of(self.options), provider.account, self.options.max_jobs or provider.max_jobs)
        before = self.progress.phase

        def wait() -> None:
            self.phase("pending")
            self._note(f"waiting for one of {slots.count} slots of {slots.account}")

        self._watch(lambda: self._held.enter_context(slots.taken(self.flow.sleep, wait)))
        if self.progress.phase != before:
            self._note("")
            self.phase(before)

    def supervise(self, work: Callable[[], Result], made: Callable[[], Result | None] = lambda: None) -> Result:
        """`work` in a thread, this thread watching; TERM, INT and HUP cancel it, and so does whoever may.

        `made` gives the result once nothing can take it back, although `work` has not returned yet.
        """
        options = self.options
        try:
            return self._watch(work, idle_timeout=options.idle_timeout, max_duration=options.max_duration)
        except VmferryError as error:
            result = made()
            if result is None:
                raise
            self.warn(f"What was made is whole, but it could not all be left in order: {error}")
            return result

    def _watch(
        self, work: Callable[[], Result], idle_timeout: float | None = None, max_duration: float | None = None
    ) -> Result:
        asked = self._orders.reason_to_stop if self._orders is not None else lambda: ""
        with cancel_on_signals(self.flow):
            return supervise(
                self.flow,
                self.progress,
                self._record or _NoRecord(),
                work,
                idle_timeout=idle_timeout,
                max_duration=max_duration,
                reason_to_stop=asked,
            )

    def _note(self, note: str) -> None:
        """A sentence for whoever watches, where the phase alone does not say what the job does."""
        if self._record is not None:
            self._record.update({"note": note}, now=True)

    def phase(self, name: str, disks: Sequence[tuple[str, int]] = ()) -> None:
        """`disks`: name and size of what the phase goes through."""
        self.flow.raise_if_stopped()
        self.progress.enter(name, [self.progress.new_disk(*disk) for disk in disks])
        if disks:
            self._moved = {
                "disk": disks[-1][0],
                "disk_number": len(disks),
                "disk_count": len(disks),
                "bytes_total": sum(size for _name, size in disks),
            }
        if self._record is not None:
            self._record.update(self.progress.snapshot())

    @contextmanager
    def undoing(self, what: str) -> Iterator[None]:
        """Inside, this thread waits for the store although the job was stopped. What fails is a warning: the error
        that is being undone is the one to be told."""
        with self.flow.shielded():
            try:
                yield
            except VmferryError as error:
                self.undone = False
                self.warn(f"{what} could not be removed: {error}")

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
        record = self._record.folder / "record.json"
        return {"id": self.id, "record": str(record), "state_dir": str(state_dir_of(self.options))}

    def _retried(self, error: VmferryError, pause: float) -> None:
        self.progress.retried()
        self.log("warning", f"{error} Trying again in {pause:.1f} s.")

    def _fail(self, error: VmferryError) -> None:
        error.phase = error.phase or self.progress.phase
        if self._record is None:
            return
        error.job = self.as_result()
        self._record.log("error", str(error))
        self._record.update(self.progress.snapshot())
        self._record.finish("cancelled" if error.kind == "cancelled" else "failed", error=error)
