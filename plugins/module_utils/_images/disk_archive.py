# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tar archive around a disk, in the old format of GNU tar: one member, `disk.raw`, of which holes may be left out.

https://www.gnu.org/software/tar/manual/html_node/Standard.html (`struct oldgnu_header`, `struct sparse_header`), and
https://cloud.google.com/compute/docs/import/import-existing-image: what Compute Engine makes an image of.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from itertools import chain, islice
from typing import Callable, Iterable, Iterator, Optional, Tuple

from .._blocks import LEAF, Extent, Kind

NAME = b"disk.raw"
BLOCK = 512
RECORD = 20 * BLOCK  # what the length of an archive is a multiple of
GIB = 1 << 30  # Compute Engine takes disks of whole ones
LARGEST_MAP = 1 << 19  # entries that are read, in a second or two; 12 MiB of a header
_USUAL_GAP = 16 * LEAF
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s41s96sc12s17s")
_NAME_SIZE = 100
_MAGIC, _PLAIN, _OLD_PLAIN, _SPARSE = b"ustar  \0", b"0", b"\0", b"S"
_CHECKSUM = slice(148, 156)
_ENTRY, _FIELD, _IN_HEADER, _IN_EXTENSION = 24, 12, 4, 21
_EXTENSION = struct.Struct(f"{_IN_EXTENSION * _ENTRY}sc7x")
_LARGEST_OCTAL = 8**11 - 1
_BINARY = 0x80  # the first byte of a number that is not in octal digits

Take = Callable[[int], bytes]  # so many bytes behind those before, or an error


class SparseMap:
    """Which runs of a disk of `size` bytes are in the archive, one behind the other; the rest is zeros."""

    def __init__(self, size: int, runs: Iterable[Tuple[int, int]]) -> None:
        """`runs`: offsets and lengths, in order, none empty and none over another."""
        self.size = size
        self._offsets, self._places = array("Q"), array("Q", [0])  # on the disk; in what is stored, and its end
        for offset, length in runs:
            self._offsets.append(offset)
            self._places.append(self._places[-1] + length)

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def stored(self) -> int:
        """Bytes."""
        return self._places[-1]

    def __iter__(self) -> Iterator[Tuple[int, int]]:
        for index, offset in enumerate(self._offsets):
            yield offset, self._places[index + 1] - self._places[index]

    def kinds(self) -> Iterator[Tuple[Kind, int]]:
        """Of all of the disk, with their lengths."""
        end = 0
        for offset, length in self:
            yield "zero", offset - end
            yield "data", length
            end = offset + length
        yield "zero", self.size - end

    def place(self, offset: int) -> Tuple[int, int]:
        """Where a byte of the disk is in what is stored, -1 for nowhere, and for how many bytes that goes on."""
        index = bisect_right(self._offsets, offset) - 1
        if index >= 0:
            at, length = offset - self._offsets[index], self._places[index + 1] - self._places[index]
            if at < length:
                return self._places[index] + at, length - at
        following = self._offsets[index + 1] if index + 1 < len(self) else self.size
        return -1, following - offset


