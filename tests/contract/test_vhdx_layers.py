# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Differencing VHDX images as somebody else's reader sees them, so that the tests' own are what they are taken for."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from engine.images.disks import content_of
from engine.images.other_formats import written
from engine.images.test_vhdx_chain import SIZE, chain

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
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
