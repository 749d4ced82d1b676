# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planned qcow2 as a writer: all that maps the data goes first, so that the file can be sent from its beginning."""

from __future__ import annotations

from typing import Sequence

from ..._blocks import LEAF, Extent, ImageOutput
from ..._errors import VmferryError
from .planned import PlannedQcow2


class PlannedWriter:
    """Plays ImageWriter, for a full image whose length is `size_bound`, exact, before its first byte.

    Data that was announced and turns out to be zeros has its place already, so it is stored as zeros.
    """

    head_size = 0  # nothing is known last
    codec = None
    encrypts = False

    def __init__(self, plan: PlannedQcow2, output: ImageOutput) -> None:
        self._plan, self._output = plan, output
        self.size_bound = plan.size
        self._places = self._plan.runs()
        self._place: Extent | None = None
        self._at = 0  # in guest data, all before which is emitted
        self._begun = False

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        self._until(offset)
        done = 0
        while done < len(run):
            place = self._place_at(offset + done)
            if place is None or place.offset > offset + done:
                raise VmferryError("internal", f"There is data at byte {offset + done}, where none was announced.")
            count = min(len(run) - done, place.end - offset - done)
            self._output.emit(run[done : done + count], digests[done // LEAF : (done + count) // LEAF])
            done += count
            self._at = offset + done

    def zero(self, offset: int, length: int) -> None:
        """Nothing to do now: the next data, or the end, finds what it has to fill."""

    def finish(self) -> None:
        self._until(1 << 63)

    def head(self) -> bytes:
        return b""

    def _until(self, offset: int) -> None:
        if not self._begun:
            self._begun = True
            for piece in self._plan.head():
                self._output.emit(memoryview(piece))
        while (place := self._place_at(self._at)) is not None:
            start, end = max(place.offset, self._at), min(place.end, offset)
            if start >= end:
                return
            self._output.hole(end - start)
            self._at = end

    def _place_at(self, offset: int) -> Extent | None:
        """The first that ends behind `offset`; none is asked for twice in the wrong order."""
        while self._place is None or self._place.end <= offset:
            self._place = next(self._places, None)
            if self._place is None:
                return None
        return self._place