def planned_map(size: int, runs: Iterable[Extent]) -> SparseMap:
    """Of a disk that begins with `size` bytes, and ends with zeros up to a whole GiB."""
    return SparseMap(-(-size // GIB) * GIB, _joined(runs, longest_gap(size)))


def longest_gap(size: int) -> int:
    """Bytes of zeros that are rather compressed, to a thousandth, than left out. In whole leaves; of disks of more than
    half a TiB more, so that no map has more than LARGEST_MAP entries.
    """
    return max(_USUAL_GAP, -(-size // (LARGEST_MAP * LEAF)) * LEAF)


def _joined(runs: Iterable[Extent], gap: int) -> Iterator[Tuple[int, int]]:
    start, end = -1, 0
    for run in runs:
        if run.kind == "data" and run.length:
            first, last = run.offset // LEAF * LEAF, -(-run.end // LEAF) * LEAF
            if start >= 0 and first - end > gap:
                yield start, end - start
                start = -1
            start, end = first if start < 0 else start, last
    if start >= 0:
        yield start, end - start


def header_bound(size: int, data: int) -> int:
    """Bytes that no `packed_header` of such a disk, with so much data in whole leaves, exceeds."""
    runs = min(data // LEAF, size // (longest_gap(size) + LEAF) + 1) + 1
    return BLOCK * (2 + runs // _IN_EXTENSION)


def packed_header(layout: SparseMap) -> Iterator[bytes]:
    """All that is in front of the data: as GNU tar writes it, but for the time and the owner, which are none."""
    is_sparse = layout.stored < layout.size
    runs, count = (chain(layout, [(layout.size, 0)]), len(layout) + 1) if is_sparse else (iter(()), 0)
    header = bytearray(
        _HEADER.pack(
            *(NAME, b"0000644", b"0000000", b"0000000", _number(layout.stored), _number(0), b" " * 8),
            *(_SPARSE if is_sparse else _PLAIN, b"", _MAGIC, b"", b"", b"", b"", b""),
            *(_entries(runs, _IN_HEADER), _flag(count > _IN_HEADER), _number(layout.size) if is_sparse else b"", b""),
        )
    )
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    yield bytes(header)
    for left in range(count - _IN_HEADER, 0, -_IN_EXTENSION):
        yield _EXTENSION.pack(_entries(runs, _IN_EXTENSION), _flag(left > _IN_EXTENSION))


def padding(size: int) -> int:
    """Bytes of zeros behind so many of an archive: two blocks, and then up to a whole record."""
    return -(-(size + 2 * BLOCK) // RECORD) * RECORD - size


def is_header_of_disk(block: bytes) -> bool:
    """By its name alone."""
    return block[:_NAME_SIZE].partition(b"\0")[0] in (NAME, b"./" + NAME)


def unpacked_header(take: Take) -> Optional[SparseMap]:
    """None where that is no archive that begins with a disk. Nothing behind the header is taken."""
    data = take(BLOCK)
    fields = _HEADER.unpack(data)
    size, kind, magic = _value(fields[4]), fields[7], fields[9]
    blank = data[: _CHECKSUM.start] + b" " * 8 + data[_CHECKSUM.stop :]
    if not is_header_of_disk(data) or size is None or sum(blank) != _value(fields[6]):
        return None
    if kind in (_PLAIN, _OLD_PLAIN):
        return SparseMap(size, [(0, size)] if size else [])
    whole = _value(fields[17])
    if kind != _SPARSE or magic != _MAGIC or whole is None:
        return None
    return _read_map(take, fields[15], fields[16], whole, size)


def _read_map(take: Take, entries: bytes, flag: bytes, size: int, stored: int) -> Optional[SparseMap]:
    runs, end, total, count = array("Q"), 0, 0, 0
    while count <= LARGEST_MAP:
        count += len(entries) // _ENTRY  # also of those without an entry, or with empty ones
        for at in range(0, len(entries), _ENTRY):
            if not entries[at]:
                break
            offset, length = _value(entries[at : at + _FIELD]), _value(entries[at + _FIELD : at + _ENTRY])
            if offset is None or length is None or offset < end or offset + length > size:
                return None
            end, total = offset + length, total + length
            if length:
                runs.extend((offset, length))
        if flag == b"\0":
            return SparseMap(size, zip(runs[::2], runs[1::2])) if total == stored else None
        entries, flag = _EXTENSION.unpack(take(BLOCK))
    return None


def _entries(runs: Iterator[Tuple[int, int]], count: int) -> bytes:
    return b"".join(_number(offset) + _number(length) for offset, length in islice(runs, count))


def _flag(is_set: bool) -> bytes:
    return b"\1" if is_set else b"\0"


def _number(value: int) -> bytes:
    if value <= _LARGEST_OCTAL:
        return b"%011o\0" % value
    return bytes([_BINARY]) + value.to_bytes(_FIELD - 1, "big")


def _value(field: bytes) -> Optional[int]:
    """None for what is no number, or for one that no offset has."""
    if field[0] == _BINARY:
        value = int.from_bytes(field[1:], "big")
        return value if value < 1 << 63 else None
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None
