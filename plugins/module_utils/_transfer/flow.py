# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All waiting happens here, so that the first error, or a cancel, wakes and stops everybody."""

from __future__ import annotations

import time
from contextlib import contextmanager
from threading import Condition
from typing import Callable, Iterator


class Stopped(Exception):
    """Somebody else failed first; that error is the one to report."""


class Flow:
    def __init__(self) -> None:
        self.changed = Condition()
        self.error: BaseException | None = None
        self.cancel_reason = ""  # set by a signal handler, which may take no lock; whoever supervises polls it
        self._turn = 0

    def request_cancel(self, reason: str) -> None:
        self.cancel_reason = self.cancel_reason or reason

    def stop(self, error: BaseException) -> None:
        with self.changed:
            self.error = self.error or error
            self.changed.notify_all()

    def wait(self, ready: Callable[[], object]) -> None:
        """With `changed` held."""
        self.changed.wait_for(lambda: self.error or ready())
        if self.error:
            raise Stopped

    def sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self.changed:
            while not self.error and (left := deadline - time.monotonic()) > 0:
                self.changed.wait(left)
            if self.error:
                raise Stopped

    def start_turns(self) -> None:
        self._turn = 0

    @contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """Runs in the order of the numbers, from 0."""
        with self.changed:
            self.wait(lambda: self._turn == number)
        yield
        with self.changed:
            self._turn += 1
            self.changed.notify_all()
