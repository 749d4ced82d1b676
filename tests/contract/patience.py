# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles that stores leave to others, at their plainest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import PartReceipt
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.server_copy import Earlier

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

    @property
    def kinds(self) -> list[str]:
        return [error.kind for error in self.errors]


class Meter:
    """Holds nothing back, counts everything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.taken = 0

    def take(self, nbytes: int) -> None:
        with self._lock:
            self.taken += nbytes


class KeptNotes:
    """Of a copy by a server: all of it stays, whatever failed."""

    def __init__(self) -> None:
        self.token, self.step, self.bytes_kept = "", 0, 0
        self.receipts: dict[int, PartReceipt] = {}

    def earlier(self, step: int) -> Earlier | None:
        return Earlier(self.token, dict(self.receipts)) if self.token and step == self.step else None

    def begin(self, token: str, step: int) -> None:
        self.token, self.step, self.receipts = token, step, {}

    def kept(self, count: int) -> None:
        self.bytes_kept = count

    def took(self, receipt: PartReceipt) -> None:
        self.receipts[receipt.part.number] = receipt

    def keeps(self, error: BaseException) -> bool:
        return True

    def forget(self) -> None:
        raise AssertionError("what is kept is not forgotten")
