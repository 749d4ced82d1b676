# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thread that watches a job while another one works: writes its record, and ends what stands still or must end."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, Mapping, Protocol, TypeVar

from .._errors import VmferryError
from .flow import Flow, Stopped
from .progress import Progress

Result = TypeVar("Result")
GRACE = 60.0  # seconds a stopped job has to undo what it did before its threads are left behind
_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


class Record(Protocol):
    def update(self, snapshot: Mapping[str, Any]) -> None:
        """Called every tick; writes as seldom as it likes."""


def supervise(
    flow: Flow,
    progress: Progress,
    record: Record,
    work: Callable[[], Result],
    *,
    idle_timeout: float | None = None,
    max_duration: float | None = None,
    reason_to_stop: Callable[[], str] = lambda: "",
    tick: float = 0.2,
    grace: float = GRACE,
    left_behind: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """What `work` returns, or the job's first error. Seconds; None: no limit.

    `work` runs in a thread of its own; the caller's thread, which gets the signals, only watches. `timeout` where for
    `idle_timeout` no byte moved in a phase that moves bytes, or nothing answered in one that asks, or where the whole
    takes longer than `max_duration`; `cancelled` where the flow was asked to, or where `reason_to_stop`, which is asked
    every tick, names a reason.
    Work that has not ended `grace` after it was stopped is left behind, which `left_behind` hears of; later where it
    said that it takes longer (`Flow.patient`).
    """
    job = _Job(flow, work)
    started = clock()
    stopped_at: float | None = None
    job.thread.start()
    while not job.ended.wait(tick):
        if flow.error is None:
            if reason := reason_to_stop():
                flow.request_cancel(reason)
            stopped_at = None  # it may have been forgiven
            flow.honour_cancel()
            _check_time(flow, progress, clock() - started, idle_timeout, max_duration)
        if flow.error is not None:
            stopped_at = clock() if stopped_at is None else stopped_at
            if clock() - stopped_at > max(grace, flow.patience):
                left_behind()
                break
        record.update(progress.snapshot())
    record.update(progress.snapshot())
    if "value" in job.result:  # also where a cancel came too late: what is done is done
        result: Result = job.result["value"]
        return result
    error = flow.error or job.error
    if error is None:
        raise VmferryError("internal", "The job stopped without an error.")
    if isinstance(error, VmferryError) and not error.phase:
        error.phase = progress.phase
    raise error


@contextmanager
def cancel_on_signals(flow: Flow) -> Iterator[None]:
    """TERM, INT and HUP cancel the job instead of ending the process. Only a process's main thread can do this.

    A signal that is ignored (as `nohup` sets HUP) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Dict[int, Any] = {}

    def cancel(number: int, frame: object) -> None:
        flow.request_cancel(f"it received {signal.Signals(number).name}")

    try:
        for name in _SIGNALS:
            number = getattr(signal, name)
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, cancel)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class _Job:
    """The work, its thread, and what became of it."""

    def __init__(self, flow: Flow, work: Callable[[], Any]) -> None:
        self._flow, self._work = flow, work
        self.ended = threading.Event()
        self.result: Dict[str, Any] = {}
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="vmferry-work", daemon=True)

    def _run(self) -> None:
        try:
            self.result["value"] = self._work()
        except Stopped as error:
            self.error = error
        except BaseException as error:  # noqa: BLE001  # raised again by supervise, in the thread that asked
            self.error = error
            self._flow.stop(error)
        finally:
            self.ended.set()


def _check_time(
    flow: Flow, progress: Progress, elapsed: float, idle_timeout: float | None, max_duration: float | None
) -> None:
    if max_duration is not None and elapsed > max_duration:
        flow.stop(
            VmferryError(
                "timeout",
                f"The job took longer than max_duration, {max_duration:g} s, while {progress.where}.",
                "Raise max_duration, or find out what is slow.",
                retryable=False,
            )
        )
    elif idle_timeout is not None and progress.must_move and progress.idle_for > idle_timeout:
        what = "No byte moved" if progress.moves_bytes else "Nothing answered"
        flow.stop(
            VmferryError(
                "timeout",
                f"{what} for {idle_timeout:g} s while {progress.where}.",
                "See whether the source and the store still answer, or raise idle_timeout.",
            )
        )
