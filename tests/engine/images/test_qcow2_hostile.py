# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that lie. Each is refused with our own error, or read without a byte asked for that the file does not have."""

from __future__ import annotations

import contextlib
import struct
import time
import tracemalloc
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.reader import Qcow2Reader
from ansible_collections.vmferry.migrate.plugins.module_utils._images.raw import RawReader

from ..searching import examples
from .disks import FEW, MIB, TIB, RangedFile, content, content_of, packed

SIZE = 512 * MIB + 5 * LEAF  # two L2 tables
HEAD = 3 * LEAF  # header, L1 table, refcount table
DATA_AT, L2_AT, L1_AT = HEAD, HEAD + 2 * LEAF, LEAF
COPIED = 1 << 63


@cache
def good() -> bytes:
    """Two clusters of data, their L2 table, two clusters of data, their L2 table, a refcount block."""
    runs = [Extent(0, 2 * LEAF, "data"), Extent(512 * MIB, 2 * LEAF, "data")]
    with TemporaryDirectory() as folder:
        return packed(Path(folder) / "image", SIZE, runs).read_bytes()


def with_words(image: bytes, *words: tuple[str, int, int]) -> bytes:
    changed = bytearray(image)
    for form, at, value in words:
        struct.pack_into(">" + form, changed, at, value)
    return bytes(changed)


