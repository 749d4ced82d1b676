# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From every format that is read into every format that is written, by the way of an import and of an export: the same
disk by its digests, to QEMU, and to readers that know nothing of either.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from engine.images.disks import GIB, MIB, TIB, RangedFile, content, content_of, islands, mixed, reference, run
from engine.images.other_formats import PACKED, for_qemu
from engine.transfer.disks_in_memory import MemorySource, Rules, naive_root

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import (
    LEAF,
    BlockSource,
    Extent,
    ImageOutput,
    ImageWriter,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.formats import FORMATS
from ansible_collections.vmferry.migrate.plugins.module_utils._images.image_format import StoredImage
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.disk_image import (
    open_image,
    stored_image,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.image_formats import (
    image_codec,
    image_writer,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import DigestWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.pipeline import export_disk, read_extents

from .test_images_to_other_readers import READERS

TARGETS = tuple(FORMATS)
OTHERS = {format_: [reader for name, reader in READERS if name == format_] for format_ in TARGETS}
RULES = Rules()

# By the name of the file, what QEMU is told to write; those of ours are written by ourselves.
SOURCES = {
    "disk.qcow2": ("qcow2", ""),
    "zstd.qcow2": ("qcow2", "compression_type=zstd", "-c"),
    "large.qcow2": ("qcow2", "cluster_size=2M,extended_l2=on"),
    "old.qcow2": ("qcow2", "compat=0.10"),
    "disk.qcow": ("qcow", ""),
    "disk.qed": ("qed", ""),
    "disk.vdi": ("vdi", ""),
    "static.vdi": ("vdi", "static=on"),
    "sparse.vmdk": ("vmdk", "subformat=monolithicSparse"),
    "stream.vmdk": ("vmdk", "subformat=streamOptimized"),
    "flat.vmdk": ("vmdk", "subformat=monolithicFlat"),
    "split.vmdk": ("vmdk", "subformat=twoGbMaxExtentSparse"),
    "pieces.vmdk": ("vmdk", "subformat=twoGbMaxExtentFlat"),
    "dynamic.vhd": ("vpc", "force_size=on"),
    "fixed.vhd": ("vpc", "subformat=fixed,force_size=on"),
    "dynamic.vhdx": ("vhdx", ""),
    "fixed.vhdx": ("vhdx", "subformat=fixed"),
    "disk.raw": ("raw", ""),
    **{f"ours-{format_}.{FORMATS[format_].extension}": (format_,) for format_ in TARGETS if format_ not in PACKED},
}
SIZE = 2 * MIB + 512
KINDS = {
    "empty": lambda size: [Extent(0, size, "zero")],
    "full": lambda size: [Extent(0, size, "data")],
    "islands": lambda size: islands(size, [0, size // 2, size - 1]),
    "zeros that nobody tells of": lambda size: [],
}


@dataclass(frozen=True)
class Disk:
    data: bytes
    runs: list[Extent]

    def source(self) -> BlockSource:
        return MemorySource(self.data, self.runs or None)


def disk(size: int, kind: str) -> Disk:
    runs = KINDS[kind](size)
    data = bytearray(size)
    for extent in runs:
        if extent.kind == "data":
            data[extent.offset : extent.end] = content(extent.offset, extent.length, 3)
    return Disk(bytes(data), runs)


@cache
def whole() -> Disk:
    """Islands, some of which shrink, with zeros that nobody tells of among them."""
    data = bytearray(SIZE)
    for at, length in ((0, 3 * LEAF), (MIB - LEAF, 2 * LEAF), (SIZE // LEAF * LEAF, SIZE % LEAF)):
        data[at : at + length] = mixed(at, length, 5)
    data[MIB + 4 * LEAF : MIB + 4 * LEAF + 600] = b"text" * 150
    assert len(data) == SIZE
    return Disk(bytes(data), [])


def written(store: Store, source: BlockSource, format_: str, key: str) -> str:
    """As an export writes it; the root of its digests."""
    flow = Flow()
    extents, codec = read_extents(source, flow), image_codec(format_, "none")

    def image(output: ImageOutput, bound: int) -> ImageWriter:
        return image_writer(format_, source.size, output, extents, bound, codec=codec, identity=key)

    parts = store.open_parts(key)
    result = export_disk(
        source,
        image,
        parts,
        DigestWriter(source.size, lambda data: None),
        limits=Limits.of_transfer(any_offset=True, workers=2),
        rules=RULES,
        flow=flow,
        extents=extents,
    )
    parts.complete(result.receipts, result.size)
    return result.digest_root


@contextmanager
def image_of(store: Store, key: str, format_: str, size: int) -> Iterator[BlockSource]:
    """As one of anybody; an archive, as that of an export."""
    if format_ not in PACKED:
        with open_image(stored_image(store, key)) as source:
            yield source
        return
    file = RangedFile(Path(store.location(key)))
    with closing(FORMATS[format_].open(StoredImage(file, file.size, size))) as source:
        yield source


def assert_same(store: Store, key: str, format_: str, data: bytes) -> None:
    """To our own reader as the image of an export and as one of anybody, to QEMU, and to others."""
    path, size = Path(store.location(key)), len(data)
    file = RangedFile(path)
    assert content_of(FORMATS[format_].open(StoredImage(file, file.size, size))) == data
    with image_of(store, key, format_, size) as source:
        whole_unit = size + MIB  # behind it, zeros have to be told
        assert not [one for one in source.extents() if one.kind == "data" and one.end > whole_unit]
        found = content_of(source, 0, min(source.size, whole_unit))
    assert found[:size] == data
    assert not any(found[size:]), "what fills the last unit up is zeros"
    expected = path.with_name("expected")
    expected.write_bytes(data)
    with shown_to_qemu(format_, path) as (driver, image):
        run("qemu-img", "compare", "-f", driver, "-F", "raw", image, expected)
    for reader in OTHERS[format_]:
        if not (reader.__name__ == "_dissect" and format_.startswith("vmdk") and size % 8192):
            _size, read = reader(path)
            assert sha256(read(0, size)).digest() == sha256(data).digest(), reader.__name__


@contextmanager
def shown_to_qemu(format_: str, path: Path) -> Iterator[tuple[str, Path]]:
    """Its name for the format, and the image; of an archive, what is in it."""
    driver, image = ("qcow2", path) if format_ == "qcow2" else for_qemu(format_, path)
    try:
        yield driver, image
    finally:
        if image.parent != path.parent:
            shutil.rmtree(image.parent)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with TemporaryDirectory(prefix="vmferry-matrix-", dir="/tmp") as folder, closing(open_store(folder, {})) as opened:
        yield opened


@pytest.fixture(scope="module")
def source(store: Store, request: pytest.FixtureRequest) -> Iterator[BlockSource]:
    """An image of some format, opened as `vm_import` opens it."""
    name, disk = request.param, whole()
    format_, *options = SOURCES[name]
    if name.startswith("ours-"):
        written(store, disk.source(), format_, name)
    else:
        plain = Path(store.location("plain"))
        plain.write_bytes(disk.data)
        chosen = ["-o", options[0]] if options and options[0] else []
        run("qemu-img", "convert", "-f", "raw", "-O", format_, *chosen, *options[1:], plain, store.location(name))
    with open_image(stored_image(store, name)) as opened:
        yield opened


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES, indirect=True)
def test_every_format_becomes_every_other(store: Store, source: BlockSource, target: str) -> None:
    data, key = whole().data.ljust(source.size, b"\0"), f"made.{FORMATS[target].extension}"
    assert source.size - SIZE in (0, MIB - 512), "a fixed VHD of ours is a whole number of mebibytes"
    assert written(store, source, target, key) == naive_root(data)
    assert_same(store, key, target, data)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1_000_003, MIB - 512, MIB + 512])
def test_every_format_holds_disks_of_any_size_and_content(store: Store, size: int, kind: str, target: str) -> None:
    made, key = disk(size, kind), f"made.{FORMATS[target].extension}"
    assert written(store, made.source(), target, key) == naive_root(made.data)
    assert_same(store, key, target, made.data)


@pytest.mark.parametrize(("size", "target"), [*((2 * TIB, target) for target in TARGETS), (4 * TIB, "vhdx")])
def test_a_large_disk_costs_no_more_than_what_is_in_it(store: Store, size: int, target: str) -> None:
    """From a sparse file. Its way back is the same, block by block."""
    key, starts = f"large.{FORMATS[target].extension}", [0, 4 * GIB - LEAF, size // 2, size - LEAF]
    plain = reference(Path(store.location("large-plain.raw")), size, (
        [extent for extent in islands(size, starts) if extent.kind == "data"], 1,
    ))  # fmt: skip
    with open_image(stored_image(store, plain.name)) as source:
        if size > FORMATS[target].largest_disk:
            with pytest.raises(VmferryError, match="too large"):
                written(store, source, target, key)
            return
        written(store, source, target, key)
    assert Path(store.location(key)).stat().st_blocks * 512 < 64 * MIB
    with image_of(store, key, target, size) as source:
        assert source.size == size
        assert [extent.offset for extent in source.extents() if extent.kind == "data"][-1] <= size - LEAF
        for start in starts:
            assert content_of(source, start, LEAF) == content(start, LEAF, 1)
    with shown_to_qemu(target, Path(store.location(key))) as (driver, shown):
        for start in starts:
            part = f"driver=raw,offset={start},size={LEAF},file.driver"
            image = f"{part}={driver},file.file.driver=file,file.file.filename={shown}"
            run("qemu-img", "compare", "--image-opts", image, f"{part}=file,file.filename={plain}")
    plain.unlink()


def test_an_archive_is_a_disk_of_whole_gibibytes_and_read_with_and_without_its_digests(store: Store) -> None:
    assert written(store, whole().source(), "raw_tar_gz", "disk.tar.gz") == naive_root(whole().data)
    file = RangedFile(Path(store.location("disk.tar.gz")))
    with closing(FORMATS["raw_tar_gz"].open(StoredImage(file, file.size, SIZE))) as source:
        assert written(store, source, "qcow2", "made.qcow2") == naive_root(whole().data)
    with open_image(stored_image(store, "disk.tar.gz")) as source:
        assert source.size == GIB
        assert content_of(source, 0, SIZE) == whole().data
