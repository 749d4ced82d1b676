# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cheap proof against change tracking that lies: some leaves said to be unchanged are read, and compared.

The first and last mebibyte, where a partition table and a boot loader lie, are always looked at; the other leaves are
spread over the disk, hold data, and are others each time. Where a source is read in blocks larger than a leaf, each of
which is a request that somebody pays for, several leaves are of one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Dict, Iterator, List, Optional, Tuple

from .._blocks import LEAF, BlockSource
from .digest_file import CHUNK_LEAVES
from .digests import LeafHash, leaf_digests, plain_hash
from .windows import ExtentMap

EDGE_LEAVES = 16  # at either end
_CANDIDATES = 8  # blocks of each stretch, as some of them may have changed, and other stretches may be empty
_PLACES = 8  # at least, however many leaves a block has: what changes behind everybody's back does so in places
_AT_ONCE = 16  # leaves read in one call
MergedLeaves = Iterator[Tuple[int, Dict[int, bytes]]]
_Leaves = List[Tuple[int, bytes]]  # of one block, with what the parent has


@dataclass(frozen=True)
class Mismatch:
    """Bytes `[start, end)` differ although they were said to be unchanged."""

    start: int
    end: int


class SpotCheck:
    def __init__(
        self, size: int, count: int, shift: float, leaf_hash: LeafHash = plain_hash, block: int = LEAF
    ) -> None:
        """`count`: leaves to read besides the ends. `shift`: where in each stretch, from 0 to 1; another every time.
        `block`: bytes that the source has to read for any of them."""
        self._leaf_hash, self._in_block = leaf_hash, max(1, block // LEAF)
        self._leaf_count, self._size = -(-size // LEAF), size
        self._count = min(count, max(_PLACES, -(-count // self._in_block)))  # of blocks
        self._of_block = -(-count // self._count) if count else 0
        self._turn = int(shift * (1 << 16))  # by which other stretches have theirs looked at each time
        stretch = self._leaf_count / count if count else 0.0
        starts = (int(stretch * (number + shift)) for number in range(count))
        self._points = sorted({start - start % self._in_block for start in starts}) if size else []
        self._found: List[List[_Leaves]] = [[] for _unused in self._points]
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
                        self._note(at, index, inside[position])
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

    def _note(self, at: int, index: int, digest: bytes) -> None:
        blocks = self._found[at]
        if not blocks or blocks[-1][0][0] // self._in_block != index // self._in_block:
            if len(blocks) == _CANDIDATES:
                return
            blocks.append([])
        if len(blocks[-1]) < self._of_block:
            blocks[-1].append((index, digest))

    def _chosen(self, extents: ExtentMap) -> _Leaves:
        """Of as many stretches as there are blocks to read, spread over the disk, and more of some where others have
        none."""
        same = [[[one for one in block if _is_same(extents, one[0])] for block in blocks] for blocks in self._found]
        chosen: List[_Leaves] = []
        for turn in zip_longest(*([block for block in blocks if block] for blocks in same), fillvalue=[]):
            there, wanted = [block for block in turn if block], self._count - len(chosen)
            count = min(wanted, len(there))
            chosen += [there[(number * len(there) // count + self._turn) % len(there)] for number in range(count)]
        return [leaf for block in chosen for leaf in block]

    def _wants(self, at: int, end: int) -> bool:
        """Whether leaves before `end` may be candidates of a stretch."""
        if at >= len(self._points) or self._points[at] >= end:
            return False
        blocks = self._found[at]
        return len(blocks) < _CANDIDATES or len(blocks[-1]) < self._of_block

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
