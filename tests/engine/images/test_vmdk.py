# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMDKs of ours, judged by QEMU, and of QEMU, read by us, by ranges and as a stream."""

from __future__ import annotations

import io
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Barrier
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images import fast_zlib
from ansible_collections.vmferry.migrate.plugins.module_utils._images.formats import FORMATS
from ansible_collections.vmferry.migrate.plugins.module_utils._images.image_format import NewImage
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vmdk import stream_optimized
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vmdk.grains import VmdkStream, inflated
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vmdk.reader import VmdkReader
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vmdk.stream_optimized import Deflate

from .disks import (
    FEW,
    GIB,
    MIB,
    TIB,
    FileOutput,
    RangedFile,
    content,
    content_of,
    islands,
    mixed,
    reference,
    run,
    runs_of,
    sizes,
)
from .other_formats import assert_read_back, judge, judge_slices, written

SECTOR = 512


@pytest.fixture(params=["isal", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The one that packs and unpacks, where nobody asks for a level."""
    fast_zlib.fast_zlib.cache_clear()
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)  # as the import system marks what is not there
    yield request.param
    fast_zlib.fast_zlib.cache_clear()


def streamed(data: bytes, most: int = 1 << 20) -> bytes:
    """The disk, as a stream tells it that gives at most so many bytes at once."""
    file = io.BytesIO(data)
    stream = VmdkStream(lambda count: file.read(min(count, most)))
    disk = bytearray(stream.size)
    for grain in stream:
        found = inflated(grain.packed)
        assert found is not None
        found = found[: stream.size - grain.offset]
        disk[grain.offset : grain.offset + len(found)] = found
    assert not file.read(), "not read to its end"
    return bytes(disk)


@FEW
@given(st.data())
def test_any_stream_optimized_disk_is_the_same_to_qemu_and_to_both_readers(data: st.DataObject) -> None:
    size = data.draw(sizes())
    runs = data.draw(runs_of(size))
    with tempfile.TemporaryDirectory() as folder:
        image = written("vmdk", Path(folder) / "image", size, runs, mixed)
        expected = reference(Path(folder) / "reference", size, (runs, 1), of=mixed)
        judge("vmdk", image, expected, -(-size // SECTOR) * SECTOR)
        assert_read_back("vmdk", image, expected, size)
        assert streamed(image.read_bytes(), data.draw(st.sampled_from([100, 512, 70_000, 1 << 20])))[:size] == (
            expected.read_bytes()
        )


def test_a_stream_optimized_disk_of_zeros_is_its_frame(tmp_path: Path) -> None:
    size = 40 * MIB
    image = written("vmdk", tmp_path / "image", size, [Extent(0, size, "zero")])
    assert image.stat().st_size < 2 * LEAF
    assert streamed(image.read_bytes()) == bytes(size)


def test_a_sparse_disk_of_two_tebibytes_is_the_same_to_qemu(tmp_path: Path) -> None:
    size = 2 * TIB - 511
    starts = [0, 32 * MIB - LEAF, 32 * MIB, TIB, size - 1]
    runs = islands(size, starts)
    image = written("vmdk", tmp_path / "image", size, runs)
    stored = [extent for extent in runs if extent.kind == "data"]
    judge_slices("vmdk", image, reference(tmp_path / "reference", size, (stored, 1)), 2 * TIB, starts)


@FEW
@given(st.data())
def test_any_sparse_disk_is_the_same_to_qemu_and_to_our_reader(data: st.DataObject) -> None:
    size = data.draw(sizes())
    runs = data.draw(runs_of(size))
    with tempfile.TemporaryDirectory() as folder:
        image = written("vmdk_sparse", Path(folder) / "image", size, runs)
        expected = reference(Path(folder) / "reference", size, (runs, 1))
        judge("vmdk_sparse", image, expected, -(-size // SECTOR) * SECTOR)
        assert_read_back("vmdk_sparse", image, expected, size)


@pytest.mark.parametrize("size", [TIB - 513, 3 * GIB])
def test_a_large_sparse_image_has_tables_that_map_nothing_and_takes_no_room(tmp_path: Path, size: int) -> None:
    starts = [0, 512 * MIB - LEAF, 512 * MIB, size // 2, size - 1]
    runs = islands(size, starts)
    image = written("vmdk_sparse", tmp_path / "image", size, runs)
    assert image.stat().st_blocks * 512 < 2 * MIB
    stored = [extent for extent in runs if extent.kind == "data"]
    expected = reference(tmp_path / "reference", size, (stored, 1))
    judge_slices("vmdk_sparse", image, expected, -(-size // SECTOR) * SECTOR, starts)


def test_a_vm_can_run_from_a_sparse_image(tmp_path: Path) -> None:
    """What was never written is written, in a grain whose table has mapped nothing until then."""
    size = 3 * GIB
    image = written("vmdk_sparse", tmp_path / "image", size, islands(size, [0]))
    run("qemu-io", "-f", "vmdk", "-c", f"write -q -P 7 {2 * GIB} 64k", image)
    run("qemu-img", "check", "-q", "-f", "vmdk", image)
    file = RangedFile(image)
    assert content_of(VmdkReader(file, file.size, size=size), 2 * GIB, 2 * LEAF) == b"\7" * LEAF + bytes(LEAF)


def test_both_copies_of_a_table_say_the_same(tmp_path: Path) -> None:
    image = written("vmdk_sparse", tmp_path / "image", 700 * MIB, islands(700 * MIB, [0, 600 * MIB])).read_bytes()
    redundant, directory = struct.unpack_from("<QQ", image, 48)
    for table in range(-(-700 // 32)):
        first, second = (
            struct.unpack_from("<I", image, at * SECTOR + 4 * table)[0] * SECTOR for at in (directory, redundant)
        )
        assert first != second
        assert image[first : first + 2048] == image[second : second + 2048]


def test_the_markers_are_those_of_the_specification(tmp_path: Path) -> None:
    """Header, grains, their table, the directory, the footer, the end: each where the one before it says."""
    size = 40 * MIB
    image = written("vmdk", tmp_path / "image", size, islands(size, [0, 33 * MIB])).read_bytes()
    at, found = struct.unpack_from("<Q", image, 64)[0] * SECTOR, []
    assert struct.unpack_from("<Q", image, 56)[0] == (1 << 64) - 1, "the directory is told to be in the footer"
    while at < len(image):
        value, length, kind = struct.unpack_from("<QII", image, at)
        found.append(f"grain {value}" if length else f"marker {kind}")
        at += -(-(12 + length) // SECTOR) * SECTOR if length else (1 + value) * SECTOR
    assert found == [
        "grain 0", "marker 1", f"grain {33 * MIB // SECTOR}", "marker 1", "marker 2", "marker 3", "marker 0",
    ]  # fmt: skip
    assert at == len(image)
    assert image[-1024:-1020] == b"KDMV"
    (directory,) = struct.unpack_from("<Q", image, len(image) - 1024 + 56)
    assert struct.unpack_from("<I", image, directory * SECTOR)[0]


@pytest.mark.parametrize("kind", ["streamOptimized", "monolithicSparse"])
@pytest.mark.parametrize("size", [3 * MIB + 512, 70 * MIB])
def test_what_qemu_writes_is_read(tmp_path: Path, kind: str, size: int) -> None:
    """QEMU's stream-optimized images have their tables in front, and no footer."""
    stored = [extent for extent in islands(size, [0, MIB, size - 1], 3 * LEAF) if extent.kind == "data"]
    expected = reference(tmp_path / "reference", size, (stored, 1), of=mixed)
    image = tmp_path / "image"
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", expected, image)
    file = RangedFile(image)
    source = VmdkReader(file, file.size)
    assert source.size == size
    assert content_of(source) == expected.read_bytes()
    if kind == "streamOptimized":
        assert streamed(image.read_bytes()) == expected.read_bytes()


def test_grains_of_neighbours_are_read_at_once(tmp_path: Path) -> None:
    size = 4 * MIB
    image = written("vmdk", tmp_path / "image", size, [Extent(0, size, "data")])
    file = RangedFile(image)
    source = VmdkReader(file, file.size, size=size)
    file.requests.clear()
    content_of(source)
    assert len(file.requests) <= 3
    file.requests.clear()
    content_of(source, LEAF, LEAF)
    assert sum(length for _place, length in file.requests) < LEAF + SECTOR, "no more than the grain"


def test_tables_that_lie_apart_are_asked_for_side_by_side(tmp_path: Path) -> None:
    """A server that takes its time for each answer is not waited for once for each 32 MiB of the disk."""
    size = 512 * MIB
    image = written("vmdk", tmp_path / "image", size, islands(size, range(0, size, 32 * MIB)))
    file, together, waiting = RangedFile(image), Barrier(4, timeout=20), iter(range(0))

    def slowly(offset: int, buffer: memoryview) -> None:
        if next(waiting, None) is not None:
            together.wait()
        file(offset, buffer)

    source = VmdkReader(slowly, file.size, size=size)
    waiting = iter(range(4))  # the first four alone: whoever comes last of more might find nobody left to wait with
    assert sum(extent.length for extent in source.extents() if extent.kind == "data") == 16 * LEAF
    assert next(waiting, None) is None
    file.requests.clear()
    assert content_of(source, 0, LEAF) == content(0, LEAF, 1)
    assert len(file.requests) == 1, "the table was there already"


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    size = 40 * MIB
    return written("vmdk", tmp_path / "image", size, islands(size, [0, LEAF, 33 * MIB]), mixed).read_bytes()


def test_a_stream_that_ends_early_is_refused(whole: bytes) -> None:
    for end in [0, 100, SECTOR, LEAF, LEAF + 700, *range(2 * LEAF, len(whole), 5000), len(whole) - 1]:
        with pytest.raises(VmferryError, match=r"ends early|no stream"):
            streamed(whole[:end])


def test_an_image_that_ends_early_is_refused(whole: bytes) -> None:
    for end in [0, 100, SECTOR, LEAF, *range(2 * LEAF, len(whole), 5000), len(whole) - 1]:
        with pytest.raises(VmferryError):
            VmdkReader(RangedFile(whole[:end]), end)


def test_an_image_of_another_size_is_refused(whole: bytes) -> None:
    with pytest.raises(VmferryError, match="were expected"):
        VmdkReader(RangedFile(whole), len(whole), size=40 * MIB + 1)


def test_a_grain_that_was_damaged_is_refused(whole: bytes, library: str) -> None:
    length = struct.unpack_from("<I", whole, LEAF + 8)[0]
    # Its sector, its length, its first bytes, its content, its checksum.
    for place in (LEAF, LEAF + 8, LEAF + 12, LEAF + 60, LEAF + 11 + length):
        broken = bytearray(whole)
        broken[place] ^= 0x55
        with pytest.raises(VmferryError, match="no compressed grain"):
            content_of(VmdkReader(RangedFile(bytes(broken)), len(broken)), 0, LEAF)


@pytest.mark.parametrize("noise", [0, 0.25, 0.5, 0.75, 1])
def test_a_grain_is_left_as_it_is_only_where_nothing_of_it_shrinks(noise: float, library: str) -> None:
    random, count = Random(1), int(noise * LEAF)
    leaf = random.randbytes(count) + b"text" * ((LEAF - count) // 4)
    packed = Deflate().pack(memoryview(leaf))
    assert inflated(memoryview(packed)) == leaf == zlib.decompress(packed)
    assert len(packed) < count + 2000


def test_the_fastest_library_packs_where_nobody_asks_for_a_level(library: str) -> None:
    leaf = b"".join(b"line %d\n" % number for number in range(LEAF))[:LEAF]
    assert Deflate().pack(memoryview(leaf)) == (isal_zlib if library == "isal" else zlib).compress(leaf, 1)
    for level in (1, 6):
        assert Deflate(level).pack(memoryview(leaf)) == zlib.compress(leaf, level)


def test_no_grain_gets_longer_than_its_place_whatever_a_library_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = Random(1).randbytes(LEAF)
    swelling = SimpleNamespace(compress=lambda data, level: bytes(LEAF + LEAF // 4))
    monkeypatch.setattr(stream_optimized, "fast_zlib", lambda: swelling)
    packed = Deflate().pack(memoryview(leaf))
    assert inflated(memoryview(packed)) == leaf
    assert len(packed) < LEAF + SECTOR


def test_a_grain_that_swells_is_refused(library: str) -> None:
    assert inflated(memoryview(zlib.compress(bytes(LEAF)))) == bytes(LEAF)
    assert inflated(memoryview(zlib.compress(bytes(LEAF + 1)))) is None
    assert inflated(memoryview(zlib.compress(bytes(1 << 26)))) is None
    assert inflated(memoryview(zlib.compress(bytes(LEAF))[:-1])) is None


def test_a_table_used_twice_is_refused(whole: bytes) -> None:
    (directory,) = struct.unpack_from("<Q", whole, len(whole) - 1024 + 56)
    broken = bytearray(whole)
    broken[directory * SECTOR + 4 : directory * SECTOR + 8] = broken[directory * SECTOR : directory * SECTOR + 4]
    with pytest.raises(VmferryError, match="twice"):
        VmdkReader(RangedFile(bytes(broken)), len(broken))


def test_data_beyond_what_the_format_can_address_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "image")
    for format_ in ("vmdk", "vmdk_sparse"):
        with pytest.raises(VmferryError, match="at most"):
            FORMATS[format_].write(NewImage(3 * TIB, [], 2 * TIB), output)
        with pytest.raises(VmferryError, match="too large"):
            FORMATS[format_].write(NewImage(63 * TIB, [], LEAF), output)
    output.file.close()
    assert not output.path.stat().st_size
