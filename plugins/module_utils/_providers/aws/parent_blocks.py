# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a snapshot has of which another one is made as its child."""

from __future__ import annotations

from typing import List, Optional, Tuple

from .block_reader import BlockReader
from .snapshot_blocks import SnapshotBlocks


class ParentBlocks:
    """Thread-safe. Pages of the list are asked for when they are needed."""

    def __init__(self, reader: BlockReader, blocks: SnapshotBlocks) -> None:
        self._reader, self._blocks = reader, blocks

    def held(self, first: int, end: int) -> List[int]:
        """Of these blocks, those that the child has from it where it gets none of its own."""
        found: List[int] = []
        at = first
        while at < end:
            page = self._reader.page(self._blocks, at)
            found += [index for index in page.indexes[page.position(at) :] if index < end]
            at = max(page.end, at + 1)
        return found

    def any_block(self) -> Optional[Tuple[int, bytes]]:
        """None where it has none at all."""
        for page in self._blocks.pages():
            for index in page.indexes[:1]:
                return index, bytes(self._reader.read(self._blocks, index))
        return None
