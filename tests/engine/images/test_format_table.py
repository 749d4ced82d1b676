# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of formats, the page about them, the schema and the type of a request say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.packed import (
    EXPORT_FORMATS,
    PACKED,
    image_format_of,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._images.formats import FORMATS, INNER, NAMES, format_named
from ansible_collections.vmferry.migrate.plugins.module_utils._images.image_format import StoredImage
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ImageFormat
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.image_formats import (
    image_codec,
    insist_on_encryptable,
)

from .disks import GIB, MIB, TIB, FileOutput, RangedFile, islands
from .other_formats import new_image, written

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in (DOCS / "image_formats.md").read_text().splitlines()
    if line.startswith("|")
]
each = pytest.mark.parametrize("name", NAMES)


def told(what: str, name: str) -> str:
    head = next(row for row in PAGE if row[0] == "" and len(row) == len(NAMES) + 1)
    row = next(row for row in PAGE if what in row[0] and len(row) == len(NAMES) + 1)
    return row[head.index(f"`{name}`")]


@each
def test_the_page_says_what_the_table_does(name: str) -> None:
    format = FORMATS[name]
    assert any(row[0] == f"`{name}`" and row[1] == f"`.{format.extension}`" for row in PAGE)
    assert told("increments", name) == ("yes" if format.layers else "no")
    assert told("encryption", name) == ("yes" if format.encrypts else "no")
    assert told("one stream", name) == ("yes" if format.streamed else "no")
    assert (told("`compression`", name) == "no") == (format.compressions == ("none",))
    number, unit = told("largest disk", name).split()
    assert int(number) * {"TiB": TIB, "GiB": GIB}[unit] == format.largest_disk


def test_all_places_name_the_same_formats() -> None:
    assert get_args(ImageFormat) == EXPORT_FORMATS
    assert (*NAMES, *PACKED, "native") == EXPORT_FORMATS
    schema = json.loads((DOCS / "schema" / "manifest-1.json").read_text())["properties"]
    assert schema["x_vmferry"]["properties"]["format"]["enum"] == list(EXPORT_FORMATS)
    extensions = schema["disks"]["items"]["properties"]["source_format"]["enum"]
    assert extensions == [*dict.fromkeys(format.extension for format in FORMATS.values()), "ova", "ova.gz", "vma"]
    with pytest.raises(VmferryError, match="no image format 'vdi'"):
        format_named("vdi")


@pytest.mark.parametrize("name", PACKED)
def test_an_appliance_is_no_more_than_its_images_can_be(name: str) -> None:
    assert image_format_of(name) is (INNER["vma"] if name == "vma" else FORMATS["vmdk"])
    with pytest.raises(VmferryError, match=f"An image of the format {name} cannot be encrypted"):
        insist_on_encryptable(name, None)
    with pytest.raises(VmferryError, match="cannot be compressed"):
        image_codec(name, "zstd")


@each
def test_no_image_is_a_layer_but_of_a_format_that_can(name: str, tmp_path: Path) -> None:
    format, output = FORMATS[name], FileOutput(tmp_path / "image")
    if not format.layers:
        with pytest.raises(VmferryError, match="cannot be a layer"):
            format.write(new_image(LEAF, [], backing="parent"), output)
        parent = RangedFile(bytes(LEAF))
        below = FORMATS["raw"].open(StoredImage(parent, LEAF, LEAF))
        with pytest.raises(VmferryError, match="cannot be a layer"):
            format.open(StoredImage(parent, LEAF, LEAF, backing=below))
    output.file.close()


@each
@pytest.mark.parametrize("size", [1, 34 * MIB + 513])  # more than one table of a VMDK describes
def test_what_is_announced_before_is_never_less_than_what_comes(name: str, size: int, tmp_path: Path) -> None:
    """The free space of a store is compared with it. The rest of a file is holes."""
    for number, runs in enumerate(([Extent(0, size, "data")], islands(size, [0, size // 2, size - 1]))):
        image = new_image(size, runs)
        stored = written(name, tmp_path / f"image-{number}", size, runs).stat()
        bound = FORMATS[name].bound(size, image.data_bound, False)
        assert stored.st_blocks * 512 <= bound + LEAF
        streamed = FORMATS[name].streamed
        if streamed is not None and name != "qcow2":
            assert streamed(image).size == stored.st_size
