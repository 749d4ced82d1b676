# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged leaves are told as runs, whatever order they were found in."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.damaged_leaves import MOST_RUNS, DamagedLeaves


@given(st.lists(st.integers(0, 60), unique=True))
def test_runs_are_as_long_as_they_can_be(found: Sequence[int]) -> None:
    damaged = DamagedLeaves()
    for index in found:
        damaged.add(index)
    runs = damaged.runs()
    assert [index for first, end in runs for index in range(first, end)] == sorted(found)
    assert all(end < following for (_first, end), (following, _last) in zip(runs, runs[1:]))
    assert damaged.count == len(found)


def test_memory_is_bounded_and_the_count_is_not() -> None:
    damaged = DamagedLeaves()
    for index in range(0, 4 * MOST_RUNS, 2):
        damaged.add(index)
    damaged.add(1)  # joins two that are known
    assert damaged.count == 2 * MOST_RUNS + 1
    assert len(damaged.runs()) == MOST_RUNS - 1
    assert damaged.runs()[0] == (0, 3)
