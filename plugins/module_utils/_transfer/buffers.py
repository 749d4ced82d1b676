# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory that is reused, and waited for when the budget is spent."""

from __future__ import annotations

from .flow import Flow


class Buffers:
    """Equal buffers within a budget of bytes, made when first needed. There is always one, however small the budget."""

    def __init__(self, flow: Flow, budget: int, size: int) -> None:
        self._flow, self._size = flow, size
        self.count = max(1, budget // size)
        self._unmade = self.count
        self._free: list[bytearray] = []

    def acquire(self) -> bytearray:
        """Waits until one is free. Its content is whatever was in it last."""
        return self._flow.wait(self._take)  # type: ignore[return-value]  # waits until it is not None

    def acquire_now(self) -> bytearray | None:
        """None where `acquire` would have to wait."""
        with self._flow.changing():
            return self._take()

    def release(self, buffer: bytearray) -> None:
        with self._flow.changing():
            self._free.append(buffer)

    def _take(self) -> bytearray | None:
        if self._free:
            return self._free.pop()
        if not self._unmade:
            return None
        self._unmade -= 1
        return bytearray(self._size)
