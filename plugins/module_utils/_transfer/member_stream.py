# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file within a larger object: parts of it, from any thread, appended in their order."""

from __future__ import annotations

from hashlib import sha256
from typing import Sequence

from .._blocks import LEAF, ObjectInfo, Part, PartReceipt
from .._errors import VmferryError
from .flow import Flow
from .gapped_object import Gapped


class MemberRules:
    """Plays PartRules: nothing is asked of parts, but they are handed over in pieces where they get large."""

    max_parts = 10_000
    min_part = LEAF
    max_part = max_object = 1 << 62
    joins_pieces = True


class MemberStream:
    """Plays StreamWriter and PieceWriter. `size` and `sha256` are of all that was appended."""

    any_offset = False
    token = ""

    def __init__(self, whole: Gapped, flow: Flow, piece_size: int) -> None:
        self._whole, self._flow, self._piece_size = whole, flow, -(-piece_size // LEAF) * LEAF
        self._sum = sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()

    def write_part(self, part: Part, data: memoryview) -> str:
        self._append(part.offset, data)
        return ""

    def write_piece(self, part: Part, number: int, data: memoryview) -> None:
        self._append(part.offset + (number - 1) * self._piece_size, data)

    def join_pieces(self, part: Part) -> str:
        return ""

    def write_at(self, offset: int, data: memoryview) -> None:
        raise VmferryError("internal", "A file within an object is written in order.")

    def confirms(self, receipt: PartReceipt) -> bool:
        return False

    def complete(self, receipts: Sequence[PartReceipt], size: int, *, if_absent: bool = False) -> ObjectInfo:
        raise VmferryError("internal", "A file within an object is complete when the object is.")

    def leave(self) -> None:
        """Whoever opened the object leaves it."""

    def abort(self) -> None:
        """Whoever opened the object aborts it."""

    def interrupt(self) -> None:
        """Who waits here waits by the flow."""

    def _append(self, offset: int, data: memoryview) -> None:
        self._flow.wait(lambda: self.size == offset)
        self._sum.update(data)
        self._whole.write(data)
        ready = self._whole.take_ready()
        with self._flow.changing():
            self.size += len(data)
        self._whole.send(ready)
