# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VHDs of ours, fixed and dynamic, judged by QEMU, and of QEMU, read by us."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.formats import FORMATS
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhd.format import checksum, geometry
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhd.reader import VhdReader

from .disks import FEW, GIB, MIB, FileOutput, RangedFile, content_of, islands, reference, run, runs_of, sizes
from .other_formats import assert_read_back, judge, judge_slices, new_image, written

SECTOR = 512
KINDS = ("vhd", "vhd_dynamic")


def virtual_size(format: str, size: int) -> int:
    unit = MIB if format == "vhd" else SECTOR
    return -(-size // unit) * unit


@pytest.mark.parametrize("format_", KINDS)
@FEW
@given(st.data())
def test_any_disk_is_the_same_to_qemu_and_to_our_reader(format_: str, data: st.DataObject) -> None:
    size = data.draw(sizes(100))
    runs = data.draw(runs_of(size))
    with tempfile.TemporaryDirectory() as folder:
        image = written(format_, Path(folder) / "image", size, runs)
        expected = reference(Path(folder) / "reference", size, (runs, 1))
        judge(format_, image, expected, virtual_size(format_, size))
        assert_read_back(format_, image, expected, size)


@pytest.mark.parametrize("format_", KINDS)
@pytest.mark.parametrize("size", [MIB - 512, MIB, MIB + 512, 40 * MIB])
def test_the_footer_is_what_azure_asks_for(tmp_path: Path, format_: str, size: int) -> None:
    """https://learn.microsoft.com/en-us/azure/virtual-machines/linux/create-upload-generic"""
    runs = [Extent(0, size, "data")]
    image = written(format_, tmp_path / "image", size, runs).read_bytes()
    footer = image[-512:]
    assert footer[:8] == b"conectix"
    (found,) = struct.unpack_from(">I", footer, 64)
    assert found == checksum(footer, 64) == ~sum(footer[:64] + footer[68:]) & 0xFFFFFFFF
    assert struct.unpack_from(">QQ", footer, 40) == (virtual_size(format_, size),) * 2
    if format_ == "vhd":
        assert len(image) == virtual_size(format_, size) + 512
        assert not (len(image) - 512) % MIB
        assert footer[60:64] == b"\0\0\0\2"
    else:
        assert image[:512] == footer


@pytest.mark.parametrize("sectors", [1, 17, 68, 69_632, 1_114_112, 10_000_000, 66_059_280, 267_382_800, 4_000_000_000])
def test_a_geometry_covers_no_more_than_the_disk_and_almost_all_of_it(sectors: int) -> None:
    cylinders, heads, track = geometry(sectors)
    covered = cylinders * heads * track
    assert covered <= sectors
    assert sectors - covered < heads * track or sectors > 65535 * 16 * 255
    assert cylinders <= 65535
    assert heads <= 16
    assert track <= 255


@pytest.mark.parametrize("format_", KINDS)
def test_the_largest_sparse_disk_is_the_same_to_qemu(tmp_path: Path, format_: str) -> None:
    size = 2040 * GIB
    starts = [0, 2 * MIB - LEAF, 2 * MIB, 1000 * GIB + 3 * LEAF, size - 1]
    runs = islands(size, starts)
    image = written(format_, tmp_path / "image", size, runs)
    assert image.stat().st_blocks * 512 < 8 * MIB
    stored = [extent for extent in runs if extent.kind == "data"]
    if format_ == "vhd":
        run("qemu-img", "compare", "-f", "vpc", image, reference(tmp_path / "reference", size, (stored, 1)))
    else:
        judge_slices(format_, image, reference(tmp_path / "reference", size, (stored, 1)), size, starts)


@pytest.mark.parametrize("format_", KINDS)
def test_a_disk_too_large_for_windows_is_refused(tmp_path: Path, format_: str) -> None:
    output = FileOutput(tmp_path / "image")
    with pytest.raises(VmferryError, match="too large"):
        FORMATS[format_].write(new_image(2040 * GIB + 512, []), output)
    output.file.close()


def test_data_beyond_what_a_table_can_address_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "image")
    with pytest.raises(VmferryError, match="at most"):
        FORMATS["vhd_dynamic"].write(new_image(2040 * GIB, [Extent(0, 2040 * GIB, "data")]), output)
    output.file.close()


@pytest.mark.parametrize("format_", KINDS)
def test_a_disk_of_zeros_takes_no_room(tmp_path: Path, format_: str) -> None:
    size = 300 * MIB
    image = written(format_, tmp_path / "image", size, [Extent(0, size, "zero")])
    assert image.stat().st_blocks * 512 <= 2 * LEAF
    judge(format_, image, reference(tmp_path / "reference", size), size)


@pytest.mark.parametrize("subformat", ["fixed", "dynamic"])
@pytest.mark.parametrize("size", [3 * MIB + 512, 70 * MIB])
def test_what_qemu_writes_is_read(tmp_path: Path, subformat: str, size: int) -> None:
    expected = reference(tmp_path / "reference", size, (islands(size, [0, MIB, size - 1], 3 * LEAF), 1))
    image, options = tmp_path / "image", f"subformat={subformat},force_size=on"
    run("qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", options, expected, image)
    file = RangedFile(image)
    source = VhdReader(file, file.size)
    assert source.size == size
    assert content_of(source) == expected.read_bytes()


@pytest.mark.parametrize("format_", KINDS)
def test_an_image_that_ends_early_or_is_of_another_size_is_refused(tmp_path: Path, format_: str) -> None:
    size = 5 * MIB
    image = written(format_, tmp_path / "image", size, [Extent(0, size, "data")]).read_bytes()
    for end in (0, 511, 512, 2 * MIB, len(image) - 512, len(image) - 1):
        with pytest.raises(VmferryError, match=r"footer|kind"):
            VhdReader(RangedFile(image[:end]), end)
    for other in (size + MIB, size - 2 * MIB):
        with pytest.raises(VmferryError, match="were expected"):
            VhdReader(RangedFile(image), len(image), size=other)


def test_a_table_that_lies_is_refused(tmp_path: Path) -> None:
    size = 8 * MIB
    image = written("vhd_dynamic", tmp_path / "image", size, [Extent(0, size, "data")]).read_bytes()

    def opened(table: bytes) -> VhdReader:
        changed = image[:1536] + table + image[1536 + len(table) :]
        return VhdReader(RangedFile(changed), len(changed))

    first, second = image[1536:1540], image[1540:1544]
    assert opened(first + second).size == size
    with pytest.raises(VmferryError, match="overlap"):
        opened(first + first)
    with pytest.raises(VmferryError, match="outside"):
        opened(struct.pack(">I", len(image) // 512 - 100))
    with pytest.raises(VmferryError, match="outside"):
        opened(struct.pack(">I", 1))


@pytest.mark.parametrize(("at", "match"), [(-100, "footer"), (600, "header")])
def test_a_checksum_that_does_not_fit_is_refused(tmp_path: Path, at: int, match: str) -> None:
    image = bytearray(written("vhd_dynamic", tmp_path / "image", MIB, [Extent(0, MIB, "data")]).read_bytes())
    image[at] ^= 1
    with pytest.raises(VmferryError, match=match):
        VhdReader(RangedFile(bytes(image)), len(image))
