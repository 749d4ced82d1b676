# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The move by which an object gets its name, whole."""

from __future__ import annotations

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..completion import UNANSWERED
from ..numbered_parts import require_size
from .folder import DavFolder


class Placement:
    """May be asked for again, also after an answer was lost."""

    def __init__(self, folder: DavFolder, key: str) -> None:
        self._folder, self._key = folder, key
        self._source, self._size = "", -1
        self.done = False
        self.unanswered = False  # whether it may have been carried out

    def move(self, source: str, size: int, *, if_absent: bool = False) -> None:
        if self.done:
            return
        self._source, self._size = source, size
        if self.unanswered and self._was_moved():
            self.done = True
            return
        try:
            self._folder.move(source, self._key, overwrite=not if_absent)
        except VmferryError as error:
            self.unanswered = self.unanswered or error.kind in UNANSWERED
            raise
        self.done = True

    def _was_moved(self) -> bool:
        """Looked at before it is asked for again: some servers remove the target first, and only then find that there
        is nothing to move to it."""
        return self._folder.find(self._source) is None and self._size_there() == self._size

    def placed(self, size: int) -> ObjectInfo:
        """What is there now. Raises `checksum_mismatch` where it has not `size` bytes."""
        return require_size(self._folder.url_of(self._key), self._folder.find(self._key), size, "nothing")

    def undo(self) -> None:
        """While what was to be moved is still there, if it was not: that tells. What has another size is another's."""
        if not (self.done or self.unanswered):
            return
        if not self.done and self._folder.find(self._source) is not None:
            return
        if self._size_there() == self._size:
            self._folder.remove_file(self._key)

    def _size_there(self) -> int | None:
        info = self._folder.find(self._key)
        return None if info is None else info.size
