# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For formats whose pieces are of any length: an image is emitted in whole leaves, but for its end."""

from __future__ import annotations

from typing import Union

from .._blocks import LEAF, ImageOutput


class WholeLeaves:
    """`size`: bytes of the file so far."""

    def __init__(self, output: ImageOutput) -> None:
        self._output, self._begun = output, bytearray()
        self.size = 0

    def put(self, data: Union[bytes, bytearray, memoryview]) -> None:
        self.size += len(data)
        self._begun += data
        whole = len(self._begun) // LEAF * LEAF
        if whole:
            full, self._begun = self._begun, self._begun[whole:]
            self._output.emit(memoryview(full)[:whole])

    def finish(self) -> None:
        if self._begun:
            self._output.emit(memoryview(self._begun))
            self._begun = bytearray()
