# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting, in one place: the first error, or a cancel, wakes everybody and stops everybody."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Condition, local
from typing import Callable, Iterator, TypeVar

from .._errors import VmferryError

T = TypeVar("T")


class Stopped(Exception):
    """Work ends here because something else failed; `Flow.error` is what to report."""


class Flow:
    """One job's threads. `error` is the first failure, never overwritten by those that follow from it."""

    def __init__(self) -> None:
        self._changed = Condition()  # on an RLock: whoever changes something may also wait
        self._error: BaseException | None = None
        self._hooks: list[Callable[[], object]] = []
        self._own = local()  # of each thread: `shielded` and `ended`
        self.patience = 0.0  # seconds, more than whoever watches the job would give it once it was stopped
        self.cancel_reason = ""
        self.cancel_ordered = False  # by somebody who wants nothing of it

    @property
    def error(self) -> BaseException | None:
        return self._error

    def wait(self, ready: Callable[[], T]) -> T:
        """The first true value of `ready`, which is called with the lock held, so it may take what it found."""
        with self._changed:
            found: T = self._changed.wait_for(lambda: self._stops_me() or ready())  # type: ignore[assignment]
            self.raise_if_stopped()
            return found

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Change what others wait for."""
        with self._changed:
            yield
            self._changed.notify_all()

    def sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(self._stops_me, timeout=seconds)
            self.raise_if_stopped()

    def raise_if_stopped(self) -> None:
        if self._stops_me():
            raise Stopped

    def stop(self, error: BaseException) -> None:
        """The first call decides what is reported; it also runs the hooks of `on_stop`, in the caller's thread."""
        with self._changed:
            if self._error is not None:
                return
            self._error = error
            hooks = list(self._hooks)
            self._changed.notify_all()
        for hook in hooks:
            hook()

    def forgive(self) -> None:
        """What stopped everybody is seen to, and all threads but the caller have ended: there is another try."""
        with self._changed:
            self._error = None

    @contextmanager
    def on_stop(self, hook: Callable[[], object]) -> Iterator[None]:
        """While inside, a stop calls `hook`, which wakes a thread that waits elsewhere (shuts a socket down).

        It must not raise. On a flow that has stopped already it is called at once.
        """
        with self._changed:
            self._hooks.append(hook)
            late = self._error is not None
        if late:
            hook()
        try:
            yield
        finally:
            with self._changed:
                self._hooks.remove(hook)

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """What is under way inside can be undone only once it has ended. A job that is stopped meanwhile is not left
        behind before so many seconds, also with what follows."""
        before, self.patience = self.patience, max(self.patience, seconds)
        try:
            yield
        finally:
            if self._error is None:
                self.patience = before

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """For undoing: inside, this thread's waits and sleeps are no longer cut short by the error being undone."""
        before = self.is_shielded
        self._own.shielded = True
        try:
            yield
        finally:
            self._own.shielded = before

    @property
    def is_shielded(self) -> bool:
        """Whether this thread is undoing something."""
        return bool(getattr(self._own, "shielded", False))

    @contextmanager
    def until(self, ended: Callable[[], bool]) -> Iterator[None]:
        """Inside, this thread's waits and sleeps end, as if it were stopped, once `ended` is true.

        Whoever makes it true does so within `changing`.
        """
        self._own.ended = ended
        try:
            yield
        finally:
            del self._own.ended

    def request_cancel(self, reason: str, ordered: bool = False) -> None:
        """May be called by a signal handler: it takes no lock, which the interrupted thread might hold.

        Whoever watches the job (`supervise`) sees it and stops the flow.
        """
        self.cancel_ordered = self.cancel_ordered or ordered
        self.cancel_reason = self.cancel_reason or reason

    def honour_cancel(self) -> None:
        if self.cancel_reason and self._error is None:
            self.stop(VmferryError("cancelled", f"The job was cancelled: {self.cancel_reason}."))

    def _stops_me(self) -> bool:
        ended = getattr(self._own, "ended", None)
        if ended is not None and ended():
            return True
        return self._error is not None and not self.is_shielded


class Turns:
    """Numbered steps that happen one after the other, whichever thread gets there first."""

    def __init__(self, flow: Flow) -> None:
        self._flow, self._next = flow, 0

    @contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """A step that raises keeps its turn: those after it wait until the flow is stopped."""
        self._flow.wait(lambda: self._next == number)
        yield
        with self._flow.changing():
            self._next += 1
