# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""qcow2 headers and tables: https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt"""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass, replace
from typing import Dict, Iterator, Set, Tuple

from .places import UsedPlaces
from .reading import Examination, ceiling
from .words import Description

MAGIC = b"QFI\xfb"
_OLD = struct.Struct(">4sIQIIQIIQQIIQ")  # 72 bytes: all of version 2
_NEW = struct.Struct(">QQQII")  # what version 3 adds at least
_EXTENSION = struct.Struct(">II")
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _WIDE_ENTRIES = 1, 2, 4, 8, 16  # incompatible features
_KNOWN = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _WIDE_ENTRIES
_END, _BACKING_FORMAT, _DATA_FILE_NAME = 0, 0xE2792ACA, 0x44415441
_FEATURE_NAMES, _BITMAPS, _CRYPTO = 0x6803F857, 0x23852875, 0x0537BE77
_LONGEST_BACKING = 1023
_LARGEST_REFCOUNT_TABLE = 8 << 20  # bytes; QEMU's limit
_MOST_SNAPSHOTS = 65536
_PLACE = 0x00FF_FFFF_FFFF_FE00
_COPIED, _COMPRESSED, _ZERO = 1 << 63, 1 << 62, 1
_ALL_HELD = (1 << 32) - 1  # of a cluster's 32 subclusters
_NAMES = {0: "plain", 1: "AES", 2: "LUKS"}


@dataclass(frozen=True)
class _Header:
    version: int
    backing: Tuple[int, int]  # offset, length
    cluster_bits: int
    size: int
    crypt: int
    l1: Tuple[int, int]  # entries, offset
    refcounts: Tuple[int, int]  # offset, clusters
    snapshots: Tuple[int, int]  # how many, offset
    incompatible: int = 0
    length: int = _OLD.size

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits

    @property
    def entry(self) -> int:
        return 16 if self.incompatible & _WIDE_ENTRIES else 8


def describe(examination: Examination) -> Description:
    header = _header(examination)
    if header.incompatible & _DATA_FILE:  # first of all: QEMU opens it, whatever else is wrong
        examination.object("data_file", "has its data in another file")
    _check_sizes(examination, header)
    names = dict(_extensions(examination, header))
    features = _features(examination, header, names)
    backing = _backing(examination, header)
    data_file = names.get(_DATA_FILE_NAME, b"").decode("utf-8", "replace")
    if data_file:
        examination.object("data_file", f"has its data in another file, {data_file!r}")
    if not examination.header_only and not examination.objects("data_file"):
        _walk(examination, header)
    return Description("qcow2", str(header.version), header.size, backing, data_file, features=frozenset(features))


def _header(examination: Examination) -> _Header:
    (
        _magic, version, backing_at, backing_length, bits, size, crypt, l1_entries, l1_at, counts_at, counts,
        snapshots, snapshots_at,
    ) = examination.words(_OLD.format, 0, "its header")  # fmt: skip
    examination.demand(version in (2, 3), f"is qcow2 of version {version}", "unknown_feature")
    old = _Header(
        version, (backing_at, backing_length), bits, size, crypt, (l1_entries, l1_at), (counts_at, counts),
        (snapshots, snapshots_at),
    )  # fmt: skip
    examination.demand(9 <= bits <= 21, f"has clusters of 2^{bits} bytes")
    if version == 2:
        return old
    incompatible, _compatible, _autoclear, order, length = examination.words(_NEW.format, _OLD.size, "its header")
    examination.demand(order <= 6, f"has refcounts of 2^{order} bits")
    fits = _OLD.size + _NEW.size <= length <= old.cluster and not length % 8
    examination.demand(fits, f"has a header of {length} bytes")
    _check_compression(examination, incompatible, length)
    return replace(old, incompatible=incompatible, length=length)


def _check_compression(examination: Examination, incompatible: int, length: int) -> None:
    kind = examination.read(_OLD.size + _NEW.size, 1, "its header")[0] if length > _OLD.size + _NEW.size else 0
    examination.demand(kind <= 1, f"is compressed in the way {kind}", "unknown_feature")
    examination.demand(bool(kind) == bool(incompatible & _COMPRESSION), "contradicts itself about its compression")
    rest = max(0, min(length, 4096) - _OLD.size - _NEW.size - 8)
    tail = examination.read(_OLD.size + _NEW.size + 8, rest, "its header")
    examination.demand(not any(tail), "has a longer header than is known", "unknown_feature")


