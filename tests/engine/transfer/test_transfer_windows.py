# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rounding out to leaves loses nothing, and a window is never larger than it may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.windows import ExtentMap, windows

KINDS = ("data", "zero", "unchanged")


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, list[Extent]]:
    lengths = draw(
        st.lists(st.sampled_from([0, 1, 512, LEAF - 1, LEAF, LEAF + 1, 3 * LEAF, 9 * LEAF + 7]), max_size=20)
    )
    found, at = [], 0
    for length in lengths:
        found.append(Extent(at, length, draw(st.sampled_from(KINDS))))
        at += length
    return at, found


def kinds_by_leaf(size: int, extents: list[Extent]) -> list[str]:
    """By the definition: a leaf's kind is the only one in it, else data."""
    found = []
    for leaf in range(0, size, LEAF):
        end = min(leaf + LEAF, size)
        kinds = {one.kind for one in extents if one.length and one.offset < end and one.end > leaf}
        found.append(kinds.pop() if len(kinds) == 1 else "data")
    return found


@given(disks())
def test_a_leaf_keeps_its_kind_and_a_mixed_one_is_data(disk: tuple[int, list[Extent]]) -> None:
    size, extents = disk
    rounded = list(ExtentMap(extents, size))
    assert all(run.offset % LEAF == 0 and (run.end % LEAF == 0 or run.end == size) for run in rounded)
    assert [one.offset for one in rounded[1:]] == [one.end for one in rounded[:-1]]
    assert kinds_by_leaf(size, rounded) == kinds_by_leaf(size, extents)
    assert all(one.kind != other.kind for one, other in zip(rounded, rounded[1:]))


@given(disks())
def test_bytes_are_counted_by_kind(disk: tuple[int, list[Extent]]) -> None:
    size, extents = disk
    rounded = ExtentMap(extents, size)
    assert sum(rounded.bytes_of(kind) for kind in KINDS) == size
    for kind in KINDS:
        assert rounded.bytes_of(kind) == sum(run.length for run in rounded if run.kind == kind)
    assert rounded.data_bound == LEAF * kinds_by_leaf(size, extents).count("data")


@given(disks(), st.integers(1, 6))
def test_windows_hold_every_run_once_and_at_most_their_bytes(disk: tuple[int, list[Extent]], leaves: int) -> None:
    size, extents = disk
    runs = ExtentMap(extents, size)
    taken = list(windows(runs, leaves * LEAF))
    assert all(window.data_bytes <= leaves * LEAF for window in taken)
    flat = [run for window in taken for run in window.runs]
    assert kinds_by_leaf(size, flat) == ["data" if kind == "data" else kind for kind in kinds_by_leaf(size, flat)]
    for kind in ("data", "zero"):
        assert sum(run.length for run in flat if run.kind == kind) == runs.bytes_of(kind)
    assert flat == sorted(flat, key=lambda run: run.offset)
    assert not [run for run in flat if run.kind == "unchanged"]
    buffer = memoryview(bytearray(leaves * LEAF))
    for window in taken:
        assert sum(len(piece) for _unused, piece in window.pieces(buffer)) == window.data_bytes


@pytest.mark.parametrize(
    "extents",
    [
        [Extent(0, LEAF, "data"), Extent(LEAF + 512, LEAF - 512, "data")],
        [Extent(0, LEAF, "data"), Extent(LEAF - 512, LEAF + 512, "data")],
        [Extent(0, LEAF, "data")],
        [Extent(0, 3 * LEAF, "data")],
    ],
    ids=["gap", "overlap", "short", "long"],
)
def test_extents_that_do_not_cover_the_disk_are_refused(extents: list[Extent]) -> None:
    with pytest.raises(VmferryError) as caught:
        ExtentMap(extents, 2 * LEAF)
    assert caught.value.kind == "internal"
