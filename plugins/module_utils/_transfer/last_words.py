# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job that ends still says to a store that answers nothing: all of it together costs a few seconds.

Without this, every object to be removed and every claim to be given up would be waited for as the data was.
"""

from __future__ import annotations

from threading import Event, Thread
from typing import Any, Callable, TypeVar

from .._errors import VmferryError
from .flow import Flow
from .retry import Retry

Result = TypeVar("Result")
LAST_WORDS = 10.0  # seconds
_SILENCE = ("network", "timeout")


def is_silence(error: BaseException | None) -> bool:
    """Whether this says that something did not answer. A limit of time that a job ran into says nothing of the kind."""
    return isinstance(error, VmferryError) and error.kind in _SILENCE and error.retryable


class LastWords:
    """As the `Retry` behind it while the job works. Once something did not answer, only threads that undo begin new
    calls, and those wait no more than `patience` seconds since the last answer, all of them together.
    """

    def __init__(self, retry: Retry, flow: Flow, patience: float = LAST_WORDS) -> None:
        self._retry, self._flow, self._patience = retry, flow, patience
        self._gave_up = self._exhausted = False

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        if not self._flow.is_shielded:
            if is_silence(self._flow.error):
                self._flow.raise_if_stopped()
            return self._patiently(function, *args)
        if self._gave_up or is_silence(self._flow.error):
            return self._briefly(function, *args)
        return self._patiently(function, *args)

    def _patiently(self, function: Callable[..., Result], *args: Any) -> Result:
        try:
            result = self._retry.call(function, *args)
        except VmferryError as error:
            self._gave_up = self._gave_up or is_silence(error)
            raise
        self._gave_up = False
        return result

    def _briefly(self, function: Callable[..., Result], *args: Any) -> Result:
        call = _Call(self._flow, lambda: self._retry.call(function, *args))
        if self._exhausted or not call.ended_within(self._patience):
            self._exhausted = True
            raise VmferryError("timeout", f"It was not waited for longer than {self._patience:g} s: nothing answers.")
        return call.outcome()


class _Call:
    """In a thread of its own, which is left behind where nobody answers."""

    def __init__(self, flow: Flow, work: Callable[[], Any]) -> None:
        self._flow, self._work = flow, work
        self._ended, self._abandoned = Event(), Event()
        self._results: list[Any] = []
        self._errors: list[BaseException] = []

    def ended_within(self, seconds: float) -> bool:
        Thread(target=self._run, name="vmferry-last-words", daemon=True).start()
        ended = self._ended.wait(seconds)
        if not ended:
            with self._flow.changing():  # it may be waiting for its next try
                self._abandoned.set()
        return ended

    def outcome(self) -> Any:
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    def _run(self) -> None:
        try:
            with self._flow.shielded(), self._flow.until(self._abandoned.is_set):
                self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that asked
            self._errors.append(error)
        finally:
            self._ended.set()
