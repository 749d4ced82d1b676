# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fixed number of equal buffers, made when first needed, then reused."""

from __future__ import annotations

from .flow import Flow


class Buffers:
    def __init__(self, flow: Flow, count: int, size: int) -> None:
        self.size = size
        self._flow, self._left = flow, count
        self._free: list[bytearray] = []

    def acquire(self) -> bytearray:
        with self._flow.changed:
            self._flow.wait(lambda: self._free or self._left)
            if self._free:
                return self._free.pop()
            self._left -= 1
        return bytearray(self.size)

    def release(self, buffer: bytearray) -> None:
        with self._flow.changed:
            self._free.append(buffer)
            self._flow.changed.notify_all()
