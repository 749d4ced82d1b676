# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of what can only be written from its beginning to its end: from any thread, taken in their order."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .._blocks import LEAF, Part, PartReceipt
from .._errors import VmferryError
from .flow import Flow


class OrderedRules:
    """Plays PartRules: nothing is asked of parts, but they are handed over in pieces where they get large."""

    max_parts = 10_000
    min_part = LEAF
    max_part = max_object = 1 << 62
    joins_pieces = True


class OrderedParts(ABC):
    """What StreamWriter and PieceWriter have in common here. `size`: of all that was taken, in bytes."""

    any_offset = False
    token = ""

    def __init__(self, flow: Flow, piece_size: int) -> None:
        self._flow, self._piece_size = flow, -(-piece_size // LEAF) * LEAF
        self.size = 0

    @abstractmethod
    def _append(self, data: memoryview) -> None:
        """What comes next. Adds to `size`, within `Flow.changing`, once the next one may be taken."""

    def write_part(self, part: Part, data: memoryview) -> str:
        self._in_turn(part.offset, data)
        return ""

    def write_piece(self, part: Part, number: int, data: memoryview) -> None:
        self._in_turn(part.offset + (number - 1) * self._piece_size, data)

    def join_pieces(self, part: Part) -> str:
        return ""

    def write_at(self, offset: int, data: memoryview) -> None:
        raise VmferryError("internal", "What is written in order takes nothing at a place of its own.")

    def confirms(self, receipt: PartReceipt) -> bool:
        return False

    def _in_turn(self, offset: int, data: memoryview) -> None:
        self._flow.wait(lambda: self.size == offset)
        self._append(data)
