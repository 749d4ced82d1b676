# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cheap proof against change tracking that lies: some leaves said to be unchanged are read, and compared.

The first and last mebibyte, where a partition table and a boot loader lie, are always looked at; the other leaves are
spread over the disk, hold data, and are others each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Dict, Iterator, Optional, Tuple

from .._blocks import LEAF, BlockSource
from .digest_file import CHUNK_LEAVES
from .digests import LeafHash, leaf_digests, plain_hash
from .windows import ExtentMap

EDGE_LEAVES = 16  # at either end
_CANDIDATES = 8  # of each stretch, as some of them may have changed, and other stretches may be empty
_AT_ONCE = 16  # leaves read in one call
MergedLeaves = Iterator[Tuple[int, Dict[int, bytes]]]


@dataclass(frozen=True)
class Mismatch:
    """Bytes `[start, end)` differ although they were said to be unchanged."""

    start: int
    end: int


class SpotCheck:
    def __init__(self, size: int, count: int, shift: float, leaf_hash: LeafHash = plain_hash) -> None:
        """`count`: leaves to read besides the ends. `shift`: where in each stretch, from 0 to 1; another every time."""
        self._count, self._leaf_hash = count, leaf_hash
        self._leaf_count, self._size = -(-size // LEAF), size
        stretch = self._leaf_count / count if count else 0.0
        self._points = sorted({int(stretch * (number + shift)) for number in range(count)}) if size else []
        self._found: list[list[tuple[int, bytes]]] = [[] for _unused in self._points]
        ends = (range(min(EDGE_LEAVES, self._leaf_count)), range(self._leaf_count)[-EDGE_LEAVES:])
        self._edges: Dict[int, Optional[bytes]] = {index: None for end in ends for index in end}
        self.bytes_read = 0

    def watching(self, leaves: MergedLeaves) -> MergedLeaves:
        """What the parent has, passed through; what is to be compared is remembered."""
        at = 0  # the stretch whose candidates are being looked for
        for chunk, inside in leaves:
            first = chunk * CHUNK_LEAVES
            if first < EDGE_LEAVES or first + CHUNK_LEAVES > self._leaf_count - EDGE_LEAVES:
                self._edges.update({first + p: d or None for p, d in inside.items() if first + p in self._edges})
            while at + 1 < len(self._points) and self._points[at + 1] <= first:
                at += 1
            if self._wants(at, first + CHUNK_LEAVES):
                for position in sorted(inside):
                    index = first + position
                    while at + 1 < len(self._points) and self._points[at + 1] <= index:
                        at += 1
                    if inside[position] and index not in self._edges and self._wants(at, index + 1):
                        self._found[at].append((index, inside[position]))
            yield chunk, inside

    def compare(self, source: BlockSource, extents: ExtentMap) -> Mismatch | None:
        """After the parent's leaves went by. `extents`: what the source says of its changes."""
        expected = {index: digest for index, digest in self._edges.items() if _is_same(extents, index)}
        expected.update(self._chosen(extents))
        wanted = sorted(expected)
        buffer = bytearray(_AT_ONCE * LEAF)
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            for index, digest in zip(some, self._read(source, some, buffer)):
                if digest != expected[index]:
                    return Mismatch(index * LEAF, min((index + 1) * LEAF, self._size))
        return None

    def _chosen(self, extents: ExtentMap) -> list[tuple[int, bytes]]:
        """One of each stretch, and more of some where others have none."""
        unchanged = [[one for one in candidates if _is_same(extents, one[0])] for candidates in self._found]
        rounds = zip_longest(*unchanged)
        return [one for turn in rounds for one in turn if one is not None][: self._count]

    def _wants(self, at: int, end: int) -> bool:
        """Whether leaves before `end` may be candidates of a stretch."""
        return at < len(self._points) and self._points[at] < end and len(self._found[at]) < _CANDIDATES

    def _read(self, source: BlockSource, indexes: list[int], buffer: bytearray) -> list[bytes | None]:
        with memoryview(buffer) as view:
            lengths = [min(LEAF, self._size - index * LEAF) for index in indexes]
            source.read_into(
                [(index * LEAF, view[n * LEAF : n * LEAF + lengths[n]]) for n, index in enumerate(indexes)]
            )
        self.bytes_read += sum(lengths)
        return leaf_digests(buffer, (len(indexes) - 1) * LEAF + lengths[-1], indexes, self._leaf_hash)


def _is_same(extents: ExtentMap, index: int) -> bool:
    return extents.kind_at(index * LEAF) == "unchanged"
