# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which places of a file an image has used: none twice, and not more data out of it than it can honestly hold."""

from __future__ import annotations

from array import array

from .reading import SECTOR, Examination, ceiling


class UsedPlaces:
    """One bit for each cluster of the file. A place that is used twice could stand for any number of them."""

    def __init__(self, examination: Examination, unit: int) -> None:
        """`unit`: bytes of a cluster."""
        self._examination, self._unit = examination, unit
        count = ceiling(examination.size, unit)
        most = examination.limits.host_clusters
        examination.demand(count <= most, f"has {count} clusters in its file, more than {most}", "tables")
        self._bits = bytearray(ceiling(count, 8))
        self._count = count
        self._packed = 0

    def take(self, offset: int, length: int, what: str) -> None:
        """Bytes from `offset` on, which must be whole units, but for a last one in which the file ends."""
        if offset % self._unit:
            self._examination.refuse("damaged", f"has {what} off its alignment")
        first, end = offset // self._unit, ceiling(offset + length, self._unit)
        if end > self._count:
            self._examination.refuse("truncated", f"ends before {what}")
        whole = min(end, ceiling(first, 8) * 8), end // 8 * 8  # between these, in bytes
        if whole[0] < whole[1]:
            middle = slice(whole[0] // 8, whole[1] // 8)
            if any(self._bits[middle]):
                self._examination.refuse("overlap", f"has {what} in a place that is used already")
            self._bits[middle] = b"\xff" * (middle.stop - middle.start)
            numbers = (*range(first, whole[0]), *range(whole[1], end))
        else:
            numbers = (*range(first, end),)
        for number in numbers:
            at, bit = number >> 3, 1 << (number & 7)
            if self._bits[at] & bit:
                self._examination.refuse("overlap", f"has {what} in a place that is used already")
            self._bits[at] |= bit

    def unpack(self, length: int) -> None:
        """So many bytes come out of something compressed."""
        self._packed += length
        limits = self._examination.limits
        most = max(limits.decompressed, limits.expansion * self._examination.size)
        if self._packed > most:
            self._examination.refuse("expansion", f"holds more than {most} bytes of compressed data")


class UsedBlocks:
    """As `UsedPlaces`, of blocks of one length that begin in any sector: four bytes for each that there is room for.

    Of two in one run of that length, and of neighbours that are less than it apart, one lies in the other.
    """

    def __init__(self, examination: Examination, length: int) -> None:
        self._examination, self._length = examination, length
        count = ceiling(examination.size, length)
        most = examination.limits.host_clusters // 8
        examination.demand(count <= most, f"has room for {count} blocks in its file, more than {most}", "tables")
        self._starts = array("I", bytes(4 * (count + 2)))  # sectors from the run's beginning, and one; 0: no block

    def take(self, offset: int, what: str) -> None:
        run, rest = divmod(offset, self._length)
        start, starts = rest // SECTOR + 1, self._starts
        if offset + self._length > ceiling(self._examination.size, SECTOR) * SECTOR:
            self._examination.refuse("truncated", f"ends before the end of {what}")
        before, after = starts[run - 1] if run else 0, starts[run + 1]
        if starts[run] or before > start or 0 < after < start:
            self._examination.refuse("overlap", f"has {what} in a place that is used already")
        starts[run] = start
