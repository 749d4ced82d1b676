# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planned images: written front to back without a seek, and judged by QEMU as all others."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent, Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.planned import PlannedQcow2
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.reader import Qcow2Reader

from ..searching import examples
from .disks import (
    FEW,
    GIB,
    MIB,
    TIB,
    RangedFile,
    content,
    content_of,
    islands,
    judge,
    packed,
    reference,
    runs_of,
    sizes,
)

KINDS: tuple[Kind, ...] = ("data", "zero", "unchanged")


def planned(
    path: Path, size: int, runs: Sequence[Extent], *, seed: int = 1, backing: str = "", only: Collection[int] = ()
) -> Path:
    """Appends and never seeks back. With `only`, data elsewhere than at these leaves is zeros, left out as holes."""
    image = PlannedQcow2(size, runs, backing)
    with path.open("wb") as file:
        for chunk in image.head():
            assert len(chunk) % LEAF == 0
            file.write(chunk)
        assert file.tell() == image.head_size
        for run in image.runs():
            start = file.tell()
            for at in [leaf for leaf in only if run.offset <= leaf < run.end] if only else [run.offset]:
                file.seek(start + at - run.offset)
                file.write(content(at, min(LEAF if only else run.length, size - at), seed))
            file.seek(start + run.length)
        file.truncate()
        assert file.tell() == image.size
    return path


@FEW
@given(st.data())
def test_any_disk_is_the_same_to_qemu(data: st.DataObject) -> None:
    size = data.draw(sizes())
    runs = data.draw(runs_of(size))
    with tempfile.TemporaryDirectory() as folder:
        image = planned(Path(folder) / "image", size, runs)
        judge(image, reference(Path(folder) / "reference", size, (runs, 1)), size)


@pytest.mark.slow
@settings(FEW, max_examples=examples(8))
@given(st.data())
def test_layers_on_packed_images_that_grow_are_the_same_to_qemu(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        size = data.draw(sizes(12))
        runs = data.draw(runs_of(size))
        packed(Path(folder) / "layer-1", size, runs)
        layers = [(runs, 1)]
        for number in (2, 3):
            size += data.draw(sizes(12)) if data.draw(st.booleans()) else 0
            runs = data.draw(runs_of(size, KINDS))
            layers.append((runs, number))
            image = planned(Path(folder) / f"layer-{number}", size, runs, seed=number, backing=f"layer-{number - 1}")
            judge(image, reference(Path(folder) / "reference", size, *layers), size)


@pytest.mark.parametrize(("size", "backing"), [(2 * TIB - 513, ""), (40 * GIB - 513, "parent")])
def test_a_large_sparse_disk(tmp_path: Path, size: int, backing: str) -> None:
    runs = islands(size, [0, 512 * MIB - LEAF, 512 * MIB, size // 2, size - 1])
    if backing:
        packed(tmp_path / backing, size, islands(size, [GIB, size // 2]), seed=2)
    image = planned(tmp_path / "image", size, runs, backing=backing)
    written = [extent for extent in runs if extent.kind == "data"]
    judge(image, reference(tmp_path / "reference", size, (written, 1)), size)


# In the first sizes the image, with its five tables, comes to fill one refcount block and to need a second.
@pytest.mark.parametrize("size", [*range(2 * GIB - 10 * LEAF, 2 * GIB, LEAF), 6 * GIB + 513])
def test_a_full_disk_has_as_many_refcount_blocks_as_it_needs(tmp_path: Path, size: int) -> None:
    leaves = sorted({0, 512 * MIB, 2 * GIB - 20 * LEAF, (size - 1) // LEAF * LEAF})
    image = planned(tmp_path / "image", size, [Extent(0, size, "data")], only=leaves)
    runs = [Extent(leaf, min(LEAF, size - leaf), "data") for leaf in leaves]
    judge(image, reference(tmp_path / "reference", size, (runs, 1)), size)


def test_a_full_disk_of_62_tebibytes_is_planned_without_its_tables_in_memory() -> None:
    size = 62 * TIB
    image = PlannedQcow2(size, [Extent(0, size, "data")])
    assert size < image.size < size * 1.0003
    assert image.head_size == image.size - size
    head = image.head()
    assert all(len(next(head)) < 2 * MIB for _chunk in range(100))


def test_an_empty_disk_is_an_image(tmp_path: Path) -> None:
    judge(planned(tmp_path / "image", 0, []), reference(tmp_path / "reference", 0), 0)


def test_our_own_reader_reads_it(tmp_path: Path) -> None:
    size = GIB + 7
    runs = islands(size, [5 * LEAF, 700 * MIB])
    file = RangedFile(planned(tmp_path / "image", size, runs))
    reader = Qcow2Reader(file, file.size, size=size)
    assert list(reader.extents()) == runs
    assert content_of(reader, 700 * MIB, LEAF) == content(700 * MIB, LEAF, 1)


@pytest.mark.parametrize(
    "runs",
    [
        [Extent(0, 1, "data")],
        [Extent(1, LEAF, "data")],
        [Extent(0, LEAF, "data"), Extent(0, LEAF, "data")],
        [Extent(LEAF, LEAF, "data"), Extent(0, LEAF, "zero")],
        [Extent(0, 4 * LEAF, "data")],
        [Extent(LEAF, -LEAF, "data")],
    ],
)
def test_runs_that_cannot_be_placed_are_refused(runs: list[Extent]) -> None:
    with pytest.raises(VmferryError, match="no place"):
        PlannedQcow2(2 * LEAF + 5, runs)
