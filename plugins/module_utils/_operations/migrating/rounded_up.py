# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new disk, which has whole sectors or more, where the one that it was made of may end anywhere."""

from __future__ import annotations

from typing import Iterator, Sequence

from ..._blocks import BlockSource, Extent, Piece
from ..._transfer.digests import leaf_zeros
from ..._transfer.flow import Flow

_STEP = 1 << 20  # bytes read at once


class RoundedUp:
    """Plays BlockSource: of the first `size` bytes, or of as many as there are."""

    def __init__(self, disk: BlockSource, size: int) -> None:
        self._disk, self.size = disk, min(size, disk.size)

    def extents(self) -> Iterator[Extent]:
        for extent in self._disk.extents():
            if extent.offset < self.size:
                yield Extent(extent.offset, min(extent.end, self.size) - extent.offset, extent.kind)

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._disk.read_into(pieces)

    def close(self) -> None:
        self._disk.close()

    def ends_with_zeros(self, flow: Flow) -> bool:
        """Whether nothing but zeros is behind them. What is known to be zeros is not read."""
        if self._disk.size == self.size:
            return True
        with flow.on_stop(self.close):
            return all(self._is_zero(extent, flow) for extent in self._disk.extents() if extent.kind != "zero")

    def _is_zero(self, extent: Extent, flow: Flow) -> bool:
        buffer = bytearray(_STEP)
        for at in range(max(extent.offset, self.size), extent.end, _STEP):
            flow.raise_if_stopped()
            count = min(_STEP, extent.end - at)
            self._disk.read_into([(at, memoryview(buffer)[:count])])
            if any(leaf is not None for leaf in leaf_zeros(buffer, count)):
                return False
        return True
