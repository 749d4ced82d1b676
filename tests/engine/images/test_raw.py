# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Raw images are the disk, byte for byte, to cmp(1); and zeros take no room."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.raw import RawReader, RawWriter

from .disks import FEW, GIB, MIB, FileOutput, RangedFile, content_of, feed, islands, reference, run, runs_of, sizes


def raw(path: Path, size: int, runs: list[Extent]) -> Path:
    output = FileOutput(path)
    writer = RawWriter(size, output)
    assert (writer.head_size, writer.size_bound) == (0, size)
    feed(writer, size, runs, 1)
    output.finish(writer)
    return path


@FEW
@given(st.data())
def test_any_disk_is_the_same_to_cmp(data: st.DataObject) -> None:
    size = data.draw(sizes())
    runs = data.draw(runs_of(size))
    with tempfile.TemporaryDirectory() as folder:
        image = raw(Path(folder) / "image", size, runs)
        expected = reference(Path(folder) / "reference", size, (runs, 1))
        run("cmp", image, expected)
        file = RangedFile(image)
        start = data.draw(st.integers(0, size))
        length = data.draw(st.integers(0, size - start))
        assert content_of(RawReader(file, size), start, length) == expected.read_bytes()[start : start + length]


def test_holes_take_no_room_and_the_last_one_counts(tmp_path: Path) -> None:
    size = 300 * GIB + 1
    runs = islands(size, [MIB, 150 * GIB])
    image = raw(tmp_path / "image", size, runs)
    assert image.stat().st_size == size
    assert image.stat().st_blocks * 512 <= 4 * LEAF
    expected = reference(tmp_path / "reference", size, ([extent for extent in runs if extent.kind == "data"], 1))
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, expected)


@pytest.mark.parametrize("size", [0, 1, LEAF, LEAF + 1])
def test_a_disk_of_zeros_is_a_hole(tmp_path: Path, size: int) -> None:
    image = raw(tmp_path / "image", size, [Extent(0, size, "zero")])
    assert image.read_bytes() == bytes(size)
    assert image.stat().st_blocks == 0
    assert content_of(RawReader(RangedFile(image), size)) == bytes(size)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, LEAF + 2), (LEAF + 1, 1)])
def test_bytes_beyond_the_disk_are_refused(offset: int, length: int) -> None:
    """Behind the disk may lie another member of the same archive."""
    reader = RawReader(RangedFile(bytes(3 * LEAF)), LEAF + 1)
    with pytest.raises(VmferryError, match="beyond"):
        content_of(reader, offset, length)
