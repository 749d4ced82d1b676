# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file system that gives one wrong byte, once."""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import FilesystemStore


class Flipped:
    """Of the byte at `place` of an object, the read of the number `turn` is wrong, counted from 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, place: int, turn: int) -> None:
        self.reads, self.bytes_read, self._turn = 0, 0, turn
        plain = FilesystemStore.read_into

        def read_into(store: FilesystemStore, key: str, offset: int, buffer: memoryview) -> None:
            plain(store, key, offset, buffer)
            if not key.endswith(name):
                return
            self.bytes_read += len(buffer)
            if offset <= place < offset + len(buffer):
                self.reads += 1
                if self.reads == turn:
                    buffer[place - offset] ^= 0xFF

        monkeypatch.setattr(FilesystemStore, "read_into", read_into)

    @property
    def was_wrong(self) -> bool:
        return self.reads >= self._turn
