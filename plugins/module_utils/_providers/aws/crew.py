# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Threads that ask AWS for many things at once, and whom nobody waits for any longer than for what they bring."""

from __future__ import annotations

from collections import deque
from threading import Condition, Event, Lock, Thread
from typing import Any, Callable, Deque, Generic, List, Optional, TypeVar

from ..._errors import VmferryError

Result = TypeVar("Result")


class Task(Generic[Result]):
    """Done once: by the thread that works on it, or by whoever gives it up first."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work: Optional[Callable[[], Result]] = work
        self._lock = Lock()
        self._done = Event()
        self._value: List[Result] = []
        self._error: Optional[BaseException] = None

    @property
    def done(self) -> bool:
        return self._done.is_set()

    @property
    def failed(self) -> bool:
        return self.done and self._error is not None

    def run(self) -> None:
        work = self._work
        if work is None or self.done:
            return
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001  # raised again by `result`, in the thread that asks
            self._settle(None, error)
        else:
            self._settle([value], None)

    def give_up(self, error: BaseException) -> None:
        """Whoever waits for it fails at once."""
        self._settle(None, error)

    def result(self) -> Result:
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value[0]

    def _settle(self, value: Optional[List[Result]], error: Optional[BaseException]) -> None:
        with self._lock:
            if self.done:
                return
            self._value, self._error, self._work = value or [], error, None
            self._done.set()


class Crew:
    """So many threads at the most, each begun when there is work for it. They end no process late: a request that
    nobody answers is left behind."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._changed = Condition()
        self._waiting: Deque[Task[Any]] = deque()
        self._threads = self._idle = 0
        self._closed = False

    def add(self, task: Task[Any], first: bool = False) -> None:
        """`first`: somebody waits for it already."""
        with self._changed:
            if self._closed:
                task.give_up(VmferryError("cancelled", "Nothing is asked of AWS any more."))
                return
            if first:
                self._waiting.appendleft(task)
            else:
                self._waiting.append(task)
            if self._idle < len(self._waiting) and self._threads < self._count:
                self._threads += 1
                Thread(target=self._work, name=f"vmferry-aws-{self._threads}", daemon=True).start()
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
            self._changed.notify_all()
        for task in waiting:
            task.give_up(VmferryError("cancelled", "Nothing is asked of AWS any more."))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._idle -= 1
                if not self._waiting:
                    return
                task = self._waiting.popleft()
            task.run()
