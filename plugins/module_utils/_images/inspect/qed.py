# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QED: https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qed_spec.rst"""

from __future__ import annotations

import struct
from typing import Tuple

from .places import UsedPlaces
from .reading import Examination, ceiling, is_power_of_two
from .words import Description

MAGIC = b"QED\0"
_HEADER = "<4sIIIQQQQQII"
_BACKING, _NEEDS_CHECK, _BACKING_IS_RAW = 1, 2, 4
_KNOWN = _BACKING | _NEEDS_CHECK | _BACKING_IS_RAW
_ZERO = 1  # an entry: zeros
_MOST_TABLE_CLUSTERS = 16


def describe(examination: Examination) -> Description:
    (
        _magic, cluster, table_clusters, header_clusters, needed, _compatible, _autoclear, l1_at, size,
        backing_at, backing_length,
    ) = examination.words(_HEADER, 0, "its header")  # fmt: skip
    examination.demand(not needed & ~_KNOWN, f"needs features that are not known (0x{needed:x})", "unknown_feature")
    examination.demand(is_power_of_two(cluster) and 4096 <= cluster <= 64 << 20, f"has clusters of {cluster} bytes")
    fits = is_power_of_two(table_clusters) and table_clusters <= _MOST_TABLE_CLUSTERS
    examination.demand(fits, f"has tables of {table_clusters} clusters")
    table = cluster * table_clusters
    examination.demand(table <= examination.limits.table, f"has tables of {table} bytes", "tables")
    examination.disk_size(size)
    examination.demand(not size % 512 and size <= (table // 8) ** 2 * cluster, f"is of a disk of {size} bytes")
    examination.demand(0 < header_clusters <= 64, f"has a header of {header_clusters} clusters")
    examination.demand(not l1_at % cluster, "has its L1 table off its alignment")
    features = set()
    if needed & _NEEDS_CHECK:
        examination.object("dirty", "was not closed")
        features.add("dirty")
    backing = ""
    if needed & (_BACKING | _BACKING_IS_RAW):
        fits = struct.calcsize(_HEADER) <= backing_at and backing_at + backing_length <= header_clusters * cluster
        examination.demand(fits, f"names a backing file at byte {backing_at}", "backing_file")
        backing = examination.name(backing_at, backing_length, "its backing file")
        examination.object("backing_file", f"stands on another image, {backing!r}")
    if not examination.header_only:
        _walk(examination, cluster, (l1_at, table), header_clusters * cluster, size)
    return Description("qed", "", size, backing, features=frozenset(features))


def _walk(examination: Examination, cluster: int, l1: Tuple[int, int], header: int, size: int) -> None:
    places = UsedPlaces(examination, cluster)
    places.take(0, header, "its header")
    at, length = l1
    places.take(at, length, "its L1 table")
    needed = ceiling(size, length // 8 * cluster)
    for table in filter(None, _words(examination.table(at, length, "its L1 table"))[:needed]):
        places.take(table, length, "an L2 table")
        for entry in _words(examination.table(table, length, "an L2 table")):
            if entry > _ZERO:
                places.take(entry, cluster, "a cluster")


def _words(data: bytes) -> Tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 8}Q", data)
