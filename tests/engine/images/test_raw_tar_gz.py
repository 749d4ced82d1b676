# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks in gzipped tar archives: GNU tar, Python and QEMU find in ours what was written, and we in those of others."""

from __future__ import annotations

import gzip
import tarfile
import tempfile
import zlib
from array import array
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images import disk_archive
from ansible_collections.vmferry.migrate.plugins.module_utils._images.formats import FORMATS
from ansible_collections.vmferry.migrate.plugins.module_utils._images.raw_tar_gz import index, stream
from ansible_collections.vmferry.migrate.plugins.module_utils._images.raw_tar_gz.deflate import (
    LAST_BLOCK,
    SumOfLeaves,
    deflated,
    inflated,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._images.raw_tar_gz.reader import RawTarGzReader
from ansible_collections.vmferry.migrate.plugins.module_utils._images.raw_tar_gz.stream import GzipStream

from ..searching import examples
from .disks import (
    FEW,
    GIB,
    KIB,
    MIB,
    FileOutput,
    RangedFile,
    assert_tiled,
    content,
    content_of,
    feed,
    islands,
    mixed,
    reference,
    run,
)
from .hostile_archives import SIZE, of_disk, put, sealed, sparse
from .other_formats import assert_read_back, for_qemu, new_image, opened, written

NAME = "raw_tar_gz"
AS_GOOGLE_SAYS = ("--format=oldgnu", "--sparse", "--gzip")


def judge(image: Path, expected: Path) -> None:
    """gzip finds every sum right, and QEMU the same disk in what tar unpacks, with zeros up to a whole GiB."""
    run("gzip", "--test", image)
    _raw, unpacked = for_qemu(NAME, image)
    assert unpacked.stat().st_size == -(-expected.stat().st_size // GIB) * GIB
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", unpacked, expected)


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, list[Extent]]:
    """With gaps that are left out, and others that are too small for it."""
    size = draw(st.integers(1, 30)) * MIB + draw(st.sampled_from([0, 1, 512, 65535]))
    starts = draw(st.lists(st.integers(0, size - 1), max_size=12))
    return size, islands(size, starts, draw(st.integers(1, 12)) * LEAF)


@FEW
@given(disks())
def test_any_disk_is_the_same_to_tar_and_qemu_and_to_our_reader(disk: tuple[int, list[Extent]]) -> None:
    size, runs = disk
    with tempfile.TemporaryDirectory() as folder:
        image = written(NAME, Path(folder) / "disk.tar.gz", size, runs, mixed)
        stored = [extent for extent in runs if extent.kind == "data"]
        expected = reference(Path(folder) / "reference", size, (stored, 1), of=mixed)
        judge(image, expected)
        assert_read_back(NAME, image, expected, size)


DISKS = {
    "empty": (5 * MIB, []),
    "one run": (GIB, [0]),
    "at the end": (GIB, [GIB - 1]),
    "four runs": (GIB, [0, 100 * MIB, 200 * MIB, 300 * MIB]),
    "runs up to the end": (2 * GIB, [MIB, 9 * MIB, 600 * MIB, 2 * GIB - 1]),
    "one extension": (GIB, [2 * MIB * number for number in range(1, 25)]),
    "two extensions": (GIB, [2 * MIB * number for number in range(1, 26)]),
    "above 8 GiB": (20 * GIB, [0, 8 * GIB - LEAF, 8 * GIB + 4 * MIB, 19 * GIB]),
}


@pytest.mark.parametrize("disk", DISKS)
def test_what_is_packed_is_what_gnu_tar_makes_of_the_disk_as_google_asks_for_it(disk: str, tmp_path: Path) -> None:
    size, starts = DISKS[disk]
    runs = islands(size, starts)
    raw = reference(tmp_path / "disk.raw", size, ([extent for extent in runs if extent.kind == "data"], 1))
    with raw.open("r+b") as file:
        file.truncate(-(-size // GIB) * GIB)
    run(
        *("tar", "--format=oldgnu", "--sparse", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"),
        *("--mode=0644", "--create", "--file", tmp_path / "theirs.tar", "--directory", tmp_path, "disk.raw"),
    )
    image = written(NAME, tmp_path / "disk.tar.gz", size, runs)
    assert gzip.decompress(image.read_bytes()) == (tmp_path / "theirs.tar").read_bytes()


def test_a_disk_that_is_full_is_a_plain_member(tmp_path: Path) -> None:
    size = GIB
    image = tmp_path / "disk.tar.gz"
    output = FileOutput(image)
    runs = [Extent(0, size, "data")]
    writer = FORMATS[NAME].write(new_image(size, runs), output)
    feed(writer, size, islands(size, [0, 500 * MIB, size - 1]), 1)  # what was announced as data and is zeros
    output.finish(writer)
    with tarfile.open(image) as archive:
        member = archive.next()
        assert member is not None
        assert (member.name, member.size, member.type) == ("disk.raw", size, tarfile.REGTYPE)
    assert image.stat().st_size < 3 * MIB
    source, _file = opened(NAME, image, size)
    assert list(source.extents()) == runs
    for start in (0, 500 * MIB, size - LEAF):
        assert content_of(source, start, LEAF) == content(start, LEAF, 1)
    assert not any(content_of(source, 499 * MIB, MIB))


def test_data_that_nobody_announced_have_no_place(tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "image")
    writer = FORMATS[NAME].write(new_image(8 * MIB, islands(8 * MIB, [MIB])), output)
    with pytest.raises(VmferryError, match="where none was announced"):
        feed(writer, 8 * MIB, islands(8 * MIB, [5 * MIB]), 1)
    output.file.close()


def test_what_lies_far_apart_is_the_same_to_python(tmp_path: Path) -> None:
    """Offsets of more than 8 GiB are no octal digits any more."""
    size = 600 * GIB - 512
    starts = [0, 8 * GIB, 301 * GIB + LEAF, size - 1]
    image = written(NAME, tmp_path / "disk.tar.gz", size, islands(size, starts))
    assert image.stat().st_size < MIB
    source, _file = opened(NAME, image, size)
    assert_tiled(list(source.extents()), size)
    with tarfile.open(image) as archive:
        member = archive.next()
        assert member is not None
        assert member.size == 600 * GIB
        found = archive.extractfile(member)
        assert found is not None
        for start in (start // LEAF * LEAF for start in starts):
            found.seek(start)
            data = found.read(2 * LEAF)
            assert data[:LEAF] == content(start, min(LEAF, size - start), 1).ljust(LEAF, b"\0")
            assert not any(data[LEAF:])
            assert content_of(source, start, min(LEAF, size - start)) == data[: min(LEAF, size - start)]


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    size = 40 * MIB
    image = written(NAME, tmp_path / "disk.tar.gz", size, [Extent(0, size, "data")], noise)
    source, file = opened(NAME, image, size)
    file.requests.clear()
    assert content_of(source, 20 * MIB + 7, MIB) == noise(20 * MIB, 2 * MIB, 1)[7 : 7 + MIB]
    assert sum(length for _offset, length in file.requests) < 2 * MIB
    file.requests.clear()
    assert content_of(source) == noise(0, size, 1)
    assert len(file.requests) < size // MIB + 45


def noise(offset: int, length: int, seed: int) -> bytes:
    """What nothing shrinks."""
    leaves = range(offset // LEAF, -(-(offset + length) // LEAF))
    return b"".join(Random(f"{seed} {leaf}").randbytes(LEAF) for leaf in leaves)[:length]


def test_a_level_is_a_choice_between_time_and_room(tmp_path: Path) -> None:
    text = b"".join(b"%d," % number for number in range(400_000))[: 32 * LEAF]
    stored = []
    for level in (1, 9):
        output = FileOutput(tmp_path / f"level-{level}")
        codec = FORMATS[NAME].codec_for("zlib", level)
        writer = FORMATS[NAME].write(replace(new_image(32 * LEAF, [Extent(0, 32 * LEAF, "data")]), codec=codec), output)
        feed(writer, 32 * LEAF, [Extent(0, 32 * LEAF, "data")], 1, lambda offset, length, _seed: text[offset:][:length])
        output.finish(writer)
        stored.append(output.path.stat().st_size)
    assert stored[1] < stored[0] < 32 * LEAF
    with pytest.raises(VmferryError, match="levels from 1 to 9"):
        FORMATS[NAME].codec_for("zlib", 10)


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=5), st.binary(max_size=99))
@FEW
def test_sums_of_leaves_come_to_the_sum_of_all(leaves: list[bytes], before: bytes) -> None:
    total = SumOfLeaves(zlib.crc32(before))
    whole = before
    for leaf in leaves:
        padded = leaf.ljust(LEAF, b"\1")
        total.add(zlib.crc32(padded))
        whole += padded
    assert total.value == zlib.crc32(whole)


# Of others.


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = 24 * MIB
    runs = islands(size, [0, 3 * MIB, 9 * MIB, 10 * MIB, 23 * MIB], 5 * LEAF)
    stored = [extent for extent in runs if extent.kind == "data"]
    return reference(tmp_path_factory.mktemp("disk") / "disk.raw", size, (stored, 1), of=mixed)


def by_tar(*options: str, name: str = "disk.raw") -> Callable[[Path, Path], None]:
    def make(disk: Path, target: Path) -> None:
        run("tar", *options, "--create", "--file", target, "--directory", disk.parent, name)

    return make


def by_python(disk: Path, target: Path) -> None:
    with tarfile.open(target, "w:gz", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(disk, "disk.raw")


def in_members(disk: Path, target: Path) -> None:
    """As parallel gzips write it, with zeros behind it as a tape has them."""
    plain = target.with_suffix(".tar")
    run("tar", "--format=oldgnu", "--sparse", "--create", "--file", plain, "--directory", disk.parent, "disk.raw")
    data = plain.read_bytes()
    cuts = [data[at : at + 300_001] for at in range(0, len(data), 300_001)]
    target.write_bytes(b"".join(gzip.compress(cut, 1) for cut in cuts) + bytes(5000))


def with_a_name(disk: Path, target: Path) -> None:
    plain = target.with_suffix("")
    run("tar", "--create", "--file", plain, "--directory", disk.parent, "./disk.raw")
    run("gzip", "-1", "--name", plain)


OTHERS = {
    "as Google says": by_tar(*AS_GOOGLE_SAYS),
    "not sparse": by_tar("--format=oldgnu", "--gzip"),
    "newer format of GNU tar": by_tar("--format=gnu", "--sparse", "--gzip"),
    "of the oldest format": by_tar("--format=v7", "--gzip"),
    "by Python": by_python,
    "in members": in_members,
    "with a name": with_a_name,
}


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes gibibytes otherwise: chunks are forgotten, and there are too many places to enter the stream at."""
    for name, value in {"CHUNK": 100 * KIB, "_KEPT": 3, "_STEP": 2, "_PLACES": 8, "_PACKED": 3 * KIB}.items():
        monkeypatch.setattr(stream, name, value)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("other", OTHERS)
def test_archives_of_others_are_read_from_anywhere(other: str, disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.tar.gz"
    OTHERS[other](disk, image)
    expected = disk.read_bytes()
    source, _file = opened(NAME, image, len(expected))
    assert_tiled(list(source.extents()), len(expected))
    assert content_of(source) == expected
    random = Random(7)
    for _unused in range(60):
        start = random.randrange(len(expected))
        length = min(random.randrange(1, 200 * KIB), len(expected) - start)
        assert content_of(source, start, length) == expected[start : start + length]


def test_an_archive_of_others_is_unpacked_once_by_readers_that_go_on_together(disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.tar.gz"
    by_tar("--format=oldgnu", "--gzip")(disk, image)
    source, file = opened(NAME, image, disk.stat().st_size)
    windows = [start * MIB for number in range(0, 24, 4) for start in (number + 2, number, number + 3, number + 1)]
    whole = disk.read_bytes()
    for start in windows:
        assert content_of(source, start, MIB) == whole[start : start + MIB]
    assert sum(length for _offset, length in file.requests) <= file.size + MIB


@pytest.mark.usefixtures("small_steps")
def test_whoever_goes_back_a_little_does_not_begin_anew(disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.tar.gz"
    by_tar("--format=oldgnu", "--gzip")(disk, image)
    whole = disk.read_bytes()
    source, file = opened(NAME, image, len(whole))
    assert content_of(source) == whole
    for start in (22 * MIB, 12 * MIB, 17 * MIB):
        file.requests.clear()
        assert content_of(source, start, KIB) == whole[start : start + KIB]
        assert sum(length for _offset, length in file.requests) < file.size // 4


@pytest.mark.usefixtures("small_steps")
def test_after_a_read_that_failed_the_stream_goes_on_where_it_should(disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.tar.gz"
    by_tar(*AS_GOOGLE_SAYS)(disk, image)
    file, failures = RangedFile(image), iter([False] * 200 + [True] * 3)

    def read_at(offset: int, buffer: memoryview) -> None:
        if next(failures, False):
            raise VmferryError("network", "The store did not answer.")
        file(offset, buffer)

    source, found, failed = RawTarGzReader(read_at, file.size), b"", 0
    while len(found) < source.size and failed < 9:
        try:
            found += content_of(source, len(found), min(64 * KIB, source.size - len(found)))
        except VmferryError:
            failed += 1
    assert failed == 3
    assert found == disk.read_bytes()


LIES: dict[str, Callable[[], bytes]] = {
    "another name": lambda: of_disk(sealed(put(0, b"disc"))),
    "a wrong sum": lambda: of_disk(lambda data: b"disk.raw\0x" + data[10:]),
    "a link": lambda: of_disk(sealed(put(156, b"2"))),
    "a size that is none": lambda: of_disk(sealed(put(124, b"0000x"))),
    "a size below zero": lambda: of_disk(sealed(put(124, b"\xff" * 12))),
    "a size that no disk has": lambda: of_disk(sealed(put(124, b"\x80" + b"\xff" * 11))),
    "runs that overlap": lambda: of_disk(sealed(sparse((0, 2 * MIB), (MIB, MIB)))),
    "runs behind the end": lambda: of_disk(sealed(sparse((2 * MIB, 3 * MIB)))),
    "fewer runs than bytes": lambda: of_disk(sealed(sparse((0, MIB)))),
    "no more runs where there should be": lambda: of_disk(sealed(sparse(), put(482, b"\1"))),
    "nothing": lambda: gzip.compress(b""),
    "half a header": lambda: gzip.compress(bytes(300)),
    "no gzip": lambda: b"\x1f\x8b\x08 but nothing else",
    "a cut": lambda: of_disk(lambda data: data)[:300],
}


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_of_others_is_refused(lie: str) -> None:
    file = RangedFile(LIES[lie]())
    with pytest.raises(VmferryError) as refused:
        RawTarGzReader(file, file.size, where="/images/one")
    assert refused.value.kind == "invalid_config"
    assert refused.value.message.startswith("/images/one ")


def test_a_stream_that_ends_early_is_no_disk() -> None:
    whole = of_disk(lambda data: data)
    for end in (-9, -40_000):
        file = RangedFile(whole[:end])
        with pytest.raises(VmferryError, match="ends early"):
            content_of(RawTarGzReader(file, file.size))


@pytest.mark.usefixtures("small_steps")
def test_who_reads_a_stream_to_its_end_learns_that_its_sum_is_another() -> None:
    """A disk ends before, so that it takes more than to read the disk."""
    whole = of_disk(lambda data: data + bytes(MIB))
    archive = gzip.decompress(whole)
    for packed, is_sound in ((whole, True), (whole[:-8] + b"\0\0\0\0" + whole[-4:], False)):
        file, found = RangedFile(packed), bytearray(len(archive))
        unpacked = GzipStream(file, file.size, "/images/one")
        unpacked.read_into(0, memoryview(found)[:SIZE])
        assert found[:SIZE] == archive[:SIZE]
        if is_sound:
            unpacked.read_into(SIZE, memoryview(found)[SIZE:])
            assert found == archive
        else:
            with pytest.raises(VmferryError, match="cannot be unpacked"):
                unpacked.read_into(SIZE, memoryview(found)[SIZE:])


def test_another_size_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    image = written(NAME, tmp_path / "image", GIB, islands(GIB, [0]))
    for size in (GIB + 1, 2 * GIB):
        with pytest.raises(VmferryError, match="were expected"):
            opened(NAME, image, size)
    file = RangedFile(image)
    with pytest.raises(VmferryError, match="were expected"):
        RawTarGzReader(file, file.size, size=0)


@pytest.mark.parametrize(("content", "count"), [(b"", 50_000), (b"x", 40_000)], ids=["empty", "a byte each"])
def test_members_with_next_to_nothing_in_them_are_left(content: bytes, count: int) -> None:
    """A member takes as much time as kilobytes."""
    file = RangedFile(gzip.compress(content, 1, mtime=0) * count)
    with pytest.raises(VmferryError, match="members and more"):
        GzipStream(file, file.size, "/images/one").read_into(0, memoryview(bytearray(MIB)))
    assert sum(length for _offset, length in file.requests) < MIB


def test_what_is_behind_a_member_is_not_copied_again_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = []

    class Counted:
        def __init__(self, bits: int) -> None:
            self._stream = zlib.decompressobj(bits)

        def decompress(self, data: memoryview, most: int) -> bytes:
            fed.append(len(data))
            return self._stream.decompress(data, most)

        def copy(self) -> Counted:
            return self

        def __getattr__(self, name: str) -> object:
            return getattr(self._stream, name)

    monkeypatch.setattr(stream, "zlib", SimpleNamespace(decompressobj=Counted, error=zlib.error))
    members = [gzip.compress(Random(number).randbytes(600), 1) for number in range(1700)]
    file, found = RangedFile(b"".join(members)), bytearray(600 * len(members))
    GzipStream(file, file.size, "/images/one").read_into(0, memoryview(found))
    assert bytes(found) == b"".join(gzip.decompress(member) for member in members)
    assert sum(fed) < 20 * file.size


UNENDING_MAPS = {"empty runs": b"%011o\0%011o\0" % (0, 0) * 21, "no runs": bytes(504)}


@pytest.mark.parametrize("entries", UNENDING_MAPS.values(), ids=UNENDING_MAPS)
def test_a_map_without_an_end_is_left(entries: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gzip makes a thousandth of it."""
    monkeypatch.setattr(disk_archive, "LARGEST_MAP", 1000)
    header = sealed(sparse(), put(482, b"\1"))(bytes(512))
    header = sealed(put(0, b"disk.raw"), put(257, b"ustar  \0"))(header)
    blocks = iter([header, *[(entries + b"\1").ljust(512, b"\0")] * 60])  # of which 48 are 1000 entries
    assert disk_archive.unpacked_header(lambda _count: next(blocks)) is None
    assert len(list(blocks)) > 10


def test_no_map_of_ours_has_more_runs_than_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (GIB, 511 * GIB, 513 * GIB, 8000 * GIB, 65536 * GIB):
        most = size // (disk_archive.longest_gap(size) + LEAF) + 1
        assert most + 1 <= disk_archive.LARGEST_MAP
    assert disk_archive.longest_gap(512 * GIB) == MIB
    monkeypatch.setattr(disk_archive, "LARGEST_MAP", 1000)
    size = 6 * GIB
    layout = disk_archive.planned_map(size, (Extent(at, LEAF, "data") for at in range(0, size, MIB + 2 * LEAF)))
    header = list(disk_archive.packed_header(layout))
    assert len(header) * 512 <= disk_archive.header_bound(size, layout.stored)
    blocks = iter(header)
    found = disk_archive.unpacked_header(lambda _count: next(blocks))
    assert found is not None
    assert list(found) == list(layout)


# What is entered by an index is what the whole stream says.


def test_a_piece_of_a_stream_is_entered_only_where_blocks_end_on_a_byte() -> None:
    first, second = (mixed(leaf * LEAF, LEAF, 1)[-9000:] for leaf in (0, 5))
    pieces = [deflated(first, 6), deflated(second, 6)]
    data = b"".join(pieces)
    for cut in range(len(data) + 1):
        before = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[:cut])
        found = inflated(memoryview(data)[:cut], len(before))
        if found is not None:
            assert zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[:cut] + LAST_BLOCK) == found
            assert zlib.decompress(data[:cut] + deflated(b"next", 1) + LAST_BLOCK, -15) == found + b"next"
    assert inflated(memoryview(pieces[0]), len(first)) == first
    assert inflated(memoryview(data), len(first + second)) == first + second


def bits(*fields: tuple[int, int] | str) -> bytes:
    """Numbers of so many bits, the lowest first, and codes as they are, whose bits come in their order."""
    text = "".join(one if isinstance(one, str) else format(one[0], f"0{one[1]}b")[::-1] for one in fields)
    assert not len(text) % 8
    return bytes(int(text[at : at + 8][::-1], 2) for at in range(0, len(text), 8))


STORED = b"\0\5\0\xfa\xffAAAAA"  # a whole block
SHORT_CODES = [2 if symbol in (17, 18) else 0 for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3)]
SHORT_CODES += [0, 0, 0, 1, 0]  # of 13, 2, 14, 1 and 15: "0" is the length 1, and "11" a repeat of zeros
OPEN_ENDS = {
    "a literal": (STORED + b"\x63", 6),  # of the last block; its other bits are those of LAST_BLOCK
    "the codes of the last block": (
        STORED
        + bits(
            *("0100000000", "0100000000"),  # two empty blocks
            *((1, 1), (2, 2), (1, 5), (1, 5), (15, 4)),
            *((length, 3) for length in SHORT_CODES),
            *("11", (127, 7), "11", (96, 7)),  # 138 and 107 symbols are without a code, of 256
        ),
        5,
    ),
}


@pytest.mark.parametrize("name", OPEN_ENDS)
def test_a_block_that_takes_what_is_behind_it_for_its_own_is_not_entered(name: str) -> None:
    packed, size = OPEN_ENDS[name]
    stream = zlib.decompressobj(-15)
    assert (len(stream.decompress(packed + LAST_BLOCK)), stream.eof, stream.unused_data) == (size, True, b"")
    assert inflated(memoryview(packed), size) is None
    assert inflated(memoryview(packed), 5) is None
    assert inflated(memoryview(STORED), 5) == b"AAAAA"


@st.composite
def ends(draw: st.DrawFn) -> bytes:
    """Of streams with their last block, or without it, cut off anywhere or with other bytes behind them."""
    stream = zlib.compressobj(
        draw(st.integers(0, 9)), zlib.DEFLATED, -15, 8, draw(st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED]))
    )
    packed = stream.compress(draw(st.binary(max_size=40) | st.just(mixed(0, 700, 1))))
    packed += stream.flush(draw(st.sampled_from([zlib.Z_FULL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FINISH])))
    return packed[: len(packed) - draw(st.integers(0, 6))] + draw(st.binary(max_size=3))


