# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that do not start or end where the server's blocks do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """A run cut at block edges: parts of blocks at its ends (empty where it is aligned), whole blocks between."""

    start: int
    body_start: int
    body_end: int
    end: int

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(start, end) of what lies within blocks that the run does not cover."""
        found = ((self.start, self.body_start), (self.body_end, self.end))
        return tuple((start, end) for start, end in found if start < end)


def split(start: int, length: int, block: int) -> Split:
    end = start + length
    body_start, body_end = round_up(start, block), round_down(end, block)
    if body_start >= body_end:  # no whole block: one part, though it may lie in two blocks
        return Split(start, end, end, end)
    return Split(start, body_start, body_end, end)


def round_down(value: int, block: int) -> int:
    return value - value % block


def round_up(value: int, block: int) -> int:
    return -(-value // block) * block
