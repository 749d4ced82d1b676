# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Differencing VHDX images: read with all that they stand on, and refused where that is not what they were made on."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.image import inspect_image
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored import vhdx_chain
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.disk_image import (
    open_image,
    stored_image,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .disks import GIB, MIB, RangedFile, content, content_of, islands
from .other_formats import written
from .vhdx_layers import BLOCK, SECTOR, UNMAPPED, ZERO, Layer, data_id, linked, locator, write_layer

SIZE = 6 * MIB + 512
BASE = content(0, SIZE, 1)
NO_ID = "{00000000-0000-0000-0000-000000000000}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(str(tmp_path), {})) as opened:
        yield opened


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return written("vhdx", tmp_path / "base.vhdx", SIZE, [Extent(0, SIZE, "data")])


def disk_of(store: Store, name: str) -> bytes:
    with open_image(stored_image(store, name)) as source:
        extents = list(source.extents())
        assert [extent.offset for extent in extents] == [0, *[extent.end for extent in extents[:-1]]]
        assert extents[-1].end == source.size
        data = content_of(source)
        assert not [one for one in extents if one.kind == "zero" and any(data[one.offset : one.end])]
        return data


FIRST = Layer(
    SIZE,
    whole={1: content(0, BLOCK, 2)},
    sectors={sector: bytes([7]) * SECTOR for sector in (0, 1, 8, 15, 2047, 6 * 2048, 4 * 2048 + 100)},
    empty={2: ZERO, 3: UNMAPPED},
)
SECOND = Layer(SIZE, sectors={sector: bytes([9]) * SECTOR for sector in (*range(2000, 2100), 2 * 2048)})


def chain(folder: Path, base: Path) -> list[bytes]:
    """Of two layers; what a guest sees of each image."""
    first = write_layer(folder / "first.avhdx", FIRST, linked("base.vhdx", data_id(base)))
    write_layer(folder / "second.avhdx", SECOND, linked("first.avhdx", data_id(first)))
    seen = [BASE, FIRST.over(BASE)]
    return [*seen, SECOND.over(seen[-1])]


def test_a_layer_shows_what_it_has_and_what_is_below_it(store: Store, tmp_path: Path, base: Path) -> None:
    seen = chain(tmp_path, base)
    assert [disk_of(store, name) for name in ("base.vhdx", "first.avhdx", "second.avhdx")] == seen
    image = stored_image(store, "second.avhdx")
    assert [file.name for file in image.files] == ["second.avhdx", "first.avhdx", "base.vhdx"]
    with open_image(image) as source:
        random = Random(1)
        for _time in range(200):
            start = random.randrange(SIZE)
            length = random.randrange(1, min(5000, SIZE - start) + 1)
            assert content_of(source, start, length) == seen[-1][start : start + length]


def test_a_layer_of_a_disk_that_grew_has_zeros_behind_what_is_below(store: Store, tmp_path: Path, base: Path) -> None:
    grown = Layer(SIZE + 3 * MIB, sectors={SIZE // SECTOR + 2: b"x" * SECTOR})
    write_layer(tmp_path / "grown.avhdx", grown, linked("base.vhdx", data_id(base)))
    assert disk_of(store, "grown.avhdx") == grown.over(BASE)
    shrunk = Layer(2 * MIB, sectors={3: b"x" * SECTOR})
    write_layer(tmp_path / "shrunk.avhdx", shrunk, linked("base.vhdx", data_id(base)))
    assert disk_of(store, "shrunk.avhdx") == shrunk.over(BASE)


def test_bitmaps_behind_the_first_are_found(store: Store, tmp_path: Path) -> None:
    """One stands for 4 GiB."""
    size = 9 * GIB
    below = written("vhdx", tmp_path / "base.vhdx", size, islands(size, [0, 4 * GIB, size - 1]))
    sectors = {at // SECTOR: b"y" * SECTOR for at in (4 * GIB + SECTOR, 8 * GIB + 5 * MIB, size - SECTOR)}
    write_layer(tmp_path / "top.avhdx", Layer(size, sectors=sectors), linked("base.vhdx", data_id(below)))
    with open_image(stored_image(store, "top.avhdx")) as source:
        assert content_of(source, 4 * GIB, 3 * SECTOR) == (
            content(4 * GIB, SECTOR, 1) + b"y" * SECTOR + content(4 * GIB, 3 * SECTOR, 1)[2 * SECTOR :]
        )
        assert content_of(source, 8 * GIB + 5 * MIB, 2 * SECTOR) == b"y" * SECTOR + bytes(SECTOR)
        assert content_of(source, size - SECTOR, SECTOR) == b"y" * SECTOR


def refused(store: Store, name: str, words: str) -> None:
    with pytest.raises(VmferryError, match=words) as told:
        stored_image(store, name)
    assert told.value.kind == "invalid_config"


def test_a_chain_that_is_not_whole_is_refused(store: Store, tmp_path: Path, base: Path) -> None:
    chain(tmp_path, base)
    base.rename(tmp_path / "elsewhere")
    refused(store, "second.avhdx", "'base.vhdx', which is not beside it")
    written("vhdx", base, SIZE, [Extent(0, SIZE, "data")])
    with base.open("r+b") as file:  # as whoever writes to it leaves it
        file.seek(128 << 10)
        file.write(_header_of(b"\2" * 16))
    refused(store, "second.avhdx", "before somebody wrote to it")


def _header_of(identity: bytes) -> bytes:
    from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhdx.format import Header

    return Header(9, identity, identity).pack()


def test_a_chain_that_is_a_circle_is_refused(store: Store, tmp_path: Path, base: Path) -> None:
    chain(tmp_path, base)
    second = data_id(tmp_path / "second.avhdx")
    write_layer(tmp_path / "first.avhdx", FIRST, linked("second.avhdx", second))
    refused(store, "second.avhdx", "which stands on it")
    write_layer(tmp_path / "own.avhdx", FIRST, linked("own.avhdx", second))
    refused(store, "own.avhdx", "which stands on it")


@pytest.mark.parametrize(
    ("parent", "words"),
    [
        (
            locator(parent_linkage=NO_ID, relative_path="base.vhdx"),
            "another of that",
        ),
        (locator(relative_path="base.vhdx"), "does not say on which"),
        (locator(parent_linkage="no id", relative_path="base.vhdx"), "does not say on which"),
        (b"", "does not say on which"),
        (locator(parent_linkage=NO_ID, relative_path="..\\.."), "not beside it"),
        (locator(parent_linkage=NO_ID, relative_path="nbd:x"), "not beside it"),
        (locator(a="b")[:30] + b"\xff" * 8, "does not say on which"),
    ],
)
def test_a_parent_that_cannot_be_meant_is_refused(
    store: Store, tmp_path: Path, base: Path, parent: bytes, words: str
) -> None:
    write_layer(tmp_path / "top.avhdx", FIRST, parent)
    refused(store, "top.avhdx", words)


def test_a_parent_of_another_format_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "base.vhdx").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(1000))
    write_layer(tmp_path / "top.avhdx", FIRST, linked("base.vhdx", bytes(16)))
    refused(store, "top.avhdx", "other_format")


def test_a_chain_of_many_layers_is_refused(store: Store, tmp_path: Path) -> None:
    below = written("vhdx", tmp_path / "0.vhdx", SECTOR, [Extent(0, SECTOR, "data")])
    for number in range(1, 65):
        below = write_layer(tmp_path / f"{number}.vhdx", Layer(SECTOR), linked(f"{number - 1}.vhdx", data_id(below)))
    assert len(stored_image(store, "63.vhdx").files) == 64
    refused(store, "64.vhdx", "more than 63")


def test_a_table_of_a_layer_that_lies_is_refused(store: Store, tmp_path: Path, base: Path) -> None:
    top = write_layer(tmp_path / "top.avhdx", FIRST, linked("base.vhdx", data_id(base)))
    good, table = top.read_bytes(), 3 * MIB
    (first,) = struct.unpack_from("<Q", good, table)
    for place, entry, words in (
        (8 * 4096, 0, "without the bitmap|overlap|damaged"),
        (8 * 4, first, "overlap"),
        (8 * 4096, first & ~7 | 6, "overlap"),
        (0, 1 << 50 | 7, "truncated"),
        (0, first & ~7 | 5, "state 5"),
    ):
        top.write_bytes(good[: table + place] + struct.pack("<Q", entry) + good[table + place + 8 :])
        refused(store, "top.avhdx", words)


def test_what_ended_the_look_at_a_layer_below_is_never_forgiven(store: Store, tmp_path: Path, base: Path) -> None:
    """An entry that no bitmap can have, which would have ended it with the very word that a layer is forgiven."""
    below = Layer(SIZE, whole={1: content(0, BLOCK, 2)})
    first = write_layer(tmp_path / "first.avhdx", below, linked("base.vhdx", data_id(base)))
    write_layer(tmp_path / "second.avhdx", SECOND, linked("first.avhdx", data_id(first)))
    assert disk_of(store, "second.avhdx") == SECOND.over(below.over(BASE))
    with first.open("r+b") as file:
        file.seek(3 * MIB + 8 * 4096)
        file.write(struct.pack("<Q", 7))
    refused(store, "second.avhdx", r"first.avhdx is not opened \(backing_file\)")


def test_the_tables_of_a_chain_are_bounded_together(
    store: Store, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain(tmp_path, base)
    tables = 2 * 8 * (4096 + 1)  # of the two layers; that of what they stand on has an entry or more
    monkeypatch.setattr(vhdx_chain, "MOST_TABLES", tables + 8 * 7)
    assert len(stored_image(store, "second.avhdx").files) == 3
    monkeypatch.setattr(vhdx_chain, "MOST_TABLES", tables)
    refused(store, "second.avhdx", r"second.avhdx is not opened \(tables\): it and what it stands on")


def test_a_layer_alone_is_still_no_image_for_others(tmp_path: Path, base: Path) -> None:
    top = RangedFile(write_layer(tmp_path / "top.avhdx", FIRST, linked("base.vhdx", data_id(base))))
    found = inspect_image(top, top.size)
    assert (found.subformat, [name for name, _seen in found.objections]) == ("differencing", ["backing_file"])
