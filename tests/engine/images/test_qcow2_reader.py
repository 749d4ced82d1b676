# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading qcow2 images by ranges: what `qemu-img convert` reads, in few requests and little memory."""

from __future__ import annotations

import random
import tempfile
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent, Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.reader import LONGEST_READ, Qcow2Reader

from .disks import (
    FEW,
    GIB,
    MIB,
    TIB,
    RangedFile,
    assert_tiled,
    content,
    content_of,
    islands,
    packed,
    run,
    runs_of,
    sizes,
)

KINDS: tuple[Kind, ...] = ("data", "zero", "unchanged")


def opened(*layers: tuple[Path, int]) -> Qcow2Reader:
    """Oldest first: the image, and the disk's size then."""
    reader = None
    for path, size in layers:
        file = RangedFile(path)
        reader = Qcow2Reader(file, file.size, size=size, backing=reader)
    assert reader is not None
    return reader


def converted(image: Path, size: int, offset: int = 0) -> bytes:
    flat = image.with_name("flat")
    if not flat.exists():
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, flat)
    with flat.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def kinds(extents: Sequence[Extent]) -> list[str]:
    return [extent.kind for extent in extents for _leaf in range(-(-extent.length // LEAF))]


@FEW
@given(st.data())
def test_chains_of_any_depth_read_as_qemu_img_reads_them(data: st.DataObject) -> None:
    size, backing, layers = 0, "", []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, data.draw(st.integers(1, 4)) + 1):
            size += data.draw(sizes(12)) if number == 1 or data.draw(st.booleans()) else 0
            runs = data.draw(runs_of(size, KINDS if backing else KINDS[:2]))
            image = packed(Path(folder) / f"layer-{number}", size, runs, seed=number, backing=backing)
            layers.append((image, size))
            backing = image.name
        reader = opened(*layers)
        expected = converted(image, size)
        assert content_of(reader) == expected
        found = list(reader.extents())
        assert_tiled(found, size)
        assert kinds(found) == kinds(runs)
        start = data.draw(st.integers(0, size))
        length = data.draw(st.integers(0, size - start))
        assert content_of(reader, start, length) == expected[start : start + length]


@pytest.mark.parametrize("change", [-3 * LEAF - 100, 5 * LEAF + 100])
def test_a_parent_of_another_size_is_read_as_far_as_it_goes(tmp_path: Path, change: int) -> None:
    size = 10 * LEAF + 7
    packed(tmp_path / "parent", size + change, [Extent(0, size + change, "data")])
    child = packed(tmp_path / "child", size, [Extent(LEAF, LEAF, "data")], seed=2, backing="parent")
    assert content_of(opened((tmp_path / "parent", size + change), (child, size))) == converted(child, size)


def test_an_image_that_qemu_wrote_in_another_order_reads_the_same(tmp_path: Path) -> None:
    image = tmp_path / "image"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, GIB)
    writes = ["write -P 7 900M 1M", "write -P 8 64k 64k", "write -P 9 0 64k", "write -z 900M 64k", "write -P 1 1M 3M"]
    run("qemu-io", "-f", "qcow2", *[word for write in writes for word in ("-c", write)], image)
    image.open("ab").truncate(-(-image.stat().st_size // LEAF) * LEAF)
    reader = opened((image, GIB))
    for start, length in ((0, 5 * MIB), (899 * MIB, 3 * MIB), (GIB - LEAF, LEAF)):
        assert content_of(reader, start, length) == converted(image, length, start)


def test_neighbours_in_the_file_are_one_request(tmp_path: Path) -> None:
    size = 40 * MIB
    file = RangedFile(packed(tmp_path / "image", size, [Extent(0, size, "data")]))
    reader = Qcow2Reader(file, file.size, size=size)
    list(reader.extents())
    file.requests.clear()
    content_of(reader)
    assert len(file.requests) == -(-size // LONGEST_READ)


def test_what_the_parent_has_is_one_request_and_what_is_zero_is_none(tmp_path: Path) -> None:
    size = 8 * MIB
    parent_file = RangedFile(packed(tmp_path / "parent", size, [Extent(0, size, "data")]))
    child = [Extent(0, LEAF, "data"), Extent(LEAF, 5 * MIB, "unchanged"), Extent(5 * MIB + LEAF, MIB, "zero")]
    child_file = RangedFile(packed(tmp_path / "child", size, child, seed=2, backing="parent"))
    parent = Qcow2Reader(parent_file, parent_file.size, size=size)
    reader = Qcow2Reader(child_file, child_file.size, size=size, backing=parent)
    list(reader.extents())
    list(parent.extents())
    child_file.requests.clear()
    parent_file.requests.clear()
    content_of(reader)
    assert [length for _offset, length in child_file.requests] == [LEAF]
    assert [length for _offset, length in parent_file.requests] == [5 * MIB, 2 * MIB - LEAF]


def test_the_extents_of_a_large_sparse_disk_need_little_memory(tmp_path: Path) -> None:
    size = 2 * TIB
    starts = [table * 512 * MIB for table in range(0, 4096, 40)]
    image = packed(tmp_path / "image", size, islands(size, starts))
    tracemalloc.start()
    try:
        reader = opened((image, size))
        extents = list(reader.extents())
        assert content_of(reader, starts[-1], 2 * LEAF) == content(starts[-1], LEAF, 1) + bytes(LEAF)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert_tiled(extents, size)
    assert [extent.offset for extent in extents if extent.kind == "data"] == starts
    assert peak < 4 * MIB, "all tables were held"


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, LEAF + 2), (LEAF + 1, 1)])
def test_bytes_beyond_the_disk_are_refused(tmp_path: Path, offset: int, length: int) -> None:
    size = LEAF + 1
    reader = opened((packed(tmp_path / "image", size, [Extent(0, size, "data")]), size))
    with pytest.raises(VmferryError, match="beyond its disk"):
        content_of(reader, offset, length)


def test_a_disk_of_nothing_reads_as_nothing(tmp_path: Path) -> None:
    reader = opened((packed(tmp_path / "image", 0, []), 0))
    assert not list(reader.extents())
    assert content_of(reader) == b""


def test_threads_read_at_once_from_more_tables_than_are_held(tmp_path: Path) -> None:
    size = 40 * GIB
    starts = [table * 512 * MIB + table * LEAF for table in range(80)]
    reader = opened((packed(tmp_path / "image", size, islands(size, starts)), size))
    chance = random.Random(1)
    asked = [start for start in starts for _again in range(3)]
    chance.shuffle(asked)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda start: content_of(reader, start, LEAF), asked))
    assert found == [content(start, LEAF, 1) for start in asked]
