# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks to write as images, references built without any code of ours, and QEMU as the judge between them."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import (
    LEAF,
    BlockSource,
    Cipher,
    Extent,
    ImageWriter,
    Kind,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.codecs import Codec
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.compressed import CompressedQcow2
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.packed import PackedQcow2

from ..searching import examples

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
ZEROS = memoryview(bytes(16 * MIB))  # data that costs neither memory nor disk
ZERO_DIGEST = sha256(bytes(LEAF)).digest()
FEW = settings(
    max_examples=examples(15), deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def content(offset: int, length: int, seed: int) -> bytes:
    """No leaf is like another, nor like that of another seed."""
    leaves = range(offset // LEAF, -(-(offset + length) // LEAF))
    return b"".join(struct.pack(">IQ4x", seed, leaf + 1) * (LEAF // 16) for leaf in leaves)[:length]


class FileOutput:
    """Plays ImageOutput on a sparse file; holds a writer to the digests it passes on."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        self.file = path.open("wb", buffering=0)

    def emit(self, data: memoryview, digests: Sequence[bytes] | None = None, cipher: Cipher | None = None) -> None:
        if cipher is not None:
            stored = memoryview(bytearray(len(data)))
            cipher.encrypt(self.at, data, stored)
            data = stored
        is_zero = data.obj is ZEROS.obj
        for index, digest in enumerate(digests or ()):
            expected = ZERO_DIGEST if is_zero else sha256(data[index * LEAF : (index + 1) * LEAF]).digest()
            assert digest == expected
        assert digests is None or len(digests) == -(-len(data) // LEAF)
        if not is_zero:
            assert os.pwrite(self.file.fileno(), data, self.at) == len(data)
        self.at += len(data)

    def hole(self, length: int) -> None:
        assert length > 0
        self.at += length

    def finish(self, writer: ImageWriter) -> None:
        writer.finish()
        self.file.truncate(self.at)
        head = writer.head()
        assert len(head) == writer.head_size
        os.pwrite(self.file.fileno(), head, 0)
        self.file.close()
        assert self.path.stat().st_size <= writer.size_bound


def mixed(offset: int, length: int, seed: int) -> bytes:
    """Each leaf shrinks to another part of itself; one in four does not."""
    found = b""
    for leaf in range(offset // LEAF, -(-(offset + length) // LEAF)):
        random = Random(f"{seed} {leaf}")
        noise = random.choice([LEAF, random.randrange(LEAF), random.randrange(2048), random.randrange(LEAF)])
        found += random.randbytes(noise) + content(leaf * LEAF, LEAF - noise, seed)
    return found[:length]


def feed(
    writer: ImageWriter, size: int, runs: Iterable[Extent], seed: int, of: Callable[[int, int, int], bytes] = content
) -> None:
    for extent in runs:
        if extent.kind == "zero":
            writer.zero(extent.offset, extent.length)
        elif extent.kind == "data":
            padded = of(extent.offset, extent.length, seed).ljust(-(-extent.length // LEAF) * LEAF, b"\0")
            digests = [sha256(padded[at : at + LEAF]).digest() for at in range(0, len(padded), LEAF)]
            view = memoryview(padded)
            pack = writer.codec.pack if writer.codec is not None else lambda leaf: None
            leaves = [pack(view[at : at + LEAF]) for at in range(0, len(view), LEAF)]
            writer.data(extent.offset, view, digests, leaves)


def packed(
    path: Path, size: int, runs: Sequence[Extent], *, seed: int = 1, backing: str = "", codec: Codec | None = None
) -> Path:
    """An image by our writer, told no more than the data there is. With a codec, of `mixed` content."""
    bound = sum(-(-extent.length // LEAF) * LEAF for extent in runs if extent.kind == "data")
    output = FileOutput(path)
    if codec is None:
        writer = PackedQcow2(size, output, data_bound=bound, backing=backing)
    else:
        writer = CompressedQcow2(size, output, codec, data_bound=bound, backing=backing)
    output.at = writer.head_size
    feed(writer, size, runs, seed, content if codec is None else mixed)
    output.finish(writer)
    return path


def reference(
    path: Path,
    size: int,
    *layers: tuple[Sequence[Extent], int],
    of: Callable[[int, int, int], bytes] = content,
) -> Path:
    """A sparse raw file, as long as the disk; each of `layers`, runs and a seed, written over those before it."""
    with path.open("wb") as file:
        for runs, seed in layers:
            for extent in runs:
                if extent.kind != "unchanged":
                    data = of(extent.offset, extent.length, seed)
                    file.seek(extent.offset)
                    file.write(data if extent.kind == "data" else bytes(extent.length))
        file.truncate(size)
    return path


def judge(image: Path, expected: Path, size: int, format: str = "raw") -> None:
    """QEMU finds no fault with the image, and the same bytes as in the reference."""
    found = json.loads(run("qemu-img", "check", "-f", "qcow2", "--output=json", image))
    faults = {name for name in ("corruptions", "leaks", "check-errors") if found.get(name)}
    assert not faults, found
    assert found["image-end-offset"] == image.stat().st_size
    info: dict[str, Any] = json.loads(run("qemu-img", "info", "-f", "qcow2", "--output=json", image))
    assert info["virtual-size"] == -(-size // 512) * 512
    run("qemu-img", "compare", "-f", "qcow2", "-F", format, image, expected)


@st.composite
def sizes(draw: st.DrawFn, most_leaves: int = 40) -> int:
    """At least a byte; as often as not something that no sector, cluster or page divides."""
    leaves = draw(st.integers(0, most_leaves - 1))
    return leaves * LEAF + draw(st.sampled_from([1, 511, 512, 513, 4096, 65535, LEAF]) | st.integers(1, LEAF))


@st.composite
def runs_of(draw: st.DrawFn, size: int, kinds: Sequence[Kind] = ("data", "zero")) -> list[Extent]:
    """Covers the disk in whole leaves, neighbours of one kind left apart now and then."""
    found, at = [], 0
    while at < size:
        length = min(size - at, draw(st.integers(1, 9)) * LEAF)
        found.append(Extent(at, length, draw(st.sampled_from(kinds))))
        at += length
    return found


def islands(size: int, starts: Iterable[int], length: int = LEAF) -> list[Extent]:
    """Data at `starts` (rounded down to a leaf), zeros between."""
    found, at = [], 0
    for start in sorted({min(start, size - 1) // LEAF * LEAF for start in starts}):
        begin = max(start, at)
        if begin > at:
            found.append(Extent(at, begin - at, "zero"))
        end = min(size, begin + length)
        if end > begin:
            found.append(Extent(begin, end - begin, "data"))
        at = max(at, end)
    return [*found, Extent(at, size - at, "zero")] if at < size else found


class RangedFile:
    """`read_at` over a file, as a store would give it: counts, and holds the reader to the file's bounds."""

    def __init__(self, data: bytes | Path) -> None:
        self._data = data
        self.size = len(data) if isinstance(data, bytes) else data.stat().st_size
        self.requests: list[tuple[int, int]] = []

    def __call__(self, offset: int, buffer: memoryview) -> None:
        assert offset >= 0
        assert offset + len(buffer) <= self.size, "a read beyond the file"
        assert len(buffer), "a request for nothing"
        self.requests.append((offset, len(buffer)))
        if isinstance(self._data, bytes):
            buffer[:] = self._data[offset : offset + len(buffer)]
            return
        with self._data.open("rb") as file:
            file.seek(offset)
            buffer[:] = file.read(len(buffer))


def content_of(source: BlockSource, offset: int = 0, length: int | None = None) -> bytes:
    """Read into memory that is not zero before, so that nothing can be left out unseen."""
    found = bytearray(b"\xa5" * (source.size - offset if length is None else length))
    source.read_into([(offset, memoryview(found))])
    return bytes(found)


def assert_tiled(extents: list[Extent], size: int) -> None:
    assert [extent.offset for extent in extents] == [0, *[extent.end for extent in extents[:-1]]][: len(extents)]
    assert (extents[-1].end if extents else 0) == size
    assert all(extent.length > 0 for extent in extents)
    assert all(one.kind != other.kind for one, other in zip(extents, extents[1:])), "not joined"
