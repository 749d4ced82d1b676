# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inspector's account of a file's places, held against one that counts each byte's sector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.places import UsedBlocks, UsedPlaces
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.reading import (
    SECTOR,
    Examination,
    Hopeless,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.words import Limits

from .disks import FEW

SECTORS = 200


def examination(sectors: int = SECTORS) -> Examination:
    return Examination(lambda offset, buffer: None, sectors * SECTOR, Limits())


def refused(take: Callable[[int, int], None], runs: Sequence[tuple[int, int]]) -> int | None:
    """Which of the runs was."""
    for number, (start, length) in enumerate(runs):
        try:
            take(start * SECTOR, length * SECTOR)
        except Hopeless:
            return number
    return None


def expected(runs: Sequence[tuple[int, int]]) -> int | None:
    used: set[int] = set()
    for number, (start, length) in enumerate(runs):
        run = set(range(start, start + length))
        if run & used or start + length > SECTORS:
            return number
        used |= run
    return None


@FEW
@given(st.lists(st.tuples(st.integers(0, SECTORS), st.integers(1, 40)), max_size=12))
def test_a_place_that_is_used_twice_is_found(runs: list[tuple[int, int]]) -> None:
    places = UsedPlaces(examination(), SECTOR)
    assert refused(lambda at, length: places.take(at, length, "it"), runs) == expected(runs)


@FEW
@given(st.integers(1, 20), st.lists(st.integers(0, SECTORS), max_size=20))
def test_a_block_that_lies_in_another_is_found(length: int, starts: list[int]) -> None:
    blocks = UsedBlocks(examination(), length * SECTOR)
    runs = [(start, length) for start in starts]
    assert refused(lambda at, _length: blocks.take(at, "it"), runs) == expected(runs)
