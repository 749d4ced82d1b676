# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One transfer under way: its record, its progress, and what ends it."""

from __future__ import annotations

import secrets
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, ContextManager, Iterator, Mapping, Protocol, Sequence, TypeVar

from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..._providers.base import ExportSession, ImportSession
from ..._stores.base import Store, StoreCapabilities
from ..._transfer.flow import Flow
from ..._transfer.limits import Limits
from ..._transfer.old_records import remove_old_jobs
from ..._transfer.orders import Orders
from ..._transfer.owner import current_owner
from ..._transfer.priority import yield_to_others
from ..._transfer.progress import Progress
from ..._transfer.record import JobRecord, default_state_dir, without_secrets
from ..._transfer.slots import Slots
from ..._transfer.supervise import cancel_on_signals, supervise
from .keeping import Keeping, tell_what_is_kept
from .requests import StoreSpec, TransferOptions
from .store_access import StoreAccess

Result = TypeVar("Result")
Session = TypeVar("Session", ExportSession, ImportSession)
ASK_GRACE = 3.0  # seconds for a question that was stopped: nothing has to be undone yet


class Account(Protocol):
    """What must not be overrun: a provider, or a store."""

    @property
    def account(self) -> str: ...

    @property
    def max_jobs(self) -> int: ...


def state_dir_of(options: TransferOptions) -> Path:
    return Path(options.state_dir) if options.state_dir else default_state_dir()


class _NoRecord:
    def update(self, snapshot: Mapping[str, Any]) -> None:
        """Check mode leaves nothing behind."""


