# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What other people's readers find in images of ours: libvmdk, libvhdi and dissect know nothing of QEMU.

Disks of any size and content: test_format_matrix.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine.images.disks import GIB, MIB, content, islands
from engine.images.other_formats import written

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent

Disk = tuple[int, Callable[[int, int], bytes]]  # its size, and what reads so many bytes at an offset


def _libvmdk(image: Path) -> Disk:
    import pyvmdk

    handle = pyvmdk.handle()
    handle.open(str(image))
    handle.open_extent_data_files_as_file_objects([image.open("rb")])
    return handle.get_media_size(), lambda at, count: bytes(handle.read_buffer_at_offset(count, at))


def _libvhdi(image: Path) -> Disk:
    import pyvhdi

    file = pyvhdi.file()
    file.open(str(image))
    return file.get_media_size(), lambda at, count: bytes(file.read_buffer_at_offset(count, at))


def _dissect(image: Path) -> Disk:
    from dissect.hypervisor import vhd, vhdx, vmdk

    kinds: dict[str, Any] = {".vmdk": vmdk.VMDK, ".vhd": vhd.VHD, ".vhdx": vhdx.VHDX}
    disk = kinds[image.suffix](image.open("rb"))

    def read(at: int, count: int) -> bytes:
        disk.seek(at)
        return bytes(disk.read(count))

    return disk.size, read


READERS = [
    ("vmdk", _libvmdk),
    ("vmdk", _dissect),
    ("vmdk_sparse", _libvmdk),
    ("vmdk_sparse", _dissect),
    ("vhd", _libvhdi),
    ("vhd", _dissect),
    ("vhd_dynamic", _libvhdi),
    ("vhd_dynamic", _dissect),
    ("vhdx", _libvhdi),
    ("vhdx", _dissect),
]
each = pytest.mark.parametrize(("format_", "reader"), READERS)


def image_of(format_: str, folder: Path, size: int, runs: list[Extent], of: Any = content) -> Path:
    extension = format_.split("_")[0]
    return written(format_, folder / f"disk.{extension}", size, runs, of)


@each
def test_another_reader_finds_what_lies_far_apart(format_: str, reader: Callable[[Path], Disk], tmp_path: Path) -> None:
    """Behind more tables, and blocks, than one of each."""
    size = 600 * GIB
    starts = [0, 32 * MIB, 4 * GIB, 301 * GIB + LEAF, size - LEAF]
    _size, read = reader(image_of(format_, tmp_path, size, islands(size, starts)))
    for start in starts:
        assert read(start, LEAF) == content(start, LEAF, 1)
        assert not any(read(start + LEAF, LEAF))