def read_everything(image: bytes, size: int = SIZE) -> None:
    file = RangedFile(image)
    reader = Qcow2Reader(file, file.size, size=size)
    extents = list(reader.extents())
    assert sum(extent.length for extent in extents) == size
    for offset in sorted({0, max(0, size - MIB), max(0, size // 2 - MIB)}):
        content_of(reader, offset, min(MIB, size - offset))


def test_the_image_that_the_lies_start_from_is_good() -> None:
    file = RangedFile(good())
    reader = Qcow2Reader(file, file.size, size=SIZE)
    assert content_of(reader, 0, LEAF) == content(0, LEAF, 1)
    assert struct.unpack_from(">QQ", good(), L2_AT) == (DATA_AT | COPIED, DATA_AT + LEAF | COPIED)
    read_everything(good())


@pytest.mark.parametrize(
    ("lie", "word"),
    {
        "another magic": ("I", 0, 0x51464900),
        "version 2": ("I", 4, 2),
        "version 4": ("I", 4, 4),
        "a backing file": ("I", 16, 11),
        "clusters of 2 MiB": ("I", 20, 21),
        "clusters of 2^255 bytes": ("I", 20, 255),
        "a disk of 8 EiB": ("Q", 24, 1 << 63),
        "a disk a sector longer": ("Q", 24, SIZE + 512),
        "LUKS": ("I", 32, 2),
        "an L1 table too short": ("I", 36, 1),
        "an L1 table off its cluster": ("Q", 40, L1_AT + 8),
        "an L1 table beyond the file": ("Q", 40, 1 << 62),
        "an L1 table at the header": ("Q", 40, 0),
        "an internal snapshot": ("I", 60, 1),
        "dirty": ("Q", 72, 1),
        "corrupt": ("Q", 72, 2),
        "an external data file": ("Q", 72, 4),
        "zstd": ("Q", 72, 8),
        "extended L2 entries": ("Q", 72, 16),
        "a feature of the future": ("Q", 72, 1 << 63),
        "64-bit refcounts": ("I", 96, 6),
        "a header of 72 bytes": ("I", 100, 72),
        "an L1 entry with reserved low bits": ("Q", L1_AT, L2_AT | 1),
        "an L1 entry with reserved high bits": ("Q", L1_AT, L2_AT | 1 << 60),
        "an L1 entry off its cluster": ("Q", L1_AT, L2_AT | 512),
        "an L1 entry beyond the file": ("Q", L1_AT, 1 << 50),
        "an L1 entry of a flag alone": ("Q", L1_AT, COPIED),
        "an L2 table in the header": ("Q", L1_AT, 0x200),
        "an L2 table that is the L1 table": ("Q", L1_AT, L1_AT | COPIED),
        "one L2 table twice": ("Q", L1_AT + 8, L2_AT | COPIED),
        "a compressed cluster": ("Q", L2_AT, DATA_AT | 1 << 62),
        "an L2 entry with reserved low bits": ("Q", L2_AT, DATA_AT | 2),
        "an L2 entry with reserved high bits": ("Q", L2_AT, DATA_AT | 1 << 57),
        "an L2 entry off its cluster": ("Q", L2_AT, DATA_AT | 512),
        "an L2 entry beyond the file": ("Q", L2_AT, 1 << 50),
        "an L2 entry of a flag alone": ("Q", L2_AT, COPIED),
        "data that is the L1 table": ("Q", L2_AT, L1_AT | COPIED),
    }.items(),
)
def test_a_lie_is_refused(lie: str, word: tuple[str, int, int]) -> None:
    with pytest.raises(VmferryError) as refused:
        read_everything(with_words(good(), word))
    assert refused.value.kind == "invalid_config", lie


@pytest.mark.parametrize("length", [0, 1, 103, 111, 112, LEAF, LEAF + 8, 2 * LEAF, L2_AT + 8])
def test_a_file_that_ends_too_early_is_refused(length: int) -> None:
    with pytest.raises(VmferryError):
        read_everything(good()[:length])


def test_an_image_without_the_parent_it_needs_is_refused_and_one_with_a_parent_it_does_not(tmp_path: Path) -> None:
    child = RangedFile(packed(tmp_path / "child", LEAF, [], backing="parent"))
    with pytest.raises(VmferryError, match="place in its chain"):
        Qcow2Reader(child, child.size, size=LEAF)
    file, parent = RangedFile(good()), RawReader(RangedFile(bytes(SIZE % MIB)), SIZE % MIB)
    with pytest.raises(VmferryError, match="place in its chain"):
        Qcow2Reader(file, file.size, size=SIZE, backing=parent)


places = st.one_of(
    st.integers(0, 111), st.integers(112, 160), st.integers(L1_AT, L1_AT + 23), st.integers(L2_AT, L2_AT + 63)
)
likely = st.sampled_from([0, 1, LEAF, L1_AT | COPIED, L2_AT | COPIED, 1 << 62, (1 << 64) - 1, len(good()) - LEAF])
words = st.tuples(st.just("Q"), places, likely | st.integers(0, (1 << 64) - 1)) | st.tuples(
    st.just("B"), places, st.integers(0, 255)
)


@pytest.mark.slow
@settings(FEW, max_examples=examples(200))
@given(st.lists(words, min_size=1, max_size=6), st.none() | st.integers(0, len(good())))
def test_any_damage_is_refused_or_read_within_the_file(damage: list[tuple[str, int, int]], cut: int | None) -> None:
    with contextlib.suppress(VmferryError):
        read_everything(with_words(good(), *damage)[:cut])


def test_a_small_file_of_a_huge_disk_costs_neither_time_nor_memory() -> None:
    """62 TiB whose every L1 entry is the same full table: a thousand million clusters in a few of the file's."""
    size = 62 * TIB
    tables = size // (512 * MIB)
    l1 = struct.pack(">Q", 18 * LEAF | COPIED) * tables
    l2 = struct.pack(">Q", 19 * LEAF | COPIED) * (LEAF // 8)
    header = with_words(good(), ("Q", 24, size), ("I", 36, tables))[:LEAF]
    image = header + l1.ljust(17 * LEAF, b"\0") + l2 + bytes(LEAF)
    started = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(VmferryError):
            read_everything(image, size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * MIB
    assert time.process_time() - started < 10


def test_an_l1_table_of_four_thousand_million_entries_is_not_read_whole() -> None:
    """Longer than the disk needs is allowed by the format: what is beyond the disk is never looked at."""
    file = RangedFile(with_words(good(), ("I", 36, (1 << 32) - 1)))
    reader = Qcow2Reader(file, file.size, size=SIZE)
    assert content_of(reader, 0, LEAF) == content(0, LEAF, 1)
    assert max(length for _offset, length in file.requests) == LEAF
