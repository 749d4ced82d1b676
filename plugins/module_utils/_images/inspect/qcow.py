# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""qcow, the first version, as QEMU reads it: https://gitlab.com/qemu-project/qemu/-/blob/master/block/qcow.c"""

from __future__ import annotations

import struct
import sys
from array import array

from .places import UsedPlaces
from .reading import SECTOR, Examination, ceiling
from .words import Description

_HEADER = ">4sIQIIQBBHIQ"  # magic, version, backing, mtime, size, cluster bits, L2 bits, padding, crypt, L1
_COMPRESSED = 1 << 63
_LONGEST_BACKING = 1023


def describe(examination: Examination) -> Description:
    (
        _magic, version, backing_at, backing_length, _mtime, size, cluster_bits, l2_bits, _padding, crypt, l1_at,
    ) = examination.words(_HEADER, 0, "its header")  # fmt: skip
    examination.demand(version == 1, f"is qcow of version {version}", "unknown_feature")
    examination.demand(9 <= cluster_bits <= 16, f"has clusters of 2^{cluster_bits} bytes")
    examination.demand(6 <= l2_bits <= 13, f"has L2 tables of 2^{l2_bits} entries")
    examination.demand(crypt in (0, 1), f"is encrypted in the way {crypt}", "unknown_feature")
    examination.disk_size(size)
    features = set()
    if crypt:
        examination.object("encrypted", "is encrypted (AES)")
        features.add("encrypted")
    backing = ""
    if backing_at or backing_length:
        fits = 0 < backing_length <= _LONGEST_BACKING and backing_at >= struct.calcsize(_HEADER)
        examination.demand(
            fits, f"names a backing file at byte {backing_at}, in {backing_length} bytes", "backing_file"
        )
        backing = examination.name(backing_at, backing_length, "its backing file")
        examination.object("backing_file", f"stands on another image, {backing!r}")
    entries = ceiling(size, 1 << (cluster_bits + l2_bits))
    examination.demand(8 * entries <= examination.limits.table, f"has an L1 table of {entries} entries", "tables")
    if not examination.header_only:
        _walk(examination, (l1_at, entries), 1 << cluster_bits, 1 << l2_bits)
    return Description("qcow", "1", size, backing, features=frozenset(features))


def _walk(examination: Examination, l1: tuple[int, int], cluster: int, l2_entries: int) -> None:
    """The L1 table may lie in the sector of the header; everything else begins in one of its own."""
    places = UsedPlaces(examination, SECTOR)
    at, entries = l1
    examination.demand(at >= struct.calcsize(_HEADER), "has its L1 table inside its header")
    places.take(0, SECTOR, "its header")
    behind = max(SECTOR, at // SECTOR * SECTOR)
    places.take(behind, max(0, at + 8 * entries - behind), "its L1 table")
    for table in filter(None, _words(examination.table(at, 8 * entries, "its L1 table"))):
        places.take(table, 8 * l2_entries, "an L2 table")
        for entry in filter(None, _words(examination.table(table, 8 * l2_entries, "an L2 table"))):
            if entry & _COMPRESSED:
                places.unpack(cluster)
            else:
                places.take(entry, cluster, "a cluster")


def _words(data: bytes) -> array[int]:
    words = array("Q", data)
    if sys.byteorder == "little":
        words.byteswap()
    return words
