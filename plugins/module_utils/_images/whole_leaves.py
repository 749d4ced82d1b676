# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For formats whose pieces are of any length: an image is emitted in whole leaves, but for its end."""

from __future__ import annotations

from typing import List, Union

from .._blocks import LEAF, ImageOutput

_AT_ONCE = 16 * LEAF  # bytes; of more than a leaf, the digests are computed by whoever delivers it, beside others


class WholeLeaves:
    """`size`: bytes of the file so far."""

    def __init__(self, output: ImageOutput) -> None:
        self._output = output
        self._pieces: List[bytes] = []
        self._waiting = 0  # bytes of them
        self.size = 0

    def put(self, data: Union[bytes, bytearray, memoryview]) -> None:
        self.size += len(data)
        self._waiting += len(data)
        self._pieces.append(bytes(data))  # which copies what others may write over
        if self._waiting >= _AT_ONCE:
            waiting = b"".join(self._pieces)
            whole = self._waiting // LEAF * LEAF
            self._pieces, self._waiting = [waiting[whole:]], self._waiting - whole
            self._output.emit(memoryview(waiting)[:whole])

    def finish(self) -> None:
        waiting = b"".join(self._pieces)
        whole = len(waiting) // LEAF * LEAF
        self._pieces, self._waiting = [], 0
        for start, end in ((0, whole), (whole, len(waiting))):
            if end > start:
                self._output.emit(memoryview(waiting)[start:end])