def _check_sizes(examination: Examination, header: _Header) -> None:
    examination.disk_size(header.size)
    entries, at = header.l1
    examination.demand(8 * entries <= examination.limits.table, f"has an L1 table of {entries} entries", "tables")
    mapped = header.cluster * (header.cluster // header.entry)
    examination.demand(entries >= ceiling(header.size, mapped), "has a smaller L1 table than its disk needs")
    examination.demand(not at % header.cluster, "has its L1 table off its alignment")
    examination.demand(not header.refcounts[0] % header.cluster, "has its refcount table off its alignment")
    length = header.refcounts[1] << header.cluster_bits
    examination.demand(length <= _LARGEST_REFCOUNT_TABLE, f"has a refcount table of {length} bytes", "tables")
    count, at = header.snapshots
    examination.demand(count <= _MOST_SNAPSHOTS, f"has {count} snapshots", "tables")
    examination.demand(not at % header.cluster, "has its snapshots off their alignment")


def _extensions(examination: Examination, header: _Header) -> Iterator[Tuple[int, bytes]]:
    """Every header extension up to the end marker, or to the backing file's name."""
    end = header.cluster if not header.backing[0] else min(header.backing[0], header.cluster)
    end, at, seen = min(end, examination.size), header.length, set()
    while at + _EXTENSION.size <= end:
        kind, length = examination.words(_EXTENSION.format, at, "a header extension")
        at += _EXTENSION.size
        if kind == _END:
            return
        examination.demand(length <= end - at, "has a header extension that is longer than its header")
        known = kind in (_BACKING_FORMAT, _DATA_FILE_NAME, _FEATURE_NAMES, _BITMAPS, _CRYPTO)
        examination.demand(known, f"has a header extension 0x{kind:08x}", "unknown_feature")
        examination.demand(kind not in seen, f"has two header extensions 0x{kind:08x}")
        seen.add(kind)
        yield kind, examination.read(at, length, "a header extension")
        at += ceiling(length, 8) * 8


def _features(examination: Examination, header: _Header, names: Dict[int, bytes]) -> Set[str]:
    unknown = header.incompatible & ~_KNOWN
    examination.demand(not unknown, f"needs features that are not known (0x{unknown:x})", "unknown_feature")
    features = set()
    if header.incompatible & _DIRTY:
        examination.object("dirty", "was not closed")
        features.add("dirty")
    if header.incompatible & _CORRUPT:
        examination.object("corrupt", "says that it is corrupt")
        features.add("corrupt")
    if header.crypt or _CRYPTO in names:
        examination.demand(header.crypt in _NAMES, f"is encrypted in the way {header.crypt}", "unknown_feature")
        examination.object("encrypted", f"is encrypted ({_NAMES[header.crypt]})")
        features.add("encrypted")
    if header.snapshots[0]:
        examination.object("internal_snapshots", f"has {header.snapshots[0]} snapshots inside")
        features.add("internal_snapshots")
    if header.incompatible & _WIDE_ENTRIES:
        features.add("subclusters")
    if _BITMAPS in names:
        features.add("bitmaps")
    return features


def _backing(examination: Examination, header: _Header) -> str:
    at, length = header.backing
    if not at and not length:
        return ""
    fits = 0 < length <= _LONGEST_BACKING and header.length <= at and at + length <= header.cluster
    examination.demand(fits, f"names a backing file at byte {at}, in {length} bytes", "backing_file")
    name = examination.name(at, length, "its backing file")
    examination.object("backing_file", f"stands on another image, {name!r}")
    return name


def _walk(examination: Examination, header: _Header) -> None:
    """Every place that the disk's present uses. Snapshots share theirs with it, and are not walked."""
    places = UsedPlaces(examination, header.cluster)
    places.take(0, header.cluster, "its header")
    if header.refcounts[1]:
        places.take(header.refcounts[0], header.refcounts[1] << header.cluster_bits, "its refcount table")
        table = _words(examination.table(header.refcounts[0], header.refcounts[1] << header.cluster_bits, "refcounts"))
        for block in filter(None, table):
            examination.demand(not block & 511, "has an entry of a kind that is not known in its refcount table")
            places.take(block, header.cluster, "a refcount block")
    entries, at = header.l1
    if entries:
        places.take(at, 8 * entries, "its L1 table")
    for number, entry in enumerate(_words(examination.table(at, 8 * entries, "its L1 table"))):
        if entry:
            examination.demand(not entry & ~(_PLACE | _COPIED), "has an L1 entry of a kind that is not known")
            places.take(entry & _PLACE, header.cluster, "an L2 table")
            _walk_l2(examination, header, places, entry & _PLACE, number * (header.cluster // header.entry))


def _walk_l2(examination: Examination, header: _Header, places: UsedPlaces, at: int, first: int) -> None:
    """`first`: the number of the disk's cluster that the table begins with."""
    table = _words(examination.table(at, header.cluster, "an L2 table"))
    offset_bits = 62 - (header.cluster_bits - 8)
    plain = _PLACE | _COPIED | (0 if header.incompatible & _WIDE_ENTRIES else _ZERO)
    packed: Set[int] = set()
    step = header.entry // 8
    for number, entry in enumerate(table[::step], first):
        if entry & _COMPRESSED:
            start = entry & ((1 << offset_bits) - 1)
            if start in packed:
                examination.refuse("overlap", "has one compressed cluster in two places of its disk")
            packed.add(start)
            if not header.cluster <= start < examination.size:
                examination.refuse("truncated", "ends before a compressed cluster")
            places.unpack(header.cluster)
        elif entry & ~plain:
            examination.refuse("unknown_feature", "has an L2 entry of a kind that is not known")
        elif entry & _PLACE:
            places.take(entry & _PLACE, header.cluster, "a cluster")
            if (entry & _PLACE) + header.cluster > examination.size:
                all_held = 0 if entry & _ZERO else _ALL_HELD
                held = table[step * (number - first) + 1] if step > 1 else all_held
                _insist_on_last(examination, header, entry & _PLACE, number, held)


def _insist_on_last(examination: Examination, header: _Header, place: int, number: int, held: int) -> None:
    """The file may end in its last cluster, but behind all that the guest has in it: QEMU reads zeros there, so that of
    an image that was cut off nobody would see it. `held`: a bit for each 32nd of the cluster."""
    of_disk = max(0, header.size - number * header.cluster)
    needed = min(header.cluster * (held & _ALL_HELD).bit_length() // 32, of_disk)
    if place + needed > examination.size:
        examination.refuse("truncated", "ends in the middle of a cluster")


def _words(data: bytes) -> array[int]:
    words = array("Q", data)
    if sys.byteorder == "little":
        words.byteswap()
    return words
