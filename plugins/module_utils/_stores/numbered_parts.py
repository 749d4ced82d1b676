# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every writer is that takes an object in numbered parts and has the server make it of them in the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Optional, Sequence

from .._blocks import ObjectInfo, PartReceipt
from .._errors import VmferryError


class NumberedParts(ABC):
    any_offset = False

    def __init__(self, url: str) -> None:
        """`url`: of the object that is to be."""
        self._url = url
        self._done: Optional[ObjectInfo] = None

    def write_at(self, offset: int, data: memoryview) -> None:
        raise VmferryError("internal", f"{self._url} takes numbered parts, not bytes at an offset.")

    def _require_incomplete(self, found: Optional[ObjectInfo]) -> None:
        """`found`: the object, where it was complete when it was taken up again."""
        if found is not None:
            raise VmferryError("conflict", f"{self._url} is complete: no part can be added.")

    def leave(self) -> None:
        """Nothing is held open."""

    def complete(self, receipts: Sequence[PartReceipt], size: int, *, if_absent: bool = False) -> ObjectInfo:
        if self._done is None:
            self._done = self._complete(receipts, size, if_absent)
        return self._done

    @abstractmethod
    def _complete(self, receipts: Sequence[PartReceipt], size: int, if_absent: bool) -> ObjectInfo: ...


def lies_in(receipt: PartReceipt, whole: ObjectInfo) -> bool:
    """Whether an object of this size can hold the part."""
    return receipt.part.offset + receipt.part.size <= whole.size


def require_size(url: str, found: Optional[ObjectInfo], size: int, otherwise: str = "another object") -> ObjectInfo:
    """What is there after an upload; `otherwise` says what that is where it is nothing of ours."""
    if found is None or found.size != size:
        there = otherwise if found is None else f"{found.size} bytes"
        raise VmferryError(
            "checksum_mismatch", f"{url} should have {size} bytes after its upload, but {there} is there."
        )
    return found
