# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two roles that stores leave to others, at their plainest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError

Result = TypeVar("Result")


class Patience:
    """Tries at once again, so many times; remembers what went wrong."""

    def __init__(self, attempts: int = 4) -> None:
        self._attempts = attempts
        self.errors: list[VmferryError] = []

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        for attempt in range(1, self._attempts + 1):
            try:
                return function(*args)
            except VmferryError as error:
                self.errors.append(error)
                if not error.retryable or attempt == self._attempts:
                    raise
        raise AssertionError("the loop returns or raises")


class Meter:
    """Holds nothing back, counts everything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.taken = 0

    def take(self, nbytes: int) -> None:
        with self._lock:
            self.taken += nbytes
