# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packed images, each judged by `qemu-img check` and `qemu-img compare` against what QEMU or the kernel wrote."""

from __future__ import annotations

import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent, Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.packed import PackedQcow2

from ..searching import examples
from .disks import (
    FEW,
    GIB,
    MIB,
    TIB,
    ZERO_DIGEST,
    ZEROS,
    FileOutput,
    content,
    islands,
    judge,
    packed,
    reference,
    run,
    runs_of,
    sizes,
)

KINDS: tuple[Kind, ...] = ("data", "zero", "unchanged")


@FEW
@given(st.data())
def test_any_disk_is_the_same_to_qemu(data: st.DataObject) -> None:
    size = data.draw(sizes())
    runs = data.draw(runs_of(size))
    with tempfile.TemporaryDirectory() as folder:
        image = packed(Path(folder) / "image", size, runs)
        judge(image, reference(Path(folder) / "reference", size, (runs, 1)), size)


@pytest.mark.slow
@settings(FEW, max_examples=examples(8))
@given(st.data())
def test_layers_on_layers_that_grow_are_the_same_to_qemu(data: st.DataObject) -> None:
    size, backing, layers = 0, "", []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, data.draw(st.integers(3, 5)) + 1):
            size += data.draw(sizes(12)) if number == 1 or data.draw(st.booleans()) else 0
            runs = data.draw(runs_of(size, KINDS if backing else KINDS[:2]))
            image = packed(Path(folder) / f"layer-{number}", size, runs, seed=number, backing=backing)
            layers.append((runs, number))
            backing = image.name
            judge(image, reference(Path(folder) / "reference", size, *layers), size)


def test_zeros_hide_the_parent_and_what_is_unchanged_shows_it(tmp_path: Path) -> None:
    size = 3 * LEAF
    packed(tmp_path / "parent", size, [Extent(0, size, "data")], seed=1)
    runs = [Extent(0, LEAF, "zero"), Extent(LEAF, LEAF, "unchanged"), Extent(2 * LEAF, LEAF, "data")]
    child = packed(tmp_path / "child", size, runs, seed=2, backing="parent")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", child, tmp_path / "flat")
    expected = bytes(LEAF) + content(LEAF, LEAF, 1) + content(2 * LEAF, LEAF, 2)
    assert (tmp_path / "flat").read_bytes() == expected


def test_an_empty_disk_is_an_image(tmp_path: Path) -> None:
    image = packed(tmp_path / "image", 0, [])
    run("qemu-img", "check", "-f", "qcow2", image)
    assert '"virtual-size": 0' in run("qemu-img", "info", "-f", "qcow2", "--output=json", image)


@pytest.mark.slow
@settings(FEW, max_examples=examples(8))
@given(st.lists(st.integers(0, 2 * TIB - 1), max_size=8), st.integers(1, 2 * MIB))
def test_a_sparse_disk_of_two_tebibytes(starts: list[int], short_of: int) -> None:
    size = 2 * TIB - short_of
    runs = islands(size, [*starts, size - 1])
    with tempfile.TemporaryDirectory() as folder:
        image = packed(Path(folder) / "image", size, runs)
        written = [extent for extent in runs if extent.kind == "data"]
        judge(image, reference(Path(folder) / "reference", size, (written, 1)), size)


@pytest.mark.slow
def test_a_sparse_disk_of_62_tebibytes(tmp_path: Path) -> None:
    """No file system here holds a raw file of that size: the reference is an image that qemu-io wrote."""
    size = 62 * TIB - 513
    runs = islands(size, [0, 512 * MIB - LEAF, 31 * TIB, 62 * TIB - GIB, size - 1])
    expected = tmp_path / "reference"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", expected, -(-size // 512) * 512)
    writes = []
    for extent in runs:
        if extent.kind == "data":
            piece = tmp_path / f"at-{extent.offset}"
            piece.write_bytes(content(extent.offset, extent.length, 1).ljust(-(-extent.length // 512) * 512, b"\0"))
            writes += ["-c", f"write -q -s {piece} {extent.offset} {piece.stat().st_size}"]
    run("qemu-io", "-f", "qcow2", *writes, expected)
    judge(packed(tmp_path / "image", size, runs), expected, size, "qcow2")


# The first stretch ends near the first sizes, by turns inside the data, before an L2 table and before the last block.
@pytest.mark.parametrize("size", [*range(2 * GIB - 12 * LEAF, 2 * GIB, LEAF), 4 * GIB + 513, 6 * GIB + 3 * MIB])
def test_a_full_disk_crosses_the_stretches_of_the_refcount_blocks(tmp_path: Path, size: int) -> None:
    """Every cluster is allocated. Most hold zeros, which a sparse file does not store; one in a while does not."""
    output = FileOutput(tmp_path / "image")
    writer = PackedQcow2(size, output)
    output.at = writer.head_size
    marked = {0, *range(2 * GIB - 64 * MIB, size, 512 * MIB), (size - 1) // LEAF * LEAF}
    at, whole = 0, -(-size // LEAF) * LEAF
    while at < whole:
        if at in marked:
            leaf = content(at, min(LEAF, size - at), 1).ljust(LEAF, b"\0")
            writer.data(at, memoryview(leaf), [sha256(leaf).digest()])
            at += LEAF
        length = min([whole, at + len(ZEROS), *(mark for mark in marked if mark >= at)]) - at
        if length:
            writer.data(at, ZEROS[:length], [ZERO_DIGEST] * (length // LEAF))
        at += length
    output.finish(writer)
    runs = [Extent(mark, min(LEAF, size - mark), "data") for mark in sorted(marked)]
    judge(output.path, reference(tmp_path / "reference", size, (runs, 1)), size)


@FEW
@given(st.integers(0, 64 * TIB), st.integers(0, 64 * TIB), st.booleans())
def test_a_bound_never_shrinks_with_the_data(size: int, data: int, layered: bool) -> None:
    backing = "parent" if layered else ""
    output = FileOutput(Path("/dev/null"))
    told = PackedQcow2(size, output, data_bound=data // LEAF * LEAF, backing=backing)
    untold = PackedQcow2(size, output, backing=backing)
    output.file.close()
    assert told.head_size <= told.size_bound <= untold.size_bound


def test_a_layer_of_zeros_stays_in_its_bound(tmp_path: Path) -> None:
    """Nothing but L2 tables: one for each 512 MiB of the disk, though no data was announced."""
    size = 40 * GIB + 1
    packed(tmp_path / "parent", size, islands(size, [0, 20 * GIB]), seed=1)
    child = packed(tmp_path / "child", size, [Extent(0, size, "zero")], backing="parent")
    judge(child, reference(tmp_path / "reference", size), size)


@pytest.mark.parametrize("size", [-1, 64 * TIB + 1])
def test_a_disk_too_large_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(VmferryError, match="larger than"):
        PackedQcow2(size, FileOutput(tmp_path / "image"))


def test_a_backing_name_too_long_for_the_format_is_refused(tmp_path: Path) -> None:
    packed(tmp_path / "image", LEAF, [], backing="é" * 511)
    with pytest.raises(VmferryError, match="backing file's name"):
        PackedQcow2(LEAF, FileOutput(tmp_path / "other"), backing="é" * 512)
