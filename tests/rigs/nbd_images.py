# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images to serve, each with the raw content that `qemu-img convert` makes of it as the judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import BlockSource
from rigs import nbd

MIB = 1024 * 1024


@dataclass(frozen=True)
class Image:
    path: Path
    format: str
    content: bytes


def made(path: Path, format: str, size: int, *commands: str) -> Image:
    nbd.qemu_img("create", "-q", "-f", format, path, size)
    if commands:
        nbd.qemu_io(path, format, *commands)
    return judged(path, format)


def judged(path: Path, format: str) -> Image:
    raw = path.with_suffix(".judge")
    nbd.qemu_img("convert", "-f", format, "-O", "raw", path, raw)
    return Image(path, format, raw.read_bytes())


def read_all(source: BlockSource, step: int = 3 * MIB) -> bytes:
    """Through several pieces per call, so that requests of one call overlap."""
    content = memoryview(bytearray(b"\xee" * source.size))
    for start in range(0, source.size, step):
        end = min(start + step, source.size)
        middle = (start + end) // 2
        source.read_into([(start, content[start:middle]), (middle, content[middle:end])])
    return bytes(content)
