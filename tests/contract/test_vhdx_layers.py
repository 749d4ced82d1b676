# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Differencing VHDX images as somebody else's readers see them: the tests' own, and those that we write."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from engine.images.disks import GIB, MIB, content, content_of
from engine.images.other_formats import written
from engine.images.test_vhdx_chain import SIZE, chain
from engine.images.test_vhdx_layer_writer import as_seen, layered

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.disk_image import (
    open_image,
    stored_image,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store


def test_dissect_finds_the_same_disk_in_a_chain(tmp_path: Path) -> None:
    from dissect.hypervisor import vhdx

    seen = chain(tmp_path, written("vhdx", tmp_path / "base.vhdx", SIZE, [Extent(0, SIZE, "data")]))
    with closing(open_store(str(tmp_path), {})) as store:
        for name, data in zip(("base.vhdx", "first.avhdx", "second.avhdx"), seen):
            assert vhdx.VHDX(tmp_path / name).read(SIZE) == data
            with open_image(stored_image(store, name)) as source:
                assert content_of(source) == data


RUNS = [
    Extent(0, 2 * MIB, "unchanged"),
    Extent(2 * MIB, LEAF, "zero"),
    Extent(2 * MIB + LEAF, 3 * MIB, "unchanged"),
    Extent(5 * MIB + LEAF, 2 * MIB, "data"),
    Extent(7 * MIB + LEAF, MIB - LEAF + 512, "unchanged"),
]


def test_dissect_and_libvhdi_find_the_disk_in_a_layer_of_ours(tmp_path: Path) -> None:
    import pyvhdi
    from dissect.hypervisor import vhdx

    size, below = 8 * MIB + 512, [Extent(0, 8 * MIB + 512, "data")]
    top = layered(tmp_path, size, RUNS, below)
    expected = as_seen(size, RUNS, below)
    assert vhdx.VHDX(top).read(size) == expected
    base, layer = pyvhdi.file(), pyvhdi.file()
    base.open(str(tmp_path / "base.vhdx"))
    layer.open(str(top))
    layer.set_parent(base)
    assert layer.read_buffer_at_offset(size, 0) == expected
    layer.close()
    base.close()


def test_dissect_finds_that_a_block_of_zeros_hides_what_is_below(tmp_path: Path) -> None:
    """As [MS-VHDX] 2.5.1.1 has it; libvhdi shows what is below."""
    from dissect.hypervisor import vhdx

    runs, below = [Extent(0, 2 * MIB, "zero"), Extent(2 * MIB, MIB, "unchanged")], [Extent(0, 3 * MIB, "data")]
    assert vhdx.VHDX(layered(tmp_path, 3 * MIB, runs, below)).read(3 * MIB) == as_seen(3 * MIB, runs, below)


def test_dissect_finds_each_chunk_of_a_large_layer(tmp_path: Path) -> None:
    size, island = 9 * GIB, 4 * GIB - LEAF
    after = island + LEAF
    runs = [Extent(0, island, "unchanged"), Extent(island, LEAF, "data"), Extent(after, size - after, "unchanged")]
    top = layered(tmp_path, size, runs, [Extent(0, LEAF, "data"), Extent(LEAF, size - LEAF, "zero")])
    from dissect.hypervisor import vhdx

    found = vhdx.VHDX(top)
    # A leaf at a time: what it reads across the end of a block is not what is there.
    for offset, expected in ((0, content(0, LEAF, 1)), (island, content(island, LEAF, 2)), (after, bytes(LEAF))):
        found.seek(offset)
        assert found.read(LEAF) == expected
