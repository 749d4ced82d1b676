# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written in order, with gaps, as what is in a gzip file: still in order, with gaps, in one pass."""

from __future__ import annotations

import zlib
from typing import Any, Dict, List, Sequence, Tuple

from ..._appliances.stored_gzip import START, file_end, framed, framed_size, padding
from ..._crc import CRC32, joined
from ..._errors import VmferryError
from ..._transfer.gapped_object import Gap, GappedObject


class GzipObject:
    """Plays Gapped. `size`: bytes so far of what is in it, gaps among them."""

    def __init__(self, file: GappedObject) -> None:
        self._file = file
        self._gaps: Dict[Gap, Gap] = {}  # that are not filled, and where they are in the file
        self._sums: List[Tuple[int, int]] = []  # CRC-32 and length of what is behind each other, gaps in their places
        self._places: Dict[Gap, int] = {}  # of these in `_sums`
        self._sum = self._summed = 0  # of what comes behind the last gap
        self.size = 0
        file.write(START)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        for piece in framed(self.size, view):
            self._file.write(piece)
        self._sum = zlib.crc32(view, self._sum)
        self._summed += len(view)
        self.size += len(view)

    def reserve(self, size: int) -> Gap:
        gap = Gap(self.size, size)
        self._gaps[gap] = self._file.reserve(framed_size(self.size, size))
        self._places[gap] = len(self._sums) + 1
        self._sums += [(self._sum, self._summed), (0, size)]
        self._sum = self._summed = 0
        self.size += size
        return gap

    def fill(self, gap: Gap, data: bytes) -> None:
        if len(data) != gap.size or gap not in self._gaps:
            raise VmferryError("internal", f"{len(data)} bytes do not belong into {gap}.")
        self._file.fill(self._gaps.pop(gap), b"".join(framed(gap.offset, memoryview(data))))
        self._sums[self._places[gap]] = (zlib.crc32(data), gap.size)

    def take_ready(self) -> Sequence[Any]:
        return self._file.take_ready()

    def send(self, ready: Sequence[Any]) -> None:
        self._file.send(ready)

    def end(self) -> None:
        """Once all gaps are filled. Zeros behind the end of a tar archive are nothing."""
        self.write(bytes(padding(self.size)))
        whole = 0
        for crc, length in (*self._sums, (self._sum, self._summed)):
            whole = joined(CRC32, whole, crc, length)
        self._file.write(file_end(whole, self.size))
