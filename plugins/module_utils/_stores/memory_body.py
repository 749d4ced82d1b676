# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file-like request body over memory that is not ours: SDKs take bytes, bytearray or a file, but no memoryview."""

from __future__ import annotations

import os
from typing import Callable

CHUNK = 1024 * 1024  # bytes


class MemoryBody:
    """Gives slices of the memory itself, never a copy, and can be rewound for signing and for redirects."""

    def __init__(self, data: memoryview, alive: Callable[[], object] = lambda: None) -> None:
        """`alive` is called for each slice: whoever asks for one has sent those before."""
        self._alive = alive
        self._data = data.cast("B") if data.format != "B" else data
        self._at = 0
        self._least = 0

    def __len__(self) -> int:
        return len(self._data)

    def read(self, size: int = -1) -> memoryview:
        end = len(self._data) if size < 0 else self._at + max(size, self._least)
        chunk = self._data[self._at : end]
        self._at += len(chunk)
        self._alive()
        return chunk

    def send(self) -> None:
        """From now on, until it is rewound, a read may return more than was asked for.

        http.client asks for 8 or 16 KiB and sends what it gets. A slice costs nothing, but each round costs a
        system call and the interpreter's lock.
        """
        self._least = CHUNK

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._data)}[whence]
        self._least = 0
        self._at = min(max(base + offset, 0), len(self._data))
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True
