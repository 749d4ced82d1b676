# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images with compressed clusters: to QEMU the same disk, without a leak; and read back by our own reader."""

from __future__ import annotations

import json
import struct
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent, Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.codecs import Codec, codec_named
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.compressed import CompressedQcow2
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.reader import Qcow2Reader

from .disks import (
    FEW,
    GIB,
    MIB,
    ZERO_DIGEST,
    ZEROS,
    FileOutput,
    RangedFile,
    assert_tiled,
    content_of,
    judge,
    mixed,
    packed,
    reference,
    run,
    runs_of,
    sizes,
)

CODECS = st.sampled_from(["zlib", "zstd"]).map(codec_named)
KINDS: tuple[Kind, ...] = ("data", "zero", "unchanged")


@pytest.fixture(params=["zlib", "zstd"])
def codec(request: pytest.FixtureRequest) -> Codec:
    return codec_named(request.param)


@FEW
@given(st.data())
def test_chains_of_any_disk_are_the_same_to_qemu_and_to_us(data: st.DataObject) -> None:
    size, backing, layers, reader = data.draw(sizes()), "", [], None
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, data.draw(st.integers(1, 3)) + 1):
            runs = data.draw(runs_of(size, KINDS if backing else KINDS[:2]))
            codec = data.draw(CODECS)
            image = packed(Path(folder) / f"layer-{number}", size, runs, seed=number, backing=backing, codec=codec)
            layers.append((runs, number))
            backing = image.name
            expected = reference(Path(folder) / "reference", size, *layers, of=mixed)
            judge(image, expected, size)
            file = RangedFile(image)
            reader = Qcow2Reader(file, file.size, size=size, backing=reader)
            assert content_of(reader) == expected.read_bytes()
            assert_tiled(list(reader.extents()), size)
            offset = data.draw(st.integers(0, size - 1))
            length = data.draw(st.integers(0, size - offset))
            assert content_of(reader, offset, length) == expected.read_bytes()[offset : offset + length]


def test_an_image_says_how_it_is_compressed(tmp_path: Path, codec: Codec) -> None:
    image = packed(tmp_path / "image", MIB, [Extent(0, MIB, "data")], codec=codec)
    info = json.loads(run("qemu-img", "info", "-f", "qcow2", "--output=json", image))
    assert info["format-specific"]["data"]["compression-type"] == {0: "zlib", 1: "zstd"}[codec.kind]
    clusters = json.loads(run("qemu-img", "check", "-f", "qcow2", "--output=json", image))
    assert 0 < clusters["compressed-clusters"] < clusters["allocated-clusters"]


def test_neighbours_are_read_in_one_request(tmp_path: Path, codec: Codec) -> None:
    text = b"".join(b"%16d" % number for number in range(LEAF // 16))
    output = FileOutput(tmp_path / "image")
    writer = CompressedQcow2(16 * LEAF, output, codec)
    output.at = writer.head_size
    for leaf in range(16):
        writer.data(leaf * LEAF, memoryview(text), [sha256(text).digest()], [codec.pack(memoryview(text))])
    output.finish(writer)
    file = RangedFile(tmp_path / "image")
    reader = Qcow2Reader(file, file.size, size=16 * LEAF)
    assert content_of(reader, 0, LEAF) == text
    file.requests.clear()
    assert content_of(reader) == 16 * text
    assert len(file.requests) == 1


def test_references_are_counted_over_the_end_of_a_stretch(tmp_path: Path) -> None:
    """A refcount block ends the first 32768 host clusters, among which little shrinks, but for the last few."""
    codec, size = codec_named("zlib"), 2 * GIB + 64 * MIB
    output = FileOutput(tmp_path / "image")
    writer = CompressedQcow2(size, output, codec)
    output.at = writer.head_size
    shrinks = mixed(3 * LEAF, LEAF, 7)
    blob = codec.pack(memoryview(shrinks))
    assert blob
    written, at = [], 0
    while at < size:
        if -300 < output.at // LEAF - 32768 < 100 or at % GIB == 0:
            writer.data(at, memoryview(shrinks), [sha256(shrinks).digest()], [blob])
            written.append(at)
            at += LEAF
        else:
            count = min(128, (size - at) // LEAF)
            writer.data(at, ZEROS[: count * LEAF], [ZERO_DIGEST] * count, [None] * count)
            at += count * LEAF
    output.finish(writer)
    assert len(written) > 400
    expected = tmp_path / "reference"
    with expected.open("wb") as file:
        for at in written:
            file.seek(at)
            file.write(shrinks)
        file.truncate(size)
    judge(tmp_path / "image", expected, size)


def one_pack(codec: Codec) -> tuple[bytearray, int, int]:
    """An image of one compressed cluster, where its entry is, and where its bytes are."""
    with tempfile.TemporaryDirectory() as folder:
        text = b"".join(b"%16d" % number for number in range(LEAF // 16))
        output = FileOutput(Path(folder) / "image")
        writer = CompressedQcow2(LEAF, output, codec)
        output.at = writer.head_size
        writer.data(0, memoryview(text), [sha256(text).digest()], [codec.pack(memoryview(text))])
        output.finish(writer)
        return bytearray((Path(folder) / "image").read_bytes()), writer.head_size + LEAF, writer.head_size


def read_all(image: bytearray) -> bytes:
    file = RangedFile(bytes(image))
    return content_of(Qcow2Reader(file, file.size, size=LEAF))


def refused(image: bytearray) -> str:
    with pytest.raises(VmferryError) as told:
        read_all(image)
    assert told.value.kind == "invalid_config"
    return told.value.message


def test_compressed_clusters_that_lie_are_refused(codec: Codec) -> None:
    image, entry_at, data_at = one_pack(codec)
    (entry,) = struct.unpack_from(">Q", image, entry_at)
    assert entry == 1 << 62 | entry & ~(1 << 62)
    assert read_all(image)
    for lie in (entry | 1 << 63, 1 << 62 | len(image), 1 << 62 | 1 << 53, 1 << 62):
        changed = bytearray(image)
        struct.pack_into(">Q", changed, entry_at, lie)
        assert "points outside" in refused(changed)
    cut = bytearray(image)
    struct.pack_into(">Q", cut, entry_at, 1 << 62 | data_at + 512)  # in the middle of nowhere
    assert "no compressed cluster" in refused(cut)
    noise = bytearray(image)
    noise[data_at : data_at + 4096] = b"\xff" * 4096
    assert "no compressed cluster" in refused(noise)


def test_an_image_of_another_compression_is_refused() -> None:
    image, _entry_at, _data_at = one_pack(codec_named("zstd"))
    for at, value in ((104, 2), (104, 0), (79, 0)):
        changed = bytearray(image)
        changed[at] = value
        assert "feature that is never written" in refused(changed)


def test_a_frame_that_says_it_is_huge_takes_no_memory() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(64 * MIB))
    assert codec_named("zstd").unpack(memoryview(bomb)) is None
    small = zstandard.ZstdCompressor().compress(bytes(LEAF - 1))
    assert codec_named("zstd").unpack(memoryview(small)) is None
