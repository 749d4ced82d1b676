# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gzipped archives of a disk: a good one, and whatever one wants to have in its header."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from functools import cache

from .disks import MIB, mixed

SIZE = 3 * MIB  # of the disk


@cache
def _archive() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo("disk.raw")
        member.size = SIZE
        archive.addfile(member, io.BytesIO(mixed(0, SIZE, 1)))
    return target.getvalue()


def of_disk(change: Callable[[bytes], bytes], level: int = 1) -> bytes:
    """A packed archive of a disk, with something else in it."""
    return gzip.compress(change(_archive()), level)


def sealed(*changes: Callable[[bytearray], None]) -> Callable[[bytes], bytes]:
    """Of the header, with its sum."""

    def changed(data: bytes) -> bytes:
        header = bytearray(data[:512])
        for change in changes:
            change(header)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return bytes(header) + data[512:]

    return changed


def put(at: int, value: bytes) -> Callable[[bytearray], None]:
    def change(header: bytearray) -> None:
        header[at : at + len(value)] = value

    return change


def sparse(*entries: tuple[int, int], size: int = SIZE, stored: int = SIZE) -> Callable[[bytearray], None]:
    def change(header: bytearray) -> None:
        fields = b"".join(b"%011o\0%011o\0" % entry for entry in entries)
        header[124:136], header[156:157], header[386 : 386 + len(fields)] = b"%011o\0" % stored, b"S", fields
        header[483:495] = b"\x80" + size.to_bytes(11, "big")

    return change