@given(ends(), st.binary(min_size=1, max_size=9))
@settings(max_examples=examples(200), deadline=None)
def test_what_is_entered_ends_where_the_next_begins(packed: bytes, following: bytes) -> None:
    try:
        before = zlib.decompressobj(-15).decompress(packed)
    except zlib.error:
        before = b""
    for more in range(3):
        found = inflated(memoryview(packed), len(before) + more) if len(before) + more else None
        if found is not None:
            stream = zlib.decompressobj(-15)
            assert stream.decompress(packed + deflated(following, 1) + LAST_BLOCK) == found + following
            assert stream.eof


def test_an_index_that_enters_what_others_pass_over_is_not_believed() -> None:
    """A stored block holds blocks itself: who reads the stream sees their bytes, who enters it there what they hold."""
    hidden = deflated(bytes([7]) * LEAF, 1)
    for length in (len(hidden), len(hidden) + 9):
        outer = b"\0" + length.to_bytes(2, "little") + (length ^ 0xFFFF).to_bytes(2, "little")
        assert inflated(memoryview(outer), 0) is None
    shared = zlib.compressobj(6, zlib.DEFLATED, -15)
    first = shared.compress(content(0, LEAF, 1)) + shared.flush(zlib.Z_SYNC_FLUSH)
    second = shared.compress(content(0, LEAF, 1)) + shared.flush(zlib.Z_SYNC_FLUSH)
    assert inflated(memoryview(first), LEAF) is not None
    assert inflated(memoryview(second), LEAF) is None  # it goes back to what is before it


