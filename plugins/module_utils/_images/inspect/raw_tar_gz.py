# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk in a gzipped tar archive, as Compute Engine takes it. No more is unpacked than the headers in front of it."""

from __future__ import annotations

import zlib

from ..disk_archive import BLOCK, is_header_of_disk, unpacked_header
from .reading import Examination
from .words import Description

_WITH_HEADER = 16 + zlib.MAX_WBITS
_PIECE = 1 << 16


def begins(start: bytes) -> bool:
    """Whether this is the start of a gzip file in which an archive begins with a disk."""
    try:
        found = zlib.decompressobj(_WITH_HEADER).decompress(start, BLOCK)
    except zlib.error:
        return False
    return len(found) == BLOCK and is_header_of_disk(found)


def describe(examination: Examination) -> Description:
    try:
        layout = unpacked_header(_Front(examination).take)
    except zlib.error:
        examination.refuse("damaged", "cannot be unpacked")
    if layout is None:
        examination.refuse("damaged", "is no archive in the old format of GNU tar that begins with a file disk.raw")
    limits = examination.limits
    if layout.stored > max(limits.decompressed, limits.expansion * examination.size):
        seen = f"unpacks to {layout.stored} bytes; where most of them are zeros, `tar --sparse` leaves them out"
        examination.object("expansion", seen)
    subformat = "sparse" if layout.stored < layout.size else ""
    return Description("raw_tar_gz", subformat, examination.disk_size(layout.size))


class _Front:
    """The beginning of what is packed."""

    def __init__(self, examination: Examination) -> None:
        self._examination, self._stream = examination, zlib.decompressobj(_WITH_HEADER)
        self._packed, self._at = b"", 0

    def take(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            self._examination.demand(not self._stream.eof, "ends within its headers", "truncated")
            found += self._stream.decompress(self._packed or self._next(), count - len(found))
            self._packed = self._stream.unconsumed_tail
        return found

    def _next(self) -> bytes:
        length = min(_PIECE, self._examination.size - self._at)
        self._examination.demand(length > 0, "ends within its headers", "truncated")
        self._at += length
        return self._examination.table(self._at - length, length, "its headers")
