# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file is, by every mark that any program goes by; and of a disk, what it holds.

A file that bears two marks means one thing to whoever checks it and another to whoever opens it.
"""

from __future__ import annotations

import struct
from typing import List, Tuple

from ..vma_header import MAGIC as VMA_MAGIC
from . import qcow2 as inspect_qcow2
from . import qed as inspect_qed
from . import raw_tar_gz as inspect_raw_tar_gz
from . import vdi as inspect_vdi
from . import vhd as inspect_vhd
from . import vhdx as inspect_vhdx
from . import vmdk as inspect_vmdk
from .reading import SECTOR, Examination
from .vmdk_descriptor import TITLE

_START = 34 << 10  # bytes that are looked at: an ISO's first descriptor is at 32 KiB
_AT_START: Tuple[Tuple[str, bytes], ...] = (
    ("qed", inspect_qed.MAGIC),
    ("vmdk", inspect_vmdk.MAGIC),
    ("vmdk (vmfsSparse)", inspect_vmdk.OLD_MAGIC),
    ("vmdk (seSparse)", inspect_vmdk.SE_MAGIC),
    ("vhd", inspect_vhd.MAGIC),
    ("vhdx", inspect_vhdx.MAGIC),
    ("LUKS", b"LUKS\xba\xbe"),
    ("Parallels", b"WithoutFreeSpace"),
    ("Parallels", b"WithouFreSpacExt"),
    ("Bochs", b"Bochs Virtual HD Image"),
    ("cloop", b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
    ("vma", VMA_MAGIC),
)
_ARCHIVES: Tuple[Tuple[str, int, bytes], ...] = (
    ("gzip", 0, b"\x1f\x8b\x08"),
    ("xz", 0, b"\xfd7zXZ\0"),
    ("zstd", 0, b"\x28\xb5\x2f\xfd"),
    ("bzip2", 0, b"BZh"),
    ("zip", 0, b"PK\x03\x04"),
    ("7z", 0, b"7z\xbc\xaf\x27\x1c"),
    ("tar", 257, b"ustar"),
)
_DMG_TRAILER, _DMG_MAGIC = 512, b"koly"
_ISO_AT, _ISO_MAGIC = 0x8001, b"CD001"


def marks(examination: Examination) -> List[str]:
    """Formats, none twice; `archive: ...` for what is packed. Empty for a plain disk."""
    start = examination.start(_START)
    found = [name for name, magic in _AT_START if start.startswith(magic)]
    if start[:4] == inspect_qcow2.MAGIC:
        version = int.from_bytes(start[4:8], "big")
        found.append("qcow" if version == 1 else "qcow2")
    if start[inspect_vdi.MAGIC_AT :].startswith(inspect_vdi.MAGIC):
        found.append("vdi")
    if _is_descriptor(start):
        found.append("vmdk (text)")
    end = examination.read(max(0, examination.size - SECTOR), min(SECTOR, examination.size), "its end")
    if end.startswith(inspect_vhd.MAGIC) and "vhd" not in found:
        found.append("vhd")
    if end.startswith(_DMG_MAGIC):
        found.append("DMG")
    archives = [f"archive: {name}" for name, at, magic in _ARCHIVES if start[at:].startswith(magic)]
    if "archive: gzip" in archives and inspect_raw_tar_gz.begins(start):
        archives[archives.index("archive: gzip")] = "raw_tar_gz"
    return found + archives


def _is_descriptor(start: bytes) -> bool:
    """As QEMU decides, or a little sooner: comments and empty lines, then a version."""
    if start[: len(TITLE)].lower() == TITLE.lower():
        return True
    for line in start.split(b"\n"):
        plain = line.strip(b" \t\r")
        if plain and not plain.startswith(b"#"):
            return plain.startswith(b"version=")
    return False


def content(examination: Examination) -> List[str]:
    """Of a disk: gpt, mbr, iso. A hybrid CD has them all."""
    start = examination.start(_START)
    found = []
    if any(start[at : at + 8] == b"EFI PART" for at in (512, 4096)):
        found.append("gpt")
    if _is_boot_sector(start):
        found.append("mbr")
    if start[_ISO_AT:].startswith(_ISO_MAGIC):
        found.append("iso")
    return found


def _is_boot_sector(start: bytes) -> bool:
    if len(start) < SECTOR or start[510:512] != b"\x55\xaa":
        return False
    entries = [struct.unpack_from("<B3xB", start, 446 + 16 * number) for number in range(4)]
    return all(status in (0, 0x80) for status, _unused in entries) and any(kind for _unused, kind in entries)
