# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-pass VHD, fixed and dynamic, of the very size that the footer says.

A fixed one is the disk and a footer. Azure takes it if it is whole mebibytes, so a disk that is not gets zeros behind
its end: https://learn.microsoft.com/en-us/azure/virtual-machines/linux/create-upload-generic

A dynamic one has a bitmap of one sector in front of each block. It is put at the end of a leaf of its own, so that data
lies in whole leaves: three percent more, and nothing is copied or digested twice.
"""

from __future__ import annotations

import sys
from array import array
from hashlib import sha256
from typing import Iterable, Sequence

from ..._blocks import LEAF, Extent, ImageOutput
from ..._errors import VmferryError
from ..large_blocks import LargeBlocks, blocks_touched
from ..raw import RawWriter
from .format import (
    BLOCK,
    DYNAMIC,
    FIXED,
    FOOTER,
    HEADER,
    LARGEST_FILE,
    MIB,
    NOT_STORED,
    SECTOR,
    DynamicHeader,
    Footer,
    sectors,
)

_ALL_STORED = bytes(LEAF - SECTOR) + b"\xff" * SECTOR  # a bitmap at the end of its leaf
_BITMAP = (_ALL_STORED, sha256(_ALL_STORED).digest())
_TABLE_AT = FOOTER.size + HEADER.size


def fixed_size(size: int) -> int:
    return max(1, -(-size // MIB)) * MIB


def fixed_file_size(size: int) -> int:
    return fixed_size(size) + FOOTER.size


def dynamic_bound(size: int, blocks: int) -> int:
    """Bytes of a file with so many blocks."""
    return _head_size(size) + blocks * (LEAF + BLOCK) + FOOTER.size


def dynamic_data_bound(size: int, data: int) -> int:
    """Bytes of a file with so much data in whole leaves, without its holes: these may be spread over all blocks."""
    return dynamic_bound(size, 0) + data + LEAF * min(-(-size // BLOCK), -(-data // LEAF))


def _head_size(size: int) -> int:
    table = 4 * max(1, -(-size // BLOCK))
    return -(-(_TABLE_AT + table) // LEAF) * LEAF


class FixedVhd(RawWriter):
    """Plays ImageWriter."""

    def __init__(self, size: int, output: ImageOutput, *, identity: bytes) -> None:
        super().__init__(fixed_size(size), output)
        self.size_bound = fixed_file_size(size)
        self._footer = Footer(fixed_size(size), FIXED, identity)

    def finish(self) -> None:
        super().finish()
        self._output.emit(memoryview(self._footer.pack()))


class DynamicVhd:
    """Plays ImageWriter."""

    codec = None
    encrypts = False

    def __init__(self, size: int, output: ImageOutput, runs: Iterable[Extent], *, identity: bytes) -> None:
        """`runs`: no other data comes than what they announce."""
        virtual = max(1, sectors(size)) * SECTOR
        self._output, self._footer = output, Footer(virtual, DYNAMIC, identity, FOOTER.size)
        self.head_size = _head_size(size)
        self.size_bound = dynamic_bound(size, blocks_touched(runs, BLOCK))
        if self.size_bound > LARGEST_FILE:
            raise VmferryError(
                "unsupported",
                f"An image of the format vhd_dynamic is at most {LARGEST_FILE} bytes long; this one may need "
                f"{self.size_bound}.",
                "Use vhd, or vhdx.",
            )
        self._blocks = LargeBlocks(output, virtual, BLOCK, self.head_size, _BITMAP)

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        self._blocks.data(offset, run, digests)

    def zero(self, offset: int, length: int) -> None:
        """A block that is not stored reads as zeros, and so does what no data comes for in one that is."""

    def finish(self) -> None:
        self._blocks.finish()
        self._output.emit(memoryview(self._footer.pack()))

    def head(self) -> bytes:
        places = self._blocks.places
        table = array("I", [place // SECTOR - 1 if place else NOT_STORED for place in places])  # of the bitmaps
        if sys.byteorder == "little":
            table.byteswap()
        head = self._footer.pack() + DynamicHeader(_TABLE_AT, len(places)).pack() + table.tobytes()
        return head.ljust(_TABLE_AT + SECTOR * sectors(4 * len(places)), b"\xff").ljust(self.head_size, b"\0")
