# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which firmware a disk is for, of tables that sfdisk wrote and of ones that nobody would."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._images.partition_table import boots_by

from ..transfer.disks_in_memory import MemorySource
from .disks import MIB

EFI, BIOS_BOOT, LINUX = "U", "21686148-6449-6E6F-744E-656564454649", "L"


def disk(folder: Path, script: str) -> bytes:
    path = folder / "disk"
    path.write_bytes(bytes(8 * MIB))
    subprocess.run(["/sbin/sfdisk", "-q", path], input=script.encode(), check=True, timeout=60)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("label", "kinds", "boots"),
    [
        ("gpt", [EFI, LINUX], "uefi"),
        ("gpt", [LINUX, EFI], "uefi"),
        ("gpt", [BIOS_BOOT, EFI, LINUX], "bios"),
        ("gpt", [LINUX], "bios"),
        ("dos", [LINUX], "bios"),
        ("dos", [EFI], "bios"),
    ],
)
def test_an_efi_system_partition_says_uefi(label: str, kinds: list[str], boots: str, tmp_path: Path) -> None:
    script = "\n".join([f"label: {label}", *(f"size=2048, type={kind}" for kind in kinds)])
    assert boots_by(MemorySource(disk(tmp_path, script))) == boots


def test_sectors_of_4096_bytes_are_known(tmp_path: Path) -> None:
    small = disk(tmp_path, f"label: gpt\nsize=2048, type={EFI}")
    large = bytearray(8 * MIB)
    large[:512], large[4096:4608] = small[:512], small[512:1024]
    large[2 * 4096 : 2 * 4096 + 16384] = small[1024 : 1024 + 16384]
    assert boots_by(MemorySource(bytes(large))) == "uefi"


def test_what_no_firmware_boots_is_told() -> None:
    assert boots_by(MemorySource(bytes(MIB))) == ""
    assert boots_by(MemorySource(b"x" * 100)) == ""


@pytest.mark.parametrize("header", [(1 << 63, 128, 128), (2, 1 << 31, 128), (2, 128, 0), (2, 128, 1 << 31)])
def test_a_table_that_lies_is_not_followed(header: tuple[int, int, int], tmp_path: Path) -> None:
    data = bytearray(disk(tmp_path, f"label: gpt\nsize=2048, type={EFI}"))
    struct.pack_into("<QII", data, 512 + 72, *header)
    assert boots_by(MemorySource(bytes(data))) == ("uefi" if header[0] == header[2] // 64 else "bios")
