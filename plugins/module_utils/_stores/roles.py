# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the wrappers need from others: something that repeats a call, and something that holds bytes back."""

from __future__ import annotations

from typing import Any, Callable, Protocol, TypeVar

Result = TypeVar("Result")


class Retry(Protocol):
    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """`function(*args)`, again while it raises a retryable `VmferryError` and patience lasts; thread-safe."""


class _Once:
    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        return function(*args)


ONCE: Retry = _Once()  # repeats nothing


class Limiter(Protocol):
    def take(self, nbytes: int) -> None:
        """Return when that many bytes may move; thread-safe."""
