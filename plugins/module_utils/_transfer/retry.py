# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Again, after a while: exponential backoff with full jitter, for what may go through later.

https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

import random as random_numbers
import time
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from .._errors import VmferryError

Result = TypeVar("Result")
OnRetry = Callable[[VmferryError, float], object]


@dataclass(frozen=True)
class RetryPolicy:
    """Seconds. `give_up_after` counts from the first failure of a call; a wait that would end later is not begun."""

    max_retries: int = 3
    base: float = 1.0
    cap: float = 30.0
    give_up_after: float | None = None


class Retry:
    """Thread-safe. `on_retry` gets the error and the seconds until the next try; `on_answer` hears of every success."""

    def __init__(
        self,
        policy: RetryPolicy,
        sleep: Callable[[float], object] = time.sleep,
        on_retry: OnRetry | None = None,
        random: Callable[[], float] = random_numbers.random,
        clock: Callable[[], float] = time.monotonic,
        on_answer: Callable[[], object] = lambda: None,
    ) -> None:
        self._policy, self._sleep, self._on_retry, self._on_answer = policy, sleep, on_retry, on_answer
        self._random, self._clock = random, clock

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """`function(*args)`; the error of the last try where patience ends, a permanent one at once."""
        failures = 0
        first_failure = 0.0
        while True:
            try:
                result = function(*args)
                self._on_answer()
                return result
            except VmferryError as error:
                now = self._clock()
                first_failure = first_failure if failures else now
                failures += 1
                delay = self._delay(error, failures)
                if not error.retryable or failures > self._policy.max_retries:
                    raise
                budget = self._policy.give_up_after
                if budget is not None and now + delay - first_failure > budget:
                    raise
                if self._on_retry is not None:
                    self._on_retry(error, delay)
            self._sleep(delay)

    def _delay(self, error: VmferryError, failures: int) -> float:
        exponent = min(failures - 1, 62)
        backoff = self._random() * min(self._policy.cap, self._policy.base * 2**exponent)
        return max(backoff, error.retry_after or 0.0)
