# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMDK: "Virtual Disk Format 5.0" of VMware, https://www.vmware.com/app/vmdk/?src=vmdk

Two kinds are one file, and safe to hand on: monolithicSparse and streamOptimized. Of others, the files are described.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Iterator, Tuple

from .places import UsedBlocks, UsedPlaces
from .reading import SECTOR, Examination, ceiling, is_power_of_two
from .vmdk_descriptor import TITLE, Descriptor, read_descriptor
from .words import Description

MAGIC = b"KDMV"
OLD_MAGIC, SE_MAGIC = b"COWD", b"\xbe\xba\xfe\xca\0\0\0\0"  # of vmfsSparse and seSparse, which nobody here reads
_HEADER = "<4sIIQQQQIQQQB4sH"
_NEWLINES = b"\n \r\n"
_NEWLINE_TEST, _SECOND_TABLES, _ZERO_GRAINS, _COMPRESSED, _MARKERS = 1, 2, 4, 1 << 16, 1 << 17
_KNOWN = _NEWLINE_TEST | _SECOND_TABLES | _ZERO_GRAINS | _COMPRESSED | _MARKERS
_AT_THE_END = (1 << 64) - 1  # a grain directory's place: the footer tells it
_FOOTER_FROM_END, _MARKER_FROM_END = 2 * SECTOR, 3 * SECTOR
_FOOTER_MARKER = 3
_GRAINS_PER_TABLE = 512
_FLAT_KINDS = {
    "monolithicFlat": ("FLAT",),
    "twoGbMaxExtentFlat": ("FLAT",),
    "vmfs": ("VMFS", "ZERO"),
    "twoGbMaxExtentSparse": ("SPARSE",),
}


@dataclass(frozen=True)
class _Header:
    flags: int
    capacity: int  # sectors, as everything here
    grain: int
    descriptor: Tuple[int, int]  # where, how long
    directory: int

    @property
    def tables(self) -> int:
        return ceiling(ceiling(self.capacity, self.grain), _GRAINS_PER_TABLE)


def describe_text(examination: Examination) -> Description:
    """A descriptor that is a file of its own."""
    most = examination.limits.descriptor
    examination.demand(examination.size <= most, f"has a descriptor of {examination.size} bytes", "tables")
    found = read_descriptor(examination, examination.read(0, examination.size, "its descriptor"))
    kinds = _FLAT_KINDS.get(found.create_type)
    if kinds is None or not found.extents or not all(one.kind in kinds for one in found.extents):
        examination.refuse("unknown_feature", f"is a VMDK of the kind {found.create_type}, in parts that do not fit it")
    examination.disk_size(found.size)
    names = ", ".join(repr(one.name) for one in found.extents[:3])
    examination.object("extents", f"has its data in {len(found.extents)} other files, {names}")
    return Description("vmdk", found.create_type, found.size, found.parent, extents=found.extents)


def describe_extent(examination: Examination) -> Description:
    """A sparse extent that a descriptor beside it names: with one of its own, it is an image, and no part of another.
    QEMU keeps a place for one in each part, and leaves it empty.
    """
    header = _header(examination, 0)
    at, length = (SECTOR * number for number in header.descriptor)
    if at and length:
        own = examination.read(at, len(TITLE), "its descriptor")
        examination.demand(own != TITLE, "is said to be a part, and is an image of its own", "disguised")
    fits = not header.flags & _COMPRESSED and header.directory != _AT_THE_END
    examination.demand(fits, "is a compressed part of an image", "unknown_feature")
    _walk(examination, header)
    return Description("vmdk", "SPARSE", header.capacity * SECTOR)


def describe(examination: Examination) -> Description:
    """An image that begins with the header of a sparse extent."""
    header = _header(examination, 0)
    at, length = (SECTOR * number for number in header.descriptor)
    examination.demand(length <= examination.limits.descriptor, f"has a descriptor of {length} bytes", "tables")
    examination.demand(at >= SECTOR and length > 0, "has no descriptor, so that it is a part of an image at the most")
    found = read_descriptor(examination, examination.read(at, length, "its descriptor"))
    _check_kind(examination, header, found)
    if header.directory == _AT_THE_END:
        header = _footer(examination, header)
    if not examination.header_only:
        _walk(examination, header)
    features = frozenset({"compressed"} if header.flags & _COMPRESSED else ())
    return Description("vmdk", found.create_type, header.capacity * SECTOR, found.parent, features=features)


