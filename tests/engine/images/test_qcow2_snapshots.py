# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of snapshots inside an image, as somebody else may have written it."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.snapshots import internal_snapshots

from .disks import MIB


def image(folder: Path, count: int, offset: int, table: bytes = b"", length: int = 0) -> str:
    path = folder / "image"
    path.write_bytes(struct.pack(">4s56xIQ", b"QFI\xfb", count, offset) + bytes(24) + table)
    with path.open("r+b") as file:
        file.truncate(max(length, 96 + len(table)))
    return str(path)


@pytest.mark.parametrize("offset", [96, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_table_beyond_the_file_is_refused(tmp_path: Path, offset: int) -> None:
    with pytest.raises(VmferryError, match="cannot be read") as refused:
        internal_snapshots(image(tmp_path, 1, offset))
    assert refused.value.kind == "invalid_config"


def test_a_table_of_millions_of_snapshots_takes_no_memory(tmp_path: Path) -> None:
    """Of zeros, which cost whoever made it nothing: each is a snapshot without a name."""
    path = image(tmp_path, (1 << 32) - 1, 96, length=64 * MIB)
    tracemalloc.start()
    try:
        with pytest.raises(VmferryError, match="cannot be read"):
            internal_snapshots(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * MIB
