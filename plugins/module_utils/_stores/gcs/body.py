# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A request body of a description and of memory that is not ours, sent as it lies there.

`multipart/related`, in which metadata and bytes arrive as one:
https://cloud.google.com/storage/docs/json_api/v1/how-tos/multipart-upload.
"""

from __future__ import annotations

import json
import os
from secrets import token_hex
from typing import Any, Callable, List, Mapping

CHUNK = 1024 * 1024  # bytes


class RelatedBody:
    """File-like, for requests and for sending again; gives slices of the memory, never a copy."""

    def __init__(
        self, description: Mapping[str, Any], data: memoryview, alive: Callable[[], object] = lambda: None
    ) -> None:
        """`alive` is called for each slice: whoever asks for one has sent those before."""
        self._alive = alive
        boundary = token_hex(16)
        self.content_type = f"multipart/related; boundary={boundary}"
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(description)}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n"
        self._pieces: List[memoryview] = [
            memoryview(head.encode()),
            data.cast("B") if data.format != "B" else data,
            memoryview(tail.encode()),
        ]
        self._at = 0

    def __len__(self) -> int:
        return sum(len(piece) for piece in self._pieces)

    def read(self, size: int = -1) -> memoryview:
        """More than was asked for: http.client asks for 8 or 16 KiB, and each round costs a system call."""
        self._alive()
        start = 0
        for piece in self._pieces:
            if self._at < start + len(piece):
                inside = self._at - start
                found = piece[inside : inside + max(size, CHUNK)]
                self._at += len(found)
                return found
            start += len(piece)
        return memoryview(b"")

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self)}[whence]
        self._at = min(max(base + offset, 0), len(self))
        return self._at

    def tell(self) -> int:
        return self._at
