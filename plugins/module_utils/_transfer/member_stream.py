# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file within a larger object: parts of it, from any thread, appended in their order."""

from __future__ import annotations

from hashlib import sha256
from typing import Sequence

from .._blocks import ObjectInfo, PartReceipt
from .._errors import VmferryError
from .flow import Flow
from .gapped_object import Gapped
from .ordered_parts import OrderedParts


class MemberStream(OrderedParts):
    """Plays StreamWriter and PieceWriter. `size` and `sha256` are of all that was appended."""

    def __init__(self, whole: Gapped, flow: Flow, piece_size: int) -> None:
        super().__init__(flow, piece_size)
        self._whole, self._sum = whole, sha256()

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()

    def complete(self, receipts: Sequence[PartReceipt], size: int, *, if_absent: bool = False) -> ObjectInfo:
        raise VmferryError("internal", "A file within an object is complete when the object is.")

    def leave(self) -> None:
        """Whoever opened the object leaves it."""

    def abort(self) -> None:
        """Whoever opened the object aborts it."""

    def interrupt(self) -> None:
        """Who waits here waits by the flow."""

    def _append(self, data: memoryview) -> None:
        self._sum.update(data)
        self._whole.write(data)
        ready = self._whole.take_ready()
        with self._flow.changing():
            self.size += len(data)
        self._whole.send(ready)
