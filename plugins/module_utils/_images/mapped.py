# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks whose bytes lie as they are somewhere in a file: what is common to reading them, whatever maps them."""

from __future__ import annotations

from typing import Callable, Iterable, Iterator, Sequence, Tuple

from .._blocks import Extent, Kind, Piece
from .._errors import VmferryError

NOWHERE = -1  # a place: zeros
LONGEST_READ = 8 * 1024 * 1024  # bytes in one request

ReadAt = Callable[[int, memoryview], None]
Place = Callable[[int], Tuple[int, int]]


def check_bounds(pieces: Sequence[Piece], size: int, where: str) -> None:
    for offset, buffer in pieces:
        if offset < 0 or offset + len(buffer) > size:
            raise VmferryError("internal", f"{where} was asked for bytes beyond its disk.")


def read_mapped(read_at: ReadAt, place_of: Place, pieces: Sequence[Piece]) -> None:
    """`place_of(offset)`: where a byte of the disk lies in the file, or NOWHERE, and for how many bytes that goes on.
    Neighbours are read at once.
    """
    for offset, buffer in pieces:
        while buffer:
            place, length = place_of(offset)
            length = min(length, len(buffer))
            while place != NOWHERE and length < min(len(buffer), LONGEST_READ):
                following, further = place_of(offset + length)
                if following != place + length:
                    break
                length = min(length + further, len(buffer), LONGEST_READ)
            here, buffer = buffer[:length], buffer[length:]
            if place == NOWHERE:
                here[:] = bytes(length)
            else:
                read_at(place, here)
            offset += length


def joined(runs: Iterable[Tuple[Kind, int]], size: int) -> Iterator[Extent]:
    """Of the kinds and lengths of neighbours, which may go on behind the disk's end."""
    at, length, last = 0, 0, None
    for kind, count in runs:
        if not count:
            continue
        if last is not None and kind != last and length:
            yield Extent(at, length, last)
            at, length = at + length, 0
        last, length = kind, min(length + count, size - at)
    if last is not None and length:
        yield Extent(at, length, last)
