# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed clusters of an image, read many at a time: those of neighbours on the disk lie one behind the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable, Iterator, List

from .codecs import Codec
from .format import COMPRESSED, COMPRESSED_OFFSET_BITS, SECTOR

LONGEST_READ = 1024 * 1024  # bytes; compressed, so that they are worth some more
_OFFSET = (1 << COMPRESSED_OFFSET_BITS) - 1


@dataclass(frozen=True)
class Pack:
    """Where the compressed bytes of a cluster lie in the file: in these, and not up to their end."""

    start: int
    end: int

    @classmethod
    def of(cls, entry: int, file_size: int) -> Pack:
        """By its entry in the L2 table, which counts sectors; the file may end within the last one."""
        start, further = entry & _OFFSET, (entry & ~COMPRESSED) >> COMPRESSED_OFFSET_BITS
        return cls(start, min(file_size, (start // SECTOR + 1 + further) * SECTOR))


@dataclass(frozen=True)
class Wanted:
    """The bytes of `target` from a cluster, from `skip` on."""

    pack: Pack
    skip: int
    target: memoryview


def read_packs(read_at: Callable[[int, memoryview], None], codec: Codec, wanted: Iterable[Wanted]) -> Iterator[Wanted]:
    """Fills the targets; gives those whose cluster is no compressed one."""
    for group in _neighbours(wanted):
        first = group[0].pack.start
        data = memoryview(bytearray(group[-1].pack.end - first))
        read_at(first, data)
        for one in group:
            cluster = codec.unpack(data[one.pack.start - first : one.pack.end - first])
            if cluster is None:
                yield one
            else:
                one.target[:] = cluster[one.skip : one.skip + len(one.target)]


def _neighbours(wanted: Iterable[Wanted]) -> Iterator[List[Wanted]]:
    """Of which each begins in the sector in which the one before it ends, or in the next."""
    group: List[Wanted] = []
    for one in wanted:
        if group and not (
            group[-1].pack.start < one.pack.start <= group[-1].pack.end
            and group[-1].pack.end <= one.pack.end <= group[0].pack.start + LONGEST_READ
        ):
            yield group
            group = []
        group.append(one)
    if group:
        yield group