def _header(examination: Examination, at: int) -> _Header:
    (
        magic, version, flags, capacity, grain, descriptor_at, descriptor_length, per_table, _second, directory,
        _overhead, _unclean, newlines, compression,
    ) = examination.words(_HEADER, at, "its header")  # fmt: skip
    examination.demand(magic == MAGIC and 1 <= version <= 3, f"is VMDK of version {version}", "unknown_feature")
    examination.demand(not flags & ~_KNOWN, f"has flags 0x{flags & ~_KNOWN:x} that are not known", "unknown_feature")
    examination.demand(newlines == _NEWLINES, "was sent as a text, and changed by that", "corrupt")
    fits = bool(flags & _COMPRESSED) == (compression == 1) and compression <= 1
    examination.demand(fits, f"is compressed in the way {compression}", "unknown_feature")
    examination.disk_size(capacity * SECTOR)
    # Without a capacity, QEMU takes the embedded descriptor for one in a file of its own, and opens what it names.
    examination.demand(capacity > 0, "has no capacity, so that its descriptor would count instead", "extents")
    examination.demand(is_power_of_two(grain) and 8 <= grain <= 4096, f"has grains of {grain} sectors")
    examination.demand(per_table == _GRAINS_PER_TABLE, f"has tables of {per_table} grains", "unknown_feature")
    return _Header(flags, capacity, grain, (descriptor_at, descriptor_length), directory)


def _check_kind(examination: Examination, header: _Header, found: Descriptor) -> None:
    kinds = {"monolithicSparse": False, "streamOptimized": True}
    examination.demand(found.create_type in kinds, f"is a VMDK of the kind {found.create_type}", "unknown_feature")
    fits = kinds[found.create_type] == bool(header.flags & _COMPRESSED)
    examination.demand(fits, "contradicts itself about its compression")
    is_one = len(found.extents) == 1 and found.extents[0].kind == "SPARSE"
    examination.demand(is_one, "has its data in several files", "extents")
    fits = found.size == header.capacity * SECTOR and not found.extents[0].offset
    examination.demand(fits, f"is of {header.capacity * SECTOR} bytes by its header and {found.size} by its descriptor")


def _footer(examination: Examination, header: _Header) -> _Header:
    """The header again, with the place that was not known when the first one was written."""
    size = examination.size
    examination.demand(size >= 4 * SECTOR and not size % SECTOR, "ends before its footer", "truncated")
    sectors, length, kind = examination.words("<QII", size - _MARKER_FROM_END, "its footer")
    fits = (sectors, length, kind) == (1, 0, _FOOTER_MARKER)
    examination.demand(fits, "ends before its footer", "truncated")
    found = _header(examination, size - _FOOTER_FROM_END)
    same = (found.flags, found.capacity, found.grain) == (header.flags, header.capacity, header.grain)
    examination.demand(same and found.directory != _AT_THE_END, "has a header and a footer that differ")
    return found


def _walk(examination: Examination, header: _Header) -> None:
    if not header.flags & _COMPRESSED:
        blocks = UsedBlocks(examination, header.grain * SECTOR)
        for grain in _grains(examination, header):
            blocks.take(grain, "a grain")
        return
    last, places = 0, UsedPlaces(examination, SECTOR)
    for grain in _grains(examination, header):
        places.take(grain, SECTOR, "a grain")  # it begins in no sector in which another one does
        places.unpack(header.grain * SECTOR)
        last = max(last, grain)
    if last:
        _number, length = examination.words("<QI", last, "its last grain")
        examination.demand(last + 12 + length <= examination.size, "ends within its last grain", "truncated")


def _grains(examination: Examination, header: _Header) -> Iterator[int]:
    """Where each one lies, in bytes."""
    at, tables = header.directory * SECTOR, header.tables
    examination.demand(at > 0, "has no grain directory")
    directory = struct.unpack(f"<{tables}I", examination.table(at, 4 * tables, "its grain directory"))
    form = f"<{_GRAINS_PER_TABLE}I"
    for table in filter(None, directory):
        data = examination.table(table * SECTOR, struct.calcsize(form), "a grain table")
        if data.count(0) == len(data):  # at the speed of memory, of a large disk with little in it
            continue
        for grain in struct.unpack(form, data):
            if grain > 1 or (grain and not header.flags & _ZERO_GRAINS):
                yield grain * SECTOR
