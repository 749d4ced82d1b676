# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-pass VHDX, differencing: what differs from another image, and bitmaps of the sectors that do.

[MS-VHDX] 2.5 and 2.6.2.6. As a dynamic one, with the bitmap of each chunk of blocks behind them, where any block of it
has sectors of both images.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import replace
from typing import Iterable, Iterator, Sequence, Tuple

from ..._blocks import LEAF, Extent, ImageOutput
from ..large_blocks import LargeBlocks, blocks_touched
from .format import FULLY_PRESENT, LOGICAL_SECTOR, MIB, PARTIALLY_PRESENT, ZERO, chunk_ratio, layer_entries
from .locator import pack_locator
from .writer import TABLE_AT, block_size, packed_head, packed_metadata, virtual_size

_LEAF_BITS = LEAF // LOGICAL_SECTOR // 8  # bytes of a bitmap


class DifferencingVhdx:
    """Plays ImageWriter. What comes neither as `data` nor as `zero` is the parent's."""

    codec = None
    encrypts = False

    def __init__(
        self,
        size: int,
        output: ImageOutput,
        runs: Iterable[Extent],
        *,
        identity: bytes,
        parent_name: str,
        parent_data_id: bytes,
    ) -> None:
        """`runs`: no other data or zeros come than what they announce. The parent, of the same size, lies beside it
        under its name; `parent_data_id`: `data_id_of` its identity, or as its reader tells.
        """
        self._size, self._identity, self._block = virtual_size(size), identity, block_size(size)
        self._parent = pack_locator(parent_name, parent_data_id)
        self._ratio = chunk_ratio(self._block)
        count = -(-self._size // self._block)
        self._table = array("Q", bytes(8 * layer_entries(count, self._ratio)))
        self.head_size = TABLE_AT + -(-8 * len(self._table) // MIB) * MIB
        told = (replace(run, kind="data") for run in runs if run.kind != "unchanged")
        chunks = -(-count // self._ratio)
        self.size_bound = self.head_size + blocks_touched(told, self._block) * self._block + chunks * MIB
        self._blocks = LargeBlocks(output, self._size, self._block, self.head_size)
        self._open, self._here, self._is_stored = -1, bytearray(), False  # a block, its leaves that are in this image
        self._bitmap = bytearray()  # of the chunk of the open block; empty as long as it needs none

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        done = 0
        for index, at, count in self._pieces(offset, len(run)):
            self._enter(index)
            self._is_stored = True
            self._blocks.data(offset + done, run[done : done + count], digests[done // LEAF : (done + count) // LEAF])
            self._mark(at, count)
            done += count

    def zero(self, offset: int, length: int) -> None:
        for index, at, count in self._pieces(offset, length):
            self._enter(index)
            self._mark(at, count)

    def finish(self) -> None:
        self._enter(-1)
        self._blocks.finish()

    def head(self) -> bytes:
        table = self._table[:]
        if sys.byteorder == "big":
            table.byteswap()
        metadata = packed_metadata(self._size, self._block, self._identity, self._parent)
        return packed_head(self.head_size, self._identity, metadata, table.tobytes())

    def _pieces(self, offset: int, length: int) -> Iterator[Tuple[int, int, int]]:
        """Of one block each: its number, where in it, how many bytes."""
        end = offset + length
        while offset < end:
            index, at = divmod(offset, self._block)
            count = min(end - offset, self._block - at)
            yield index, at, count
            offset += count

    def _enter(self, index: int) -> None:
        """-1 for none any more."""
        if index == self._open:
            return
        if self._open >= 0:
            self._close_block()
            if index < 0 or index // self._ratio != self._open // self._ratio:
                self._close_chunk(self._open // self._ratio)
        self._open, self._is_stored = index, False
        self._here = bytearray(self._leaves(index))

    def _leaves(self, index: int) -> int:
        return -(-min(self._block, self._size - index * self._block) // LEAF) if index >= 0 else 0

    def _mark(self, at: int, count: int) -> None:
        first, end = at // LEAF, -(-(at + count) // LEAF)
        self._here[first:end] = b"\1" * (end - first)

    def _close_block(self) -> None:
        chunk, number = divmod(self._open, self._ratio)
        entry = chunk * (self._ratio + 1) + number
        if all(self._here):
            self._table[entry] = self._blocks.places[self._open] | FULLY_PRESENT if self._is_stored else ZERO
            return
        self._blocks.empty(self._open)
        self._table[entry] = self._blocks.places[self._open] | PARTIALLY_PRESENT
        self._bitmap = self._bitmap or bytearray(MIB)
        start = number * (self._block // LOGICAL_SECTOR // 8)
        for leaf, is_here in enumerate(self._here):
            if is_here:
                at = start + leaf * _LEAF_BITS
                self._bitmap[at : at + _LEAF_BITS] = b"\xff" * _LEAF_BITS

    def _close_chunk(self, chunk: int) -> None:
        if self._bitmap:
            self._blocks.finish()
            self._table[chunk * (self._ratio + 1) + self._ratio] = self._blocks.end | FULLY_PRESENT
            self._blocks.put(bytes(self._bitmap))
            self._bitmap = bytearray()
