# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Differencing VHDX images that we write: with what is below them, they are the disk that was written."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhdx.format import FULLY_PRESENT, STATE, ZERO
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhdx.layer_writer import DifferencingVhdx
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhdx.reader import VhdxReader
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhdx.writer import data_id_of
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.disk_image import (
    open_image,
    stored_image,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from ..searching import examples
from .disks import FEW, GIB, MIB, FileOutput, RangedFile, content, content_of, feed
from .other_formats import IDENTITY, written

TOP = bytes(range(16, 32))


def layered(folder: Path, size: int, runs: list[Extent], below: list[Extent]) -> Path:
    """On an image of the runs `below`, in the same folder."""
    written("vhdx", folder / "base.vhdx", size, below)
    return layer(folder / "top.avhdx", size, runs)


def layer(path: Path, size: int, runs: list[Extent]) -> Path:
    output = FileOutput(path)
    writer = DifferencingVhdx(
        size, output, runs, identity=TOP, parent_name="base.vhdx", parent_data_id=data_id_of(IDENTITY)
    )
    output.at = writer.head_size
    feed(writer, size, runs, 2)
    output.finish(writer)
    assert path.stat().st_size <= writer.size_bound
    return path


def as_seen(size: int, runs: list[Extent], below: list[Extent]) -> bytes:
    disk = bytearray(size)
    for seed, extents in ((1, below), (2, runs)):
        for one in extents:
            if one.kind != "unchanged":
                data = content(one.offset, one.length, seed) if one.kind == "data" else bytes(one.length)
                disk[one.offset : one.end] = data
    return bytes(disk)


def assert_reads(folder: Path, expected: bytes) -> None:
    with closing(open_store(str(folder), {})) as store, open_image(stored_image(store, "top.avhdx")) as source:
        assert content_of(source) == expected


@st.composite
def machines(draw: st.DrawFn) -> tuple[int, list[Extent], list[Extent]]:
    size = draw(st.integers(1, 5 * MIB // 512)) * 512

    def runs(kinds: list[str]) -> list[Extent]:
        cuts = sorted({0, size, *(cut * LEAF for cut in draw(st.lists(st.integers(0, size // LEAF), max_size=8)))})
        return [Extent(at, end - at, draw(st.sampled_from(kinds))) for at, end in zip(cuts, cuts[1:])]  # type: ignore[arg-type]

    return size, runs(["data", "zero", "unchanged", "unchanged"]), runs(["data", "zero"])


@settings(FEW, max_examples=examples(12))
@given(machines())
def test_any_layer_is_what_was_written_over_what_was_there(made: tuple[int, list[Extent], list[Extent]]) -> None:
    size, runs, below = made
    with tempfile.TemporaryDirectory() as folder:
        layered(Path(folder), size, runs, below)
        assert_reads(Path(folder), as_seen(size, runs, below))


def test_zeros_hide_what_is_below_without_taking_room(tmp_path: Path) -> None:
    """A whole block of them is a word in the table; a part of one is a hole."""
    size = 8 * MIB
    below = [Extent(0, size, "data")]
    runs = [
        Extent(0, 2 * MIB, "zero"),
        Extent(2 * MIB, LEAF, "zero"),
        Extent(2 * MIB + LEAF, 4 * MIB - LEAF, "unchanged"),
        Extent(6 * MIB, MIB, "data"),
        Extent(7 * MIB, MIB, "zero"),
    ]
    path = layered(tmp_path, size, runs, below)
    reader = VhdxReader(RangedFile(path), path.stat().st_size, layer=True)
    states = [entry & STATE for entry in reader._table]
    assert (states[0], states[2], states[3]) == (ZERO, 0, FULLY_PRESENT)
    assert path.stat().st_blocks * 512 < 8 * MIB
    assert_reads(tmp_path, as_seen(size, runs, below))


def test_each_chunk_has_a_bitmap_of_its_own(tmp_path: Path) -> None:
    """Of 4 GiB each: one with, one without, and the last, which is not full."""
    size, islands = 9 * GIB, (3 * MIB, 4 * GIB - LEAF, 8 * GIB + 5 * MIB)
    runs, at = [], 0
    for start in islands:
        runs += [Extent(at, start - at, "unchanged"), Extent(start, LEAF, "data")]
        at = start + LEAF
    runs.append(Extent(at, size - at, "unchanged"))
    below = [Extent(0, LEAF, "data"), Extent(LEAF, size - LEAF, "zero")]
    path = layered(tmp_path, size, runs, below)
    assert path.stat().st_blocks * 512 < 12 * MIB
    with closing(open_store(str(tmp_path), {})) as store, open_image(stored_image(store, "top.avhdx")) as source:
        for start in islands:
            expected = bytes(LEAF) + content(start, LEAF, 2) + (bytes(LEAF) if start + 2 * LEAF <= size else b"")
            assert content_of(source, start - LEAF, 3 * LEAF) == expected
        assert content_of(source, 0, LEAF) == content(0, LEAF, 1)