@pytest.mark.parametrize(
    "between", [b"\0\5\0\xfa\xffxxxxx", b"\0\5\0\xfa\xff", b"x"], ids=["a block", "half", "a byte"]
)
def test_an_index_that_leaves_out_what_is_behind_the_header_is_not_believed(between: bytes, tmp_path: Path) -> None:
    size = MIB
    image = written(NAME, tmp_path / "image", size, [Extent(0, size, "data")]).read_bytes()
    locator = index.Locator.unpack(image[-index.LOCATOR_SIZE :])
    assert locator is not None
    starts = locator.starts(image[locator.place :])
    assert starts is not None
    lengths = array("I", [end - start for start, end in zip(starts, starts[1:])])
    for inserted in (b"", between):
        members = index.packed_index(lengths, locator.first + len(inserted), locator.place + len(inserted))
        whole = image[: locator.first] + inserted + image[locator.first : locator.place] + b"".join(members)
        file = RangedFile(whole)
        if inserted:
            with pytest.raises(VmferryError, match="does not fit"):
                RawTarGzReader(file, file.size, size=size)
        else:
            assert whole == image


def test_an_index_that_was_changed_is_noticed(tmp_path: Path) -> None:
    size = 2 * MIB
    image = written(NAME, tmp_path / "image", size, [Extent(0, size, "data")], mixed).read_bytes()
    locator = index.Locator.unpack(image[-index.LOCATOR_SIZE :])
    assert locator is not None
    expected = mixed(0, size, 1)
    noticed = 0
    for at in range(locator.place, len(image)):
        file = RangedFile(image[:at] + bytes([image[at] ^ 1]) + image[at + 1 :])
        try:
            assert content_of(RawTarGzReader(file, file.size, size=size)) == expected
        except VmferryError:
            noticed += 1
    assert noticed > index.LOCATOR_SIZE // 2


