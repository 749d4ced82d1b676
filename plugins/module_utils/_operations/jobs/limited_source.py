# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that is read from a file of this host by another program, no faster than the task says."""

from __future__ import annotations

from typing import Iterator, Sequence

from ..._blocks import BlockSource, Extent, Piece
from ..._stores.limited import Gate


class LimitedSource:
    """Plays BlockSource."""

    def __init__(self, source: BlockSource, gate: Gate) -> None:
        self._source, self._gate = source, gate

    @property
    def size(self) -> int:
        return self._source.size

    def extents(self) -> Iterator[Extent]:
        return self._source.extents()

    def read_into(self, pieces: Sequence[Piece]) -> None:
        with self._gate.let(sum(len(buffer) for _unused, buffer in pieces)):
            self._source.read_into(pieces)

    def close(self) -> None:
        self._source.close()
