# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Once more, a little later: exponential backoff with full jitter, as long as it may help."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from .._errors import VmferryError

Result = TypeVar("Result")


@dataclass(frozen=True)
class RetryPolicy:
    max_retries: int = 3
    base: float = 1.0  # seconds; doubles with every retry
    cap: float = 30.0
    give_up_after: float = 300.0  # seconds since the first failure of a call


class Retry:
    def __init__(
        self,
        policy: RetryPolicy,
        sleep: Callable[[float], None],
        on_retry: Callable[[VmferryError, float], None] = lambda error, pause: None,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy, self._sleep, self._on_retry = policy, sleep, on_retry
        self._jitter, self._clock = jitter, clock

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Again while it raises what is retryable. The last error is the one that is raised."""
        first_failure: float | None = None
        retries = 0
        while True:
            try:
                return function(*args)
            except VmferryError as error:
                now = self._clock()
                first_failure = now if first_failure is None else first_failure
                pause = self._pause(retries, error)
                spent = now - first_failure + pause
                if not error.retryable or retries >= self._policy.max_retries or spent > self._policy.give_up_after:
                    raise
                retries += 1
                self._on_retry(error, pause)
                self._sleep(pause)

    def _pause(self, retries: int, error: VmferryError) -> float:
        """Full jitter: anything up to the backoff, so that many clients do not come back at once."""
        backoff = min(self._policy.cap, self._policy.base * 2.0**retries) * self._jitter()
        return max(backoff, error.retry_after or 0.0)