def test_an_index_of_more_groups_than_the_disk_has_is_not_read(tmp_path: Path) -> None:
    image = written(NAME, tmp_path / "image", 2 * MIB, [Extent(0, 2 * MIB, "data")], mixed).read_bytes()
    locator = index.Locator.unpack(image[-index.LOCATOR_SIZE :])
    assert locator is not None
    groups = array("I", bytes(4 << 20))
    whole = image[: locator.place] + b"".join(index.packed_index(groups, locator.first, locator.place))
    file = RangedFile(whole)
    with pytest.raises(VmferryError, match="does not fit"):
        RawTarGzReader(file, file.size, size=2 * MIB)
    assert sum(length for _offset, length in file.requests) < MIB
    honest = RangedFile(image)
    with pytest.raises(VmferryError, match="were expected"):
        RawTarGzReader(honest, honest.size, size=2 * GIB)
    assert (locator.place, locator.index_size) not in honest.requests


def test_an_index_is_taken_apart_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is behind a member of it, nothing is copied once more for each."""
    looked_at: list[int] = []
    payload = index._payload

    def counted(data: bytes, size: int) -> bytes | None:
        looked_at.append(len(data))
        return payload(data, size)

    monkeypatch.setattr(index, "_payload", counted)
    lengths = array("I", range(1_000_000))
    members = list(index.packed_index(lengths, 100, 200))
    locator, whole = index.Locator.unpack(members.pop()), b"".join(members)
    assert locator is not None
    starts = locator.starts(whole)
    assert starts is not None
    assert list(starts) == list(accumulate(lengths, initial=100))
    assert sum(looked_at) <= len(whole) + index.LOCATOR_SIZE
