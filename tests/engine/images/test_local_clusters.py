# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains made by QEMU, read where their clusters lie: the bytes that `qemu-img convert` reads."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.local_clusters import Layer, LocalClusters

from .disks import KIB, MIB, TIB, content_of, run

SIZE = 24 * MIB + 1536


def mapped(path: Path, format: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("qemu-img", "map", "--output=json", "-f", format, path))
    return found


def virtual_size(path: Path, format: str) -> int:
    return int(json.loads(run("qemu-img", "info", "--output=json", "-f", format, path))["virtual-size"])


def qemu_io(path: Path, format: str, *writes: str) -> None:
    run("qemu-io", "-f", format, *[word for write in writes for word in ("-c", write)], path)


def overlay(path: Path, parent: Path, parent_format: str, *writes: str, options: str = "", size: int = SIZE) -> Path:
    given = ["-o", options] if options else []
    run("qemu-img", "create", "-q", "-f", "qcow2", *given, "-b", parent.name, "-F", parent_format, path, size)
    qemu_io(path, "qcow2", *writes)
    return path


def open_files() -> int:
    return sum(1 for _file in Path("/proc/self/fd").iterdir())


def assert_same(layers: list[Path], formats: list[str], size: int | None = None) -> None:
    top, format = layers[0], formats[0]
    flat = top.with_name("flat")
    run("qemu-img", "convert", "-f", format, "-O", "raw", top, flat)
    expected = flat.read_bytes()[:size]
    chain = [Layer(str(path), format) for path, format in zip(layers, formats)]
    with closing(LocalClusters(len(expected), chain, iter(mapped(top, format)))) as source:
        assert content_of(source) == expected
        chance = random.Random(1)
        for _try in range(50):
            start = chance.randrange(len(expected))
            length = chance.randrange(min(3 * MIB, len(expected) - start) + 1)
            assert content_of(source, start, length) == expected[start : start + length]
        extents = list(source.extents())
        assert extents[0].offset == 0
        assert all(one.end == other.offset for one, other in zip(extents, extents[1:]))
        assert extents[-1].end == len(expected)
        for extent in extents:
            if extent.kind == "zero":
                assert not any(expected[extent.offset : extent.end])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A raw file with holes, of a size that no sector divides."""
    path = tmp_path / "base"
    with path.open("wb") as file:
        file.truncate(SIZE - 700)
        for at in (0, 5 * MIB, 9 * MIB, 20 * MIB):
            file.seek(at)
            file.write(random.Random(at).randbytes(MIB + 5000))
        file.seek(SIZE - 800)
        file.write(b"x" * 100)
    return path


def test_a_raw_file_with_holes_and_an_odd_end(base: Path) -> None:
    assert_same([base], ["raw"])
    assert_same([base], ["raw"], base.stat().st_size)


def test_a_chain_of_formats_and_cluster_sizes(base: Path) -> None:
    first = overlay(base.with_name("first"), base, "raw", "write -P 1 1M 2M", "write -z 5M 512k", "discard 9M 64k")
    writes = ("write -P 2 1536k 64k", "write -P 3 7M 4k", f"write -P 4 {24 * MIB} 1536", "write -z 20M 100k")
    second = overlay(base.with_name("second"), first, "qcow2", *writes, options="cluster_size=4k")
    third = overlay(base.with_name("third"), second, "qcow2", "write -P 5 3M 64k", options="cluster_size=2M")
    assert_same([first, base], ["qcow2", "raw"])
    assert_same([second, first, base], ["qcow2", "qcow2", "raw"])
    assert_same([third, second, first, base], ["qcow2", "qcow2", "qcow2", "raw"])


@pytest.mark.parametrize("size", [SIZE - 8 * MIB, SIZE + 8 * MIB])
def test_a_layer_of_another_size_than_its_parent(base: Path, size: int) -> None:
    assert_same([overlay(base.with_name("top"), base, "raw", "write -P 1 1M 64k", size=size), base], ["qcow2", "raw"])


@pytest.mark.parametrize(
    "options", ["preallocation=metadata", "preallocation=falloc", "extended_l2=on", "compat=0.10", "lazy_refcounts=on"]
)
def test_images_of_every_make(tmp_path: Path, options: str) -> None:
    image = tmp_path / "image"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, SIZE)
    qemu_io(image, "qcow2", "write -P 1 100k 3k", "write -P 2 9M 1M", "write -z 9500k 200k", "discard 9M 64k")
    assert_same([image], ["qcow2"])


def test_compressed_clusters_are_refused(base: Path) -> None:
    image = base.with_name("image")
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", base, image)
    before = open_files()
    with pytest.raises(VmferryError) as refused:
        LocalClusters(SIZE, [Layer(str(image), "qcow2")], iter(mapped(image, "qcow2")))
    assert refused.value.kind == "unsupported"
    assert open_files() == before


def test_encrypted_clusters_are_refused(tmp_path: Path) -> None:
    image, secret = tmp_path / "image", ("--object", "secret,id=key,data=abc")
    options = "encrypt.format=aes,encrypt.key-secret=key"  # LUKS would time the processor, which fails on a busy one
    run("qemu-img", "create", "-q", *secret, "-f", "qcow2", "-o", options, image, MIB)
    where = f"driver=qcow2,encrypt.key-secret=key,file.driver=file,file.filename={image}"
    run("qemu-io", *secret, "-c", "write -P 1 0 64k", "--image-opts", where)
    entries = json.loads(run("qemu-img", "map", *secret, "--output=json", "--image-opts", where))
    with pytest.raises(VmferryError) as refused:
        LocalClusters(MIB, [Layer(str(image), "qcow2")], iter(entries))
    assert refused.value.kind == "unsupported"


def test_an_image_that_cannot_be_read_is_named_and_nothing_stays_open(base: Path) -> None:
    layers = [Layer(str(base), "raw"), Layer(str(base.with_name("missing")), "raw")]
    before = open_files()
    with pytest.raises(VmferryError, match="missing cannot be read") as refused:
        LocalClusters(SIZE, layers, iter(mapped(base, "raw")))
    assert refused.value.kind == "permission_denied"
    assert open_files() == before


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, SIZE + 1), (SIZE, 1)])
def test_bytes_beyond_the_disk_are_refused(base: Path, offset: int, length: int) -> None:
    source = LocalClusters(SIZE, [Layer(str(base), "raw")], iter(mapped(base, "raw")))
    with closing(source), pytest.raises(VmferryError, match="beyond"):
        content_of(source, offset, length)


def test_a_map_of_two_hundred_thousand_entries_is_taken_in_within_seconds(base: Path) -> None:
    def entries() -> Iterator[dict[str, Any]]:
        for index in range(200_000):
            found = {"start": index * LEAF, "length": LEAF, "depth": 0, "present": True, "zero": False, "data": True}
            yield {**found, "offset": index % 2 * 64 * KIB} if index % 3 else {**found, "zero": True}

    started = time.process_time()
    with closing(LocalClusters(200_000 * LEAF, [Layer(str(base), "raw")], entries())) as source:
        assert sum(1 for _extent in source.extents()) > 1
        assert len(content_of(source, 100_000 * LEAF + 5, MIB)) == MIB
    assert time.process_time() - started < 5  # each looked for among all others: a quarter of an hour


def test_a_sparse_disk_of_two_tebibytes_is_a_short_map(tmp_path: Path) -> None:
    image = tmp_path / "image"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, 2 * TIB)
    qemu_io(image, "qcow2", "write -P 7 1T 64k")
    size = virtual_size(image, "qcow2")
    with closing(LocalClusters(size, [Layer(str(image), "qcow2")], iter(mapped(image, "qcow2")))) as source:
        assert content_of(source, TIB - LEAF, 3 * LEAF) == bytes(LEAF) + b"\7" * LEAF + bytes(LEAF)
        assert [extent.kind for extent in source.extents()] == ["zero", "data", "zero"]
