# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an object is cut into parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .._blocks import LEAF, Part
from .._errors import VmferryError

MAX_RECEIPTS = 10_000  # parts of one object, whatever the store takes: their proofs are held in memory and listed


class PartRules(Protocol):
    """What a store says of its parts, in bytes; every part but the last is at least `min_part`."""

    @property
    def max_parts(self) -> int: ...

    @property
    def min_part(self) -> int: ...

    @property
    def max_part(self) -> int: ...

    @property
    def max_object(self) -> int: ...

    @property
    def joins_pieces(self) -> bool: ...


@dataclass(frozen=True)
class Pieces:
    """Bytes of what is sent at once: of part 1 as much as has to wait for the head, and of all that follows."""

    first: int
    other: int


@dataclass(frozen=True)
class PartSizes:
    """A pure function of a part's number and the object's bound, so a resumed export cuts in the same places."""

    first: int
    other: int

    @classmethod
    def for_object(
        cls, size_bound: int, head_size: int, preferred: int, rules: PartRules, asked: bool = False
    ) -> PartSizes:
        """Parts of `preferred` bytes, or as much larger as the store's limits ask for.

        Part 1 is large enough to be a part of its own behind a head that is known last. Raises `unsupported` where an
        object of `size_bound` bytes cannot be stored, and `invalid_config` where it cannot be in parts that somebody
        `asked` for.
        """
        max_parts = min(rules.max_parts, MAX_RECEIPTS)
        if asked:
            _insist_on(preferred, size_bound, max_parts, rules)
        spread = -(-size_bound // max(1, max_parts - 1))
        other = _leaves(max(preferred, rules.min_part, spread))
        first = max(other, _leaves(head_size + rules.min_part)) if head_size else other
        sizes = cls(first, other)
        if size_bound > rules.max_object or max(first, other) > rules.max_part or sizes.count(size_bound) > max_parts:
            largest = min(rules.max_object, rules.max_part * max_parts)
            raise VmferryError(
                "unsupported",
                f"The object may grow to {size_bound} bytes; this store takes at most {largest}.",
                "Choose a store that takes larger objects, for example a path.",
            )
        return sizes

    def pieces(self, budget: int, wanted: int, head_size: int, min_part: int) -> Pieces:
        """Whole parts where two of them fit into `budget` bytes, else pieces of `wanted` bytes."""
        if self.first + self.other <= budget:
            return Pieces(self.first, self.other)
        other = min(self.other, _leaves(max(wanted, min_part)))
        return Pieces(min(self.first, max(other, _leaves(head_size + min_part))), other)

    def part(self, number: int) -> Part:
        if number == 1:
            return Part(1, 0, self.first)
        return Part(number, self.first + (number - 2) * self.other, self.other)

    def number_at(self, offset: int) -> int:
        """Of the part that this byte of the object lies in."""
        return 1 if offset < self.first else 2 + (offset - self.first) // self.other

    def count(self, size: int) -> int:
        """How many parts an object of so many bytes has."""
        return 1 + max(0, -(-(size - self.first) // self.other))


def _insist_on(part: int, size_bound: int, max_parts: int, rules: PartRules) -> None:
    least = max(rules.min_part, _leaves(-(-min(size_bound, rules.max_object) // max(1, max_parts - 1))))
    if part < least:
        raise VmferryError(
            "invalid_config",
            f"part_size is {part} bytes; for an object that may grow to {size_bound} bytes this store needs {least}.",
            "Give at least as much, or leave part_size out.",
        )
    if part > rules.max_part:
        raise VmferryError(
            "invalid_config",
            f"part_size is {part} bytes; a part of this store has at most {rules.max_part}.",
            "Give less, or leave part_size out.",
        )


def _leaves(size: int) -> int:
    return -(-size // LEAF) * LEAF
