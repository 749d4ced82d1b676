# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VHDX images of ours, judged by QEMU, and of QEMU, read by us."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.crc32c import crc32c
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhdx.format import (
    HEADERS_AT,
    KIB,
    METADATA_REGION,
    REGIONS_AT,
    Header,
    sealed,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhdx.reader import VhdxReader
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhdx.writer import block_size

from .disks import FEW, GIB, MIB, TIB, RangedFile, content_of, islands, reference, run, runs_of, sizes
from .other_formats import assert_read_back, judge, judge_slices, written

SECTOR = 512
TABLE_AT = 3 * MIB


def test_the_checksum_is_the_one_of_the_vectors() -> None:
    """https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4"""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def bit_by_bit(data: bytes) -> int:
    """As RFC 9260 has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _unused in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("zeros", [0, 1, 3, 4096, 9001])
def test_zeros_behind_the_rest_are_summed_up_like_all_else(zeros: int) -> None:
    for data in (b"", b"\1", b"a\0b", bytes(range(256))):
        assert crc32c(data + bytes(zeros)) == bit_by_bit(data + bytes(zeros))


@FEW
@given(st.data())
def test_any_disk_is_the_same_to_qemu_and_to_our_reader(data: st.DataObject) -> None:
    size = data.draw(sizes(100))
    runs = data.draw(runs_of(size))
    with tempfile.TemporaryDirectory() as folder:
        image = written("vhdx", Path(folder) / "image", size, runs)
        expected = reference(Path(folder) / "reference", size, (runs, 1))
        judge("vhdx", image, expected, -(-size // SECTOR) * SECTOR)
        assert_read_back("vhdx", image, expected, size)


@pytest.mark.parametrize("size", [4 * TIB - 512, 9 * GIB + 513])
def test_a_large_sparse_disk_is_the_same_to_qemu(tmp_path: Path, size: int) -> None:
    """Blocks on both sides of where the table has the entry of a bitmap."""
    block = block_size(size)
    starts = [0, block - LEAF, block, 4 * GIB - LEAF, 4 * GIB, size // 2, size - 1]
    runs = islands(size, starts)
    image = written("vhdx", tmp_path / "image", size, runs)
    assert image.stat().st_blocks * 512 < 12 * MIB
    stored = [extent for extent in runs if extent.kind == "data"]
    expected = reference(tmp_path / "reference", size, (stored, 1))
    judge_slices("vhdx", image, expected, -(-size // SECTOR) * SECTOR, starts)
    run("qemu-img", "check", "-q", "-f", "vhdx", image)


@pytest.mark.parametrize(
    ("size", "block"), [(1, 2 * MIB), (TIB, 2 * MIB), (TIB + 1, 4 * MIB), (4 * TIB, 8 * MIB), (64 * TIB, 128 * MIB)]
)
def test_blocks_are_as_small_as_a_small_table_allows(size: int, block: int) -> None:
    assert block_size(size) == block


@pytest.mark.parametrize("options", ["subformat=dynamic,block_size=1M", "subformat=dynamic", "subformat=fixed"])
@pytest.mark.parametrize("size", [3 * MIB + 512, 70 * MIB])
def test_what_qemu_writes_is_read(tmp_path: Path, options: str, size: int) -> None:
    expected = reference(tmp_path / "reference", size, (islands(size, [0, MIB, size - 1], 3 * LEAF), 1))
    image = tmp_path / "image"
    run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", options, expected, image)
    file = RangedFile(image)
    source = VhdxReader(file, file.size)
    assert source.size == size
    assert content_of(source) == expected.read_bytes()


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    size = 8 * MIB
    return written("vhdx", tmp_path / "image", size, [Extent(0, size, "data")]).read_bytes()


def changed(image: bytes, at: int, data: bytes) -> VhdxReader:
    broken = image[:at] + data + image[at + len(data) :]
    return VhdxReader(RangedFile(broken), len(broken))


def test_one_header_and_one_table_of_regions_are_enough(whole: bytes) -> None:
    for at in (*HEADERS_AT, *REGIONS_AT):
        assert content_of(changed(whole, at + 100, b"\xff")) == content_of(changed(whole, 0, b""))
    both = whole[: HEADERS_AT[0]] + bytes(REGIONS_AT[0] - HEADERS_AT[0]) + whole[REGIONS_AT[0] :]
    with pytest.raises(VmferryError, match="no header"):
        VhdxReader(RangedFile(both), len(both))
    both = whole[: REGIONS_AT[0]] + bytes(128 * KIB) + whole[REGIONS_AT[0] + 128 * KIB :]
    with pytest.raises(VmferryError, match="no table of regions"):
        VhdxReader(RangedFile(both), len(both))


def test_a_log_that_is_to_be_replayed_is_refused(whole: bytes) -> None:
    header = Header(9, bytes(16), bytes(16), log_id=b"\1" * 16).pack()
    with pytest.raises(VmferryError, match="was not closed") as told:
        changed(whole, HEADERS_AT[0], header)
    assert "qemu-img check" in told.value.hint
    assert changed(whole, HEADERS_AT[0], Header(0, bytes(16), bytes(16), log_id=b"\1" * 16).pack()).size == 8 * MIB


def test_what_the_format_may_learn_later_is_refused(whole: bytes) -> None:
    with pytest.raises(VmferryError, match="version"):
        changed(whole, HEADERS_AT[0], Header(9, bytes(16), bytes(16), version=2).pack())
    regions = bytearray(whole[REGIONS_AT[0] : REGIONS_AT[0] + 64 * KIB])
    regions[4:8] = bytes(4)
    regions[regions.index(METADATA_REGION)] ^= 1
    with pytest.raises(VmferryError, match="other regions"):
        changed(whole, REGIONS_AT[0], sealed(regions))
    parameters = whole.index(struct.pack("<II", 2 * MIB, 0), 2 * MIB)
    with pytest.raises(VmferryError, match="a layer"):
        changed(whole, parameters, struct.pack("<II", 2 * MIB, 2))
    with pytest.raises(VmferryError, match="feature"):
        changed(whole, parameters, struct.pack("<II", 2 * MIB, 4))
    for block in (0, 3 * MIB, 512 * MIB, 64 * KIB):
        with pytest.raises(VmferryError, match="of a size"):
            changed(whole, parameters, struct.pack("<I", block))
    for size in (0, 1000, 65 * TIB):
        with pytest.raises(VmferryError, match="claims"):
            changed(whole, parameters + 8, struct.pack("<Q", size))


def test_metadata_that_overlaps_itself_is_refused(whole: bytes) -> None:
    """A megabyte could stand for two gigabytes."""
    first = 2 * MIB + 32
    assert struct.unpack_from("<I", whole, first + 20)[0] == 8, "the length of the first item"
    many = b"".join(
        struct.pack("<16sIIII", bytes([number] * 16), 64 * KIB, 512 * KIB, 0, 0) for number in range(100, 103)
    )
    table = bytearray(whole[2 * MIB : 2 * MIB + 64 * KIB])
    table[10:12] = struct.pack("<H", 8)
    table[32 + 5 * 32 : 32 + 5 * 32 + len(many)] = many
    with pytest.raises(VmferryError, match="metadata"):
        changed(whole, 2 * MIB, bytes(table))


def test_a_table_that_lies_is_refused(whole: bytes) -> None:
    first = whole[TABLE_AT : TABLE_AT + 8]
    with pytest.raises(VmferryError, match="overlap"):
        changed(whole, TABLE_AT + 8, first)
    with pytest.raises(VmferryError, match="outside"):
        changed(whole, TABLE_AT, struct.pack("<Q", len(whole) - MIB | 6))
    with pytest.raises(VmferryError, match="outside"):
        changed(whole, TABLE_AT, struct.pack("<Q", 6))
    with pytest.raises(VmferryError, match="state"):
        changed(whole, TABLE_AT, struct.pack("<Q", 100 * MIB | 7))
    for state in (0, 1, 2, 3):
        assert content_of(changed(whole, TABLE_AT, struct.pack("<Q", 100 * MIB | state)), 0, LEAF) == bytes(LEAF)


def test_an_image_that_ends_early_or_is_of_another_size_is_refused(whole: bytes) -> None:
    for end in (0, 7, 64 * KIB, 200 * KIB, 2 * MIB, 2 * MIB + 70 * KIB, TABLE_AT + 3, len(whole) - 1):
        with pytest.raises(VmferryError):
            VhdxReader(RangedFile(whole[:end]), end)
    for size in (8 * MIB + 1, 8 * MIB - SECTOR - 1):
        with pytest.raises(VmferryError, match="were expected"):
            VhdxReader(RangedFile(whole), len(whole), size=size)