class RunningJob:
    """In check mode it has no record: nothing is written anywhere."""

    def __init__(
        self,
        job_id: str,
        options: TransferOptions,
        record: JobRecord | None,
        phases: Mapping[str, float],
        about: Mapping[str, str] | None = None,
    ):
        """`phases`: those that move bytes, and how long a byte takes in each, relative to the others. `about`: vm, kind
        and url."""
        self.id, self.options, self._about = job_id, options, about or {}
        self._record = record
        self.flow, self.progress = Flow(), Progress(phases)
        self.owner: Mapping[str, Any] = current_owner()
        self.warnings: list[str] = []
        self.keeping = Keeping()
        self.unfinished: Callable[[], tuple[str, float]] = lambda: ("", 0.0)  # the export, and until when it is held
        self.undone = True  # False once something in the store that had to be removed may still be there
        self._left = False  # whether the provider may still have something that had to be removed
        self._moved: dict[str, Any] = {}  # the disks, as a finished job's record tells of them
        self._capabilities: StoreCapabilities | None = None
        # Check mode moves next to nothing, and leaves nothing behind: it shares no bucket.
        shared_in = None if record is None else state_dir_of(options)
        self._access = StoreAccess(options, self.flow, self.progress, self._retried, shared_in)
        self.limits = Limits.of_transfer(any_offset=True, workers=options.parallel)
        self._orders = Orders(record.folder, options.controller_timeout) if record else None
        self._held = ExitStack()  # the slot, and the share of the bandwidth
        self._held.callback(self._access.close)
        self._slot = self._held.enter_context(ExitStack())

    @classmethod
    @contextmanager
    def start(
        cls, kind: str, options: TransferOptions, vm: str, url: str, phases: Mapping[str, float], check_mode: bool
    ) -> Iterator[RunningJob]:
        """However the job ends, its record says so before the caller hears of it."""
        yield_to_others(options.priority)  # before there are threads, which inherit it
        job_id = options.job_id or secrets.token_hex(16)
        record = None
        if not check_mode:
            record = JobRecord.create(state_dir_of(options), job_id, kind, vm=vm, url=url, watcher=options.watcher)
            remove_old_jobs(state_dir_of(options))
        job = cls(job_id, options, record, phases, {"vm": vm, "kind": kind, "url": without_secrets(url)})
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
            record.finish("ready", {**job.progress.snapshot(), **job._moved})

    @property
    def capabilities(self) -> StoreCapabilities:
        """Of the store, which must have been probed."""
        if self._capabilities is None:
            raise VmferryError("internal", "The store was not probed.")
        return self._capabilities

    @capabilities.setter
    def capabilities(self, found: StoreCapabilities) -> None:
        self._capabilities = found

    def open_store(self, spec: StoreSpec, *, limited: bool = True) -> Store:
        store, self.limits = self._access.open(spec, limited=limited)
        return store

    def open_source(self, spec: StoreSpec) -> Store:
        """That is read, beside the one that is written, whose bytes are counted."""
        return self._access.open(spec, limited=False)[0]

    def limited(self, source: BlockSource) -> BlockSource:
        """No faster than the task says, where the store does not see to it."""
        return self._access.limited(source)

    def wait_for_slot(self, account: Account) -> None:
        """One of `max_jobs` slots is its own, until it ends or leaves it. The wait is no part of `max_duration`."""
        slots = Slots(state_dir_of(self.options), account.account, self.options.max_jobs or account.max_jobs)
        before = self.progress.phase

        def wait() -> None:
            self.phase("pending")
            self.note(f"waiting for one of {slots.count} slots of {slots.account}")

        self._watch(lambda: self._slot.enter_context(slots.taken(self.flow.sleep, wait)))
        if self.progress.phase != before:
            self.progress.enter(before)
            self.note("")

    def leave_slot(self) -> None:
        """To whoever waits for one."""
        self._slot.close()

    def ask(self, question: Callable[[], Result]) -> Result:
        """As `supervise`, for what changes nothing and may be left behind at once where nobody answers."""
        options = self.options
        return self._watch(question, options.idle_timeout, options.max_duration, ASK_GRACE)

    def follow(self, other: str, work: Callable[[], Result], progress: Progress) -> Result:
        """As `ask`, for as long as another job needs. `progress` is that one's, which this one's record shows."""
        self._show_followed(other, f"following the job {other}")
        result = self._watch(work, max_duration=self.options.max_duration, grace=ASK_GRACE, progress=progress)
        self._show_followed("", "")
        return result

    def _show_followed(self, other: str, note: str) -> None:
        if self._record is not None:
            self._record.update({"follows": other, "note": note}, now=True)

    def supervise(self, work: Callable[[], Result], made: Callable[[], Result | None] = lambda: None) -> Result:
        """`work` in a thread, this thread watching; TERM, INT and HUP cancel it, and so does whoever may.

        `made` gives the result once nothing can take it back, although `work` has not returned yet.
        """

        def left_behind() -> None:  # as if it were killed now: what outlives that is kept
            self._left = True
            if self.flow.error is not None and self.keeps(None):
                tell_what_is_kept(self.flow.error, *self.unfinished())

        options = self.options
        try:
            return self._watch(work, options.idle_timeout, options.max_duration, left_behind=left_behind)
        except VmferryError as error:
            with self.flow.shielded():
                result = made()
            if result is None:
                raise
            self.warn(f"What was made is whole, but it could not all be left in order: {error}")
            return result

    def _watch(
        self,
        work: Callable[[], Result],
        idle_timeout: float | None = None,
        max_duration: float | None = None,
        grace: float | None = None,
        left_behind: Callable[[], object] = lambda: None,
        progress: Progress | None = None,
    ) -> Result:
        asked = self._orders.reason_to_stop if self._orders is not None else lambda: ""
        chosen: dict[str, Any] = {} if grace is None else {"grace": grace}
        with cancel_on_signals(self.flow):
            return supervise(
                self.flow,
                progress or self.progress,
                self._record or _NoRecord(),
                work,
                idle_timeout=idle_timeout,
                max_duration=max_duration,
                reason_to_stop=asked,
                left_behind=left_behind,
                **chosen,
            )

    def concerns(self, vm: str) -> None:
        """Of a job that learns from the store which VM it is about."""
        self._about = {**self._about, "vm": vm}
        if self._record is not None:
            self._record.update({"vm": vm}, now=True)

    def going_on(self) -> None:
        """For work that moves no bytes to anywhere: a sign of life, and the place where it hears of a stop."""
        self.flow.raise_if_stopped()
        self.progress.alive()

    def note(self, note: str) -> None:
        """A sentence for whoever watches, where the phase alone does not say what the job does."""
        if self._record is not None:
            self._record.update({"note": note}, now=True)

    def tell(self, **fields: Any) -> None:
        """In the record, for the lines of whoever watches: `resumed`, an export and its `bytes_kept`; `outcome`."""
        if self._record is not None:
            self._record.update(fields, now=True)

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

    @contextmanager
    def session(self, opened: ContextManager[Session]) -> Iterator[Session]:
        """A provider's. What it warns of, or raises, while an error is being undone may be left there."""
        stopped: BaseException | None = None
        said: list[str] = []
        try:
            with opened as session:
                try:
                    yield session
                except BaseException as error:
                    stopped, said = error, list(session.warnings)
                    raise
        except BaseException as error:
            if stopped is not None:
                late = session.warnings[len(said) :]
                self._left = self._left or error is not stopped or bool(late)
                for warning in late:
                    self.warn(warning)
            raise

    def begin_anew(self) -> None:
        """What was left could not be gone on with, and is undone."""
        self.flow.forgive()
        self.keeping.is_at_stake("nothing")

    def leaves_something(self) -> None:
        """At the provider, for whoever comes next."""
        self._left = True

    def keeps(self, error: BaseException | None) -> bool:
        """Whether what was made so far stays for the next run. `error` is what ends the job, or follows from that."""
        ordered = self.flow.cancel_ordered or (self._orders is not None and self._orders.was_asked)
        return self.keeping.keeps(self.flow.error or error, ordered)

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
        self.log("warning", message)

    def log(self, level: str, message: str) -> None:
        if self._record is not None:
            self._record.log(level, message)

    def as_result(self) -> dict[str, str]:
        """Also of a job that nobody watches, whose failure would not say which VM it was about."""
        if self._record is None:
            return dict(self._about)
        return {
            "id": self.id,
            **self._about,
            "record": str(self._record.folder / "record.json"),
            "state_dir": str(state_dir_of(self.options)),
        }

    def _retried(self, error: VmferryError, pause: float) -> None:
        self.progress.retried()
        self.log("warning", f"{error} Trying again in {pause:.1f} s.")

    def _fail(self, error: VmferryError) -> None:
        error.phase = error.phase or self.progress.phase
        error.job = self.as_result()
        if self._record is None:
            return
        self._record.log("error", str(error))
        ended = "cancelled" if error.kind == "cancelled" else "failed"
        kept = {"kept": error.done["kept"]} if "kept" in error.done else {}
        snapshot = {**self.progress.snapshot(), **kept}
        self._record.finish(ended, snapshot, error=error, undone=self.undone and not self._left)
