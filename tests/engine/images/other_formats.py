# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of any format of the table, written into a file and judged by QEMU."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, BlockSource, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._images.formats import FORMATS
from ansible_collections.vmferry.migrate.plugins.module_utils._images.image_format import NewImage, StoredImage

from .disks import FileOutput, RangedFile, assert_tiled, content, content_of, feed, run

QEMU = {"vmdk": "vmdk", "vmdk_sparse": "vmdk", "vhd": "vpc", "vhd_dynamic": "vpc", "vhdx": "vhdx", "raw": "raw"}
PACKED = {"raw_tar_gz"}  # which QEMU reads unpacked alone
CHECKED = {"vmdk", "vhdx"}  # by `qemu-img check`, of QEMU's formats
IDENTITY = bytes(range(16))


def new_image(size: int, runs: Sequence[Extent], backing: str = "") -> NewImage:
    bound = sum(-(-extent.length // LEAF) * LEAF for extent in runs if extent.kind == "data")
    return NewImage(size, runs, bound, backing, identity=IDENTITY)


def written(
    format: str,
    path: Path,
    size: int,
    runs: Sequence[Extent],
    of: Callable[[int, int, int], bytes] = content,
) -> Path:
    kind = FORMATS[format]
    image = replace(new_image(size, runs), codec=kind.codec_for("none", None))
    output = FileOutput(path)
    writer = kind.write(image, output)
    output.at = writer.head_size
    feed(writer, size, runs, 1, of)
    output.finish(writer)
    return path


def opened(format: str, image: Path, size: int) -> tuple[BlockSource, RangedFile]:
    file = RangedFile(image)
    return FORMATS[format].open(StoredImage(file, file.size, size)), file


def for_qemu(format: str, image: Path) -> tuple[str, Path]:
    """The name that QEMU has for it, and what it opens: of an archive, what is in it."""
    if format not in PACKED:
        return QEMU[format], image
    folder = image.with_name(f"{image.name}.unpacked")
    folder.mkdir()
    run("tar", "--extract", "--gzip", "--file", image, "--directory", folder)
    return "raw", folder / "disk.raw"


def judge(format: str, image: Path, expected: Path, virtual_size: int) -> None:
    driver = QEMU[format]
    if driver in CHECKED:
        found = json.loads(run("qemu-img", "check", "-f", driver, "--output=json", image))
        assert not [name for name in ("corruptions", "leaks", "check-errors") if found.get(name)], found
    info = json.loads(run("qemu-img", "info", "-f", driver, "--output=json", image))
    assert info["virtual-size"] == virtual_size
    run("qemu-img", "compare", "-f", driver, "-F", "raw", image, expected)


def judge_slices(format: str, image: Path, expected: Path, virtual_size: int, starts: Sequence[int]) -> None:
    """As `judge`, of some places of a disk that is so large that QEMU takes minutes for all of it."""
    info = json.loads(run("qemu-img", "info", "-f", QEMU[format], "--output=json", image))
    assert info["virtual-size"] == virtual_size
    whole = expected.stat().st_size // 512 * 512
    source, _file = opened(format, image, expected.stat().st_size)
    for start in starts:
        first = max(0, start // LEAF * LEAF - 2 * LEAF)
        count = min(4 * LEAF, whole - first)
        part = f"driver=raw,offset={first},size={count},file.driver"
        run(
            *("qemu-img", "compare", "--image-opts"),
            f"{part}={QEMU[format]},file.file.driver=file,file.file.filename={image}",
            f"{part}=file,file.filename={expected}",
        )
        with expected.open("rb") as file:
            file.seek(first)
            assert content_of(source, first, count) == file.read(count)
    extents = list(source.extents())
    assert_tiled(extents, source.size)
    assert {start // LEAF * LEAF for start in starts} <= {
        at for extent in extents if extent.kind == "data" for at in range(extent.offset, extent.end, LEAF)
    }


def assert_read_back(format: str, image: Path, expected: Path, size: int) -> None:
    """All of it, and what is told to be zeros is that."""
    source, _file = opened(format, image, size)
    assert source.size == size
    extents = list(source.extents())
    assert_tiled(extents, size)
    whole = expected.read_bytes()
    assert content_of(source) == whole
    for extent in extents:
        assert extent.kind == "data" or not any(whole[extent.offset : extent.end])
