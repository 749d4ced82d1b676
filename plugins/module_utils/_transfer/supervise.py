# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""While threads move bytes, the main thread watches: it keeps the record, and ends what stands still or was cancelled.

Signal handlers only run in the main thread, so that thread must not be one that waits on a socket.
"""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from threading import Thread
from types import FrameType
from typing import Callable, Iterator, TypeVar

from .._errors import VmferryError
from .flow import Flow, Stopped
from .progress import MOVING, Progress

Result = TypeVar("Result")
TICK = 0.2  # seconds
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def cancel_on_signals(flow: Flow) -> Iterator[None]:
    """TERM, INT and HUP ask for a cancel instead of ending the process; to be used in the main thread."""

    def ask(number: int, _: FrameType | None) -> None:
        flow.request_cancel(f"it got {signal.Signals(number).name}")

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def supervise(
    flow: Flow,
    progress: Progress,
    work: Callable[[], Result],
    on_tick: Callable[[], object],
    *,
    idle_timeout: float,
    max_duration: float | None = None,
) -> Result:
    """`work` runs in a thread of its own. Raises what it raises, or what made it stop."""
    results: list[Result] = []

    def run() -> None:
        try:
            results.append(work())
        except Stopped:
            pass
        except BaseException as error:  # raised again below, in the thread that asked
            flow.stop(error)

    thread = Thread(target=run, name="work", daemon=True)
    started = time.monotonic()
    thread.start()
    while thread.is_alive():
        thread.join(TICK)
        on_tick()
        if flow.error is None:
            reason = _reason_to_stop(flow, progress, time.monotonic() - started, idle_timeout, max_duration)
            if reason is not None:
                flow.stop(reason)
    if results:
        return results[0]
    raise flow.error or VmferryError("internal", "The transfer ended without a result.")


def _reason_to_stop(
    flow: Flow, progress: Progress, elapsed: float, idle_timeout: float, max_duration: float | None
) -> VmferryError | None:
    if flow.cancel_reason:
        return VmferryError("cancelled", f"The job was cancelled: {flow.cancel_reason}.")
    if max_duration is not None and elapsed > max_duration:
        return VmferryError("timeout", f"The job took longer than max_duration, {max_duration:g} s.", retryable=False)
    idle = time.monotonic() - progress.moved_at
    if progress.phase in MOVING and idle > idle_timeout:
        return VmferryError(
            "timeout",
            f"No byte moved for {idle:.0f} s while {progress.phase}.",
            "Look at the store's and the provider's health; raise idle_timeout if they are only slow.",
        )
    return None
