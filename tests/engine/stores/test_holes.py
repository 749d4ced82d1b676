# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holes of a file on a path are told, and not read."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.raw import RawReader
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.holes import extents_of
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from ..searching import examples

MIB = 1024 * 1024


def made(path: Path, size: int, data: list[tuple[int, int]]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, length in data:
            file.seek(offset)
            file.write(b"x" * length)
    return path


def told(path: Path, size: int) -> list[Extent]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return list(extents_of(descriptor, size))
    finally:
        os.close(descriptor)


def test_data_and_holes_are_told_in_whole_leaves(tmp_path: Path) -> None:
    path = made(tmp_path / "a", 10 * MIB + 5, [(3 * MIB + 5000, 10), (5 * MIB, LEAF)])
    assert told(path, 10 * MIB + 5) == [
        Extent(0, 3 * MIB, "zero"),
        Extent(3 * MIB, LEAF, "data"),
        Extent(3 * MIB + LEAF, 2 * MIB - LEAF, "zero"),
        Extent(5 * MIB, LEAF, "data"),
        Extent(5 * MIB + LEAF, 5 * MIB - LEAF + 5, "zero"),
    ]


@pytest.mark.parametrize(("length", "size"), [(0, 0), (0, MIB), (LEAF + 1, 4 * LEAF), (3 * LEAF, 4 * LEAF)])
def test_what_a_file_is_too_short_for_is_no_hole(tmp_path: Path, length: int, size: int) -> None:
    """Reading it must fail, as it must not be taken for zeros."""
    extents = told(made(tmp_path / "a", length, []), size)
    assert sum(extent.length for extent in extents) == size
    assert [extent.kind for extent in extents][-1:] == (["data"] if size else [])
    assert all(extent.end <= length for extent in extents if extent.kind == "zero")


@settings(max_examples=examples(60), deadline=None)
@given(
    size=st.integers(1, 40 * LEAF),
    data=st.lists(st.tuples(st.integers(0, 40 * LEAF), st.integers(1, 3 * LEAF)), max_size=6),
)
def test_what_is_called_a_hole_reads_as_zeros_and_nothing_is_left_out(
    tmp_path_factory: pytest.TempPathFactory, size: int, data: list[tuple[int, int]]
) -> None:
    path = made(tmp_path_factory.mktemp("holes") / "a", size, data)
    content, at = path.read_bytes(), 0
    for extent in told(path, size):
        assert extent.offset == at
        assert extent.length > 0
        assert extent.offset % LEAF == 0
        if extent.kind == "zero":
            assert not any(content[extent.offset : extent.end])
        at = extent.end
    assert at == size


def test_where_the_file_system_does_not_tell_all_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "a", MIB, [])
    seek = os.lseek

    def untold(descriptor: int, offset: int, whence: int) -> int:
        if whence == os.SEEK_DATA:
            raise OSError(errno.EINVAL, "Invalid argument")
        return MIB if whence == os.SEEK_HOLE else seek(descriptor, offset, whence)

    monkeypatch.setattr(os, "lseek", untold)
    assert told(path, MIB) == [Extent(0, MIB, "data")]


def test_a_raw_image_in_a_folder_is_read_without_its_holes(tmp_path: Path) -> None:
    made(tmp_path / "disk.raw", 1 << 40, [(1 << 39, LEAF)])
    store = open_store(str(tmp_path), {})
    size = 1 << 40

    def read_at(offset: int, buffer: memoryview) -> None:
        store.read_into("disk.raw", offset, buffer)

    reader = RawReader(read_at, size, lambda size: store.extents("disk.raw", size))
    assert [extent for extent in reader.extents() if extent.kind == "data"] == [Extent(1 << 39, LEAF, "data")]


def test_a_file_that_is_not_there_has_no_extents(tmp_path: Path) -> None:
    with pytest.raises(VmferryError) as raised:
        list(open_store(str(tmp_path), {}).extents("disk.raw", 1))
    assert raised.value.kind == "not_found"


def test_looking_for_holes_leaves_no_descriptor_open(tmp_path: Path) -> None:
    made(tmp_path / "a", MIB, [(0, 1)])
    store: Any = open_store(str(tmp_path), {})
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _unused in range(3):
        list(store.extents("a", MIB))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
