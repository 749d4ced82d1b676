# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which bytes of a page blob were ever written; all others are zeros, and travel nowhere."""

from __future__ import annotations

from typing import Iterator, List, Sequence, Tuple

from ..._blocks import LEAF, Extent, Part
from .container import Container

PAGE = 512  # bytes
_ZEROS = bytes(LEAF)
Range = Tuple[int, int]  # from its first byte up to, without it, its end


def runs(data: memoryview, longest: int) -> List[Range]:
    """Where data is that is not zeros, in whole leaves, none longer than `longest` bytes (a multiple of a leaf)."""
    found: List[Range] = []
    for at in range(0, len(data), LEAF):
        leaf = data[at : at + LEAF]
        if leaf.tobytes() == _ZEROS[: len(leaf)]:  # memoryviews compare item by item
            continue
        if found and found[-1][1] == at and at - found[-1][0] < longest:
            found[-1] = (found[-1][0], at + len(leaf))
        else:
            found.append((at, at + len(leaf)))
    return found


def page_ranges(container: Container, key: str, size: int) -> Iterator[Range]:
    """https://learn.microsoft.com/rest/api/storageservices/get-page-ranges"""
    if not size:
        return
    items = container.blob(key).list_page_ranges(offset=0, length=size)
    for page in container.pages("Reading the ranges of", key, items):
        for each in page:
            if not each.cleared:
                yield int(each.start), int(each.end) + 1


def filled_within(ranges: Sequence[Range], part: Part) -> int:
    """Bytes of a part that were written."""
    end = part.offset + part.size
    return sum(max(0, min(stop, end) - max(start, part.offset)) for start, stop in ranges)


def extents_of(ranges: Iterator[Range], size: int) -> Iterator[Extent]:
    """Of the first `size` bytes, in whole leaves; touching data is one extent."""
    at = start = end = 0  # the data that is not told yet lies from start to end
    for first, last in ranges:
        begin, stop = first // LEAF * LEAF, min(-(-last // LEAF) * LEAF, size)
        if begin <= end:
            end = max(end, stop)
            continue
        if end > start:
            yield Extent(start, end - start, "data")
        yield Extent(end, begin - end, "zero")
        start, end = begin, stop
    if end > start:
        yield Extent(start, end - start, "data")
    at = end
    if at < size:
        yield Extent(at, size - at, "zero")
