# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMAs: ours and those of others, as a file and as a stream, hold the disks that were put into them."""

from __future__ import annotations

import gzip
import io
import struct
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.image import inspect_image
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vma import packed
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vma.packed import unpacked
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vma.reader import VmaArchive
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vma.stream import VmaStream
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vma.writer import (
    VmaExtents,
    extents_bound,
    packed_header,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vma_header import NoVma, VmaDevice, VmaHeader

from .disks import (
    FEW,
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
from .vma_archives import BLOCK, UUID, Archive, clusters_of, put, sealed, unchanged

CONFIGS = {"qemu-server.conf": b"name: web01\nmemory: 2048\n", "qemu-server.fw": b"[OPTIONS]\n"}


def streamed(read: Callable[[int], bytes]) -> dict[str, bytes]:
    """Disks by their names, over what is not zeros before."""
    found = VmaStream(read)
    disks = {disk.name: bytearray(b"\xa5" * disk.size) for disk in found.header.disks}
    for one in found.runs():
        data = bytes(one.length) if one.data is None else one.data
        disks[one.device.name][one.offset : one.offset + one.length] = data
    return {name: bytes(disk) for name, disk in disks.items()}


def of_bytes(data: bytes, most: int = 1 << 20) -> Callable[[int], bytes]:
    """That gives at most so many bytes at once."""
    file = io.BytesIO(data)
    return lambda count: file.read(min(count, most))


def ranged(data: bytes) -> dict[str, bytes]:
    file = RangedFile(data)
    archive = VmaArchive(file, file.size)
    for disk in archive.disks.values():
        assert_tiled(list(disk.extents()), disk.size)
    return {name: content_of(disk) for name, disk in archive.disks.items()}


# Ours.


def made(path: Path, disks: dict[str, tuple[int, list[Extent]]], of: Callable[[int, int, int], bytes] = mixed) -> bytes:
    """With a seed of its own for each disk."""
    devices = [VmaDevice(number, name, size) for number, (name, (size, _runs)) in enumerate(disks.items(), 1)]
    output = FileOutput(path)
    header = packed_header(VmaHeader(UUID, 1700000000, CONFIGS, tuple(devices)))
    whole = header
    for device, (_size, runs) in zip(devices, disks.values()):
        output = FileOutput(path)
        data = sum(-(-extent.length // LEAF) * LEAF for extent in runs if extent.kind == "data")
        writer = VmaExtents(device.number, device.size, UUID, output, data_bound=data)
        feed(writer, device.size, runs, device.number, of)
        output.finish(writer)
        written = path.read_bytes()
        assert len(written) <= extents_bound(device.size, data)
        whole += written
    return whole


def expected_of(
    folder: Path, disks: dict[str, tuple[int, list[Extent]]], of: Callable[[int, int, int], bytes] = mixed
) -> dict[str, bytes]:
    return {
        name: reference(folder / name, size, ([one for one in runs if one.kind == "data"], number), of=of).read_bytes()
        for number, (name, (size, runs)) in enumerate(disks.items(), 1)
    }


def blocks_of_zeros(offset: int, length: int, seed: int) -> bytes:
    """Each leaf lacks other blocks of 4 KiB."""
    data = bytearray(content(offset, length, seed))
    for leaf in range(0, length, LEAF):
        random = Random(f"{seed} {offset + leaf}")
        for block in random.sample(range(16), random.randrange(16)):
            at = leaf + block * BLOCK
            data[at : at + BLOCK] = bytes(len(data[at : at + BLOCK]))
    return bytes(data)


@st.composite
def machines(draw: st.DrawFn) -> dict[str, tuple[int, list[Extent]]]:
    disks = {}
    for number in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, 6 * MIB // 512)) * 512
        starts = draw(st.lists(st.integers(0, size - 1), max_size=5))
        disks[f"drive-scsi{number}"] = size, islands(size, starts, draw(st.integers(1, 30)) * LEAF)
    return disks


@FEW
@given(machines())
def test_any_machine_is_read_back_from_the_file_and_from_the_stream(
    disks: dict[str, tuple[int, list[Extent]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = made(Path(folder) / "extents", disks, blocks_of_zeros)
        expected = expected_of(Path(folder), disks, blocks_of_zeros)
    assert ranged(whole) == expected
    assert streamed(of_bytes(whole, 7000)) == expected


def test_what_was_put_in_the_header_comes_out(tmp_path: Path) -> None:
    whole = made(tmp_path / "one", {"drive-scsi0": (MIB, []), "drive-efidisk0": (528 * 1024, [])})
    header = VmaStream(of_bytes(whole)).header
    assert (header.uuid, header.created, dict(header.configs)) == (UUID, 1700000000, CONFIGS)
    assert [(one.number, one.name, one.size) for one in header.disks] == [
        (1, "drive-scsi0", MIB),
        (2, "drive-efidisk0", 528 * 1024),
    ]


def test_zeros_take_eight_bytes_for_each_cluster(tmp_path: Path) -> None:
    whole = made(tmp_path / "one", {"drive-scsi0": (59 * 1000 * LEAF, islands(59 * 1000 * LEAF, [0]))})
    assert len(whole) == 12288 + 512 + 1000 * 512 + LEAF
    file = RangedFile(whole)
    disk = VmaArchive(file, file.size).disks["drive-scsi0"]
    assert [(extent.offset, extent.length, extent.kind) for extent in disk.extents()] == [
        (0, LEAF, "data"),
        (LEAF, disk.size - LEAF, "zero"),
    ]


@pytest.mark.parametrize(
    ("configs", "devices"),
    [
        ({"a": bytes(65536)}, ()),
        ({"../a": b""}, ()),
        ({f"a{number}": b"" for number in range(257)}, ()),
        ({}, (VmaDevice(256, "drive-a", 512),)),
        ({}, (VmaDevice(1, "drive-a", 513),)),
        ({}, (VmaDevice(1, "drive a", 512),)),
    ],
)
def test_what_has_no_room_in_a_header_is_refused(configs: dict[str, bytes], devices: tuple[VmaDevice, ...]) -> None:
    with pytest.raises(VmferryError) as refused:
        packed_header(VmaHeader(UUID, 0, configs, devices))
    assert refused.value.kind == "unsupported"


# Of others.


@pytest.fixture(scope="module")
def disks() -> dict[str, bytes]:
    first, second = bytearray(blocks_of_zeros(0, 5 * MIB, 3)), bytearray(mixed(0, 2 * MIB, 4))
    first[3 * MIB : 4 * MIB] = bytes(MIB)
    return {"drive-scsi0": bytes(first[: 5 * MIB - 512]), "drive-virtio1": bytes(second[: 2 * MIB - 40 * 1024])}


def shuffled(disks: dict[str, bytes], seed: int = 1) -> Archive:
    """As a guest that writes meanwhile makes it: what it wants to write over is saved first. With its memory."""
    one, two = disks.values()
    names = list(disks)
    clusters = [*clusters_of(1, one), *clusters_of(7, two)]
    Random(seed).shuffle(clusters)
    state = [(9, number, content(number * LEAF, LEAF, 5)) for number in range(70)]
    mixed_in = [*clusters[:40], *state, *clusters[40:]]
    return Archive([(1, names[0], len(one)), (7, names[1], len(two)), (9, "vmstate", LEAF)], mixed_in)


@pytest.mark.parametrize("clusters_each", [59, 7, 1])
def test_clusters_in_any_order_and_the_memory_between_them(clusters_each: int, disks: dict[str, bytes]) -> None:
    whole = shuffled(disks).whole(clusters_each)
    assert ranged(whole) == disks
    assert streamed(of_bytes(whole)) == disks


def test_reads_from_anywhere(disks: dict[str, bytes]) -> None:
    file = RangedFile(shuffled(disks).whole())
    archive = VmaArchive(file, file.size)
    random = Random(3)
    for name, data in disks.items():
        for _unused in range(80):
            start = random.randrange(len(data))
            length = min(random.randrange(1, 300_000), len(data) - start)
            assert content_of(archive.disks[name], start, length) == data[start : start + length]


@pytest.mark.parametrize(
    "command", [["gzip", "-1"], ["zstd", "-q", "-1", "-T2"], ["zstd", "-q", "--long=27"], ["cat"]], ids=" ".join
)
def test_what_is_packed_as_a_whole_is_read_as_a_stream(
    command: list[str], disks: dict[str, bytes], tmp_path: Path
) -> None:
    plain, target = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(shuffled(disks).whole())
    run("sh", "-c", f"{' '.join(command)} < {plain} > {target}")
    for most in (1000, 1 << 20):
        assert streamed(unpacked(of_bytes(target.read_bytes(), most))) == disks
    is_summed = command != ["cat"]
    for missing in (2000, 1) if is_summed else (2000,):  # with the last byte, a sum is missing
        with pytest.raises(VmferryError) as refused:
            streamed(unpacked(of_bytes(target.read_bytes()[:-missing])))
        assert refused.value.kind == "invalid_config"
    if is_summed:
        assert streamed(unpacked(of_bytes(packed_in_many(command, plain)))) == disks


def packed_in_many(command: list[str], plain: Path) -> bytes:
    """As parallel packers make it, where that is what they make of it: one small member behind the other."""
    data, found = plain.read_bytes(), b""
    for at in range(0, len(data), len(data) // 40 + 1):
        (plain.parent / "piece").write_bytes(data[at : at + len(data) // 40 + 1])
        run("sh", "-c", f"{' '.join(command)} < {plain.parent}/piece > {plain.parent}/member")
        found += (plain.parent / "member").read_bytes()
    return found


def test_what_unpacks_out_of_proportion_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_UNSUSPICIOUS", MIB)
    for whole in (gzip.compress(bytes(8 * MIB)), zstandard.compress(bytes(8 * MIB))):
        pieces = iter(partial(unpacked(of_bytes(whole)), LEAF), b"")
        with pytest.raises(VmferryError, match="200 times its size") as refused:
            list(islice(pieces, 2 * MIB // LEAF))
        assert refused.value.kind == "unsupported"


def test_what_cannot_be_unpacked_is_said(disks: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(VmferryError, match="packed with LZO"):
        unpacked(of_bytes(b"\x89LZO\0\r\n\x1a\n and more"))
    plain = tmp_path / "plain"
    plain.write_bytes(shuffled(disks).whole())
    for command in ("gzip", "zstd"):
        packed = bytearray.fromhex(run("sh", "-c", f"{command} -c {plain} | od -An -v -tx1"))
        for at in (12, len(packed) // 2):
            packed[at : at + 64] = bytes(64)
        with pytest.raises(VmferryError) as refused:
            streamed(unpacked(of_bytes(bytes(packed))))
        assert refused.value.kind == "invalid_config"


def test_a_window_that_takes_too_much_memory_is_refused(disks: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(shuffled(disks).whole())
    run("sh", "-c", f"zstd -q --long=28 -1 < {tmp_path}/plain > {tmp_path}/packed")
    with pytest.raises(VmferryError, match="cannot be unpacked"):
        streamed(unpacked(of_bytes((tmp_path / "packed").read_bytes())))


def test_what_zstd_unpacks_at_once_is_little() -> None:
    blocks = 1024  # each 4 bytes for 128 KiB of one byte, as the format (RFC 8878) lets anybody write
    frame = b"\x28\xb5\x2f\xfd\0\x38" + bytes([2, 0, 16, 0]) * (blocks - 1) + bytes([3, 0, 16, 0])
    read = unpacked(of_bytes(frame))
    tracemalloc.start()
    try:
        assert sum(map(len, iter(partial(read, LEAF), b""))) == blocks << 17
        assert tracemalloc.get_traced_memory()[1] < 24 * MIB
    finally:
        tracemalloc.stop()


def test_memory_between_disks_and_all_else_is_told_by_steps() -> None:
    state = b"s" * 59 * 3 * LEAF
    data = Archive(
        [(1, "vmstate", len(state)), (2, "drive-scsi0", len(DISK))], [*clusters_of(1, state), *clusters_of(2, DISK)]
    ).whole()
    steps: list[None] = []
    runs = VmaStream(of_bytes(data)).runs(partial(steps.append, None))
    next(runs)
    assert len(steps) == 4
    assert sum(run.length for run in runs) > 0
    assert len(steps) == 5  # and once for the end


DISK = mixed(0, 5 * LEAF, 1)[: 4 * LEAF + 8192]
ONE = [(1, "drive-scsi0", len(DISK))]
WHOLE = clusters_of(1, DISK)
NAMES = 12288 + 1  # where the first name is, behind its length


def lie(**changes: object) -> bytes:
    given = {"devices": ONE, "clusters": WHOLE, **changes}
    return Archive(**given).whole()  # type: ignore[arg-type]


LIES = {
    "of another version": lie(in_header=put(">I", 4, 2)),
    "a header without an end": lie(in_header=put(">I", 56, 1 << 31)),
    "a header without names": lie(in_header=put(">I", 56, 12288)),
    "names outside of the header": lie(in_header=put(">I", 48, 1 << 30)),
    "names over the header": lie(in_header=put(">I", 48, 512)),
    "a name that is none": lie(configs=[("../../etc/passwd", b"")]),
    "a name without an end": lie(in_header=put("B", NAMES + 2 + 16, 65)),
    "a file twice": lie(configs=[("a", b"1"), ("a", b"2")]),
    "a disk twice": lie(devices=[*ONE, (2, "drive-scsi0", LEAF)], clusters=[*WHOLE, (2, 0, b"")]),
    "a disk of half a sector": lie(devices=[(1, "drive-scsi0", len(DISK) - 256)]),
    "a disk of a ZiB": lie(in_header=put(">Q", 4096 + 32 + 8, 1 << 63)),
    "a disk of a PiB": lie(in_header=put(">Q", 4096 + 32 + 8, 1 << 50)),
    "a wrong sum": lie()[:100] + b"x" + lie()[101:],
    "half a header": lie()[:6000],
    "a header that ends early": lie()[:12290],
    "another archive's extent": lie(in_extent=put("B", 8, 77)),
    "an extent of the future": lie(in_extent=put(">H", 4, 1)),
    "an extent with a wrong sum": lie()[: -len(DISK) - 12288] + b"x" + lie()[-len(DISK) - 12287 :],
    "no extent": lie(in_extent=put("4s", 0, b"VMAX")),
    "more blocks than told": lie(in_extent=put(">H", 6, 3)),
    "half an extent": lie()[:-5000],
    "half a header of an extent": lie()[: -len(DISK) - 200],
    "a cluster twice": lie(clusters=[*WHOLE, WHOLE[2]]),
    "a cluster missing": lie(clusters=WHOLE[:-1]),
    "a cluster behind the end": lie(clusters=[*WHOLE, (1, 5, b"")]),
    "a cluster far behind the end": lie(clusters=[*WHOLE, (1, (1 << 32) - 1, b"")]),
    "a block behind the end": lie(clusters=[*WHOLE[:-1], (1, 4, bytes(8192) + b"x")]),
    "a cluster of no disk": lie(clusters=[*WHOLE, (3, 0, b"x")]),
    "nothing behind the header": lie(clusters=[]),
    "nothing": b"",
}


@pytest.mark.parametrize("name", LIES)
def test_each_lie_is_refused_as_a_file_and_as_a_stream(name: str) -> None:
    data = LIES[name]
    for read in (lambda: ranged(data), lambda: streamed(of_bytes(data))):
        with pytest.raises(VmferryError) as refused:
            read()
        assert refused.value.kind == "invalid_config"
        assert refused.value.hint


def test_what_the_lies_are_made_of_is_sound() -> None:
    assert ranged(lie()) == streamed(of_bytes(lie())) == {"drive-scsi0": DISK}
    padded = [*WHOLE[:-1], (1, 4, b"x" * LEAF)]  # all of a cluster is stored, whatever the disk has of it
    expected = DISK[: 4 * LEAF] + b"x" * 8192
    assert ranged(lie(clusters=padded)) == streamed(of_bytes(lie(clusters=padded))) == {"drive-scsi0": expected}


def test_disks_that_take_too_much_memory_are_left_to_the_stream() -> None:
    size = 4 << 40
    header = Archive([(1, "drive-scsi0", size)], []).header()

    def read_at(offset: int, buffer: memoryview) -> None:
        buffer[:] = header[offset : offset + len(buffer)]

    with pytest.raises(VmferryError, match="more than is read by ranges") as refused:
        VmaArchive(read_at, size)
    assert refused.value.kind == "unsupported"


def test_the_inspector_knows_it_and_what_it_claims(disks: dict[str, bytes]) -> None:
    def inspected(data: bytes) -> tuple[str, int, list[str]]:
        file = RangedFile(data)
        found = inspect_image(file, file.size)
        assert sum(length for _offset, length in file.requests) < MIB
        return found.format, found.size, [name for name, _unused in found.objections]

    whole = shuffled(disks).whole()
    assert inspected(whole) == ("vma", sum(map(len, disks.values())), [])
    assert inspected(LIES["a wrong sum"]) == ("", 0, ["damaged"])
    assert inspected(LIES["half a header"]) == ("", 0, ["truncated"])
    assert inspected(lie(in_header=put(">Q", 4096 + 32 + 8, 1 << 40))) == ("", 0, ["truncated"])


def test_a_header_of_nothing_but_empty_names_is_looked_at_in_no_time() -> None:
    data = bytearray(32 * MIB)
    struct.pack_into(">4sI16sQ16sIII", data, 0, b"VMA\0", 1, UUID, 0, b"", 12288, len(data) - 12288, len(data))
    file = RangedFile(sealed(data, 32, unchanged))
    started = time.process_time()
    found = inspect_image(file, file.size)
    assert time.process_time() - started < 2  # seconds; a look at each name would take ten
    assert (found.format, found.size) == ("vma", 0)


def test_a_header_has_room_for_all_that_it_can_refer_to() -> None:
    configs = {f"file{number}": b"x" * (number % 3) for number in range(256)}
    header = VmaHeader(UUID, 5, configs, tuple(VmaDevice(number, f"drive-{number}", 512) for number in range(1, 256)))
    assert VmaHeader.unpack(header.pack()) == header


def test_a_header_is_what_it_was_before() -> None:
    header = VmaHeader(UUID, 5, CONFIGS, (VmaDevice(1, "drive-a", 512), VmaDevice(255, "vmstate", 512)))
    again = VmaHeader.unpack(header.pack())
    assert again == header
    assert [disk.name for disk in again.disks] == ["drive-a"]
    broken = bytearray(header.pack())
    broken[5000] ^= 1
    with pytest.raises(NoVma, match="checksum"):
        VmaHeader.unpack(bytes(broken))
    assert sha256(header.pack()).digest() == sha256(again.pack()).digest()
