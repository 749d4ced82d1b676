# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A limit for a call that may wait for a dead connection for ever, inside or outside of a task's own `timeout`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class NoAnswer(BaseException):
    """Not an Exception: connection plugins try again after those."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises `NoAnswer`. A task's timeout that is due earlier goes off as itself, and one due later keeps its time."""
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    if 0 < left <= seconds or threading.current_thread() is not threading.main_thread():
        yield
        return
    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - began)))


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise NoAnswer
