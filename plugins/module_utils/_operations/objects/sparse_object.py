# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object of which some bytes are known to be zeros: those are not asked for."""

from __future__ import annotations

from bisect import bisect_right
from threading import Lock

from ..._blocks import ObjectInfo
from ..._stores.base import Store
from .byte_sources import StoredObject


class SparseObject(StoredObject):
    """Where the holes are, is asked before the first byte. One that comes meanwhile makes it another version, which
    whoever reads asks for in the end."""

    def __init__(self, store: Store, info: ObjectInfo) -> None:
        super().__init__(store, info)
        self._asking = Lock()
        self._starts: list[int] | None = None  # of the holes, in order
        self._ends: list[int] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        starts, at = self._holes(), 0
        while at < len(buffer):
            here = offset + at
            index = bisect_right(starts, here)
            hole = self._ends[index - 1] if index and self._ends[index - 1] > here else here
            if hole > here:
                end = min(hole - offset, len(buffer))
                buffer[at:end] = bytes(end - at)
            else:
                end = min(starts[index] - offset, len(buffer)) if index < len(starts) else len(buffer)
                super().read_into(here, buffer[at:end])
            at = end

    def _holes(self) -> list[int]:
        with self._asking:
            if self._starts is None:
                found = [each for each in self._store.extents(self._info.key, self.size) if each.kind == "zero"]
                self._ends = [each.offset + each.length for each in found]
                self._starts = [each.offset for each in found]
            return self._starts
