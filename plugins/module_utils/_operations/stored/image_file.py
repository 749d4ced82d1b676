# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of a disk image, in a store or on a path, that must stay what it is while it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

from ..._blocks import Extent, ObjectInfo
from ..._errors import VmferryError
from ..._stores.base import Store


@dataclass(frozen=True)
class ImageFile:
    store: Store
    info: ObjectInfo  # as it was when it was found

    @classmethod
    def at(cls, store: Store, key: str) -> ImageFile:
        """Raises `not_found`."""
        info = store.stat(key)
        if info is None:
            raise VmferryError("not_found", f"{store.object_url(key)} does not exist.")
        return cls(store, info)

    @property
    def key(self) -> str:
        return self.info.key

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def size(self) -> int:
        return self.info.size

    @property
    def where(self) -> str:
        return self.store.object_url(self.key)

    @property
    def path(self) -> str:
        """Where other programs of this host find it; empty for one that is not on a path."""
        location = self.store.location(self.key)
        return location if location.startswith("/") else ""

    @property
    def state(self) -> str:
        """Another one once somebody has written to it, as far as the store tells, and the same whoever owns it."""
        return f"{self.info.size} {self.info.etag or self.info.modified}"

    def beside(self, name: str) -> ImageFile | None:
        """Of its folder; `name` is a plain one."""
        info = self.store.stat(self.key[: len(self.key) - len(self.name)] + name)
        return None if info is None else ImageFile(self.store, info)

    def read_at(self, offset: int, buffer: memoryview) -> None:
        self.store.read_into(self.key, offset, buffer)

    def extents(self, size: int) -> Iterator[Extent]:
        return self.store.extents(self.key, size)

    def insist_on_no_change(self) -> None:
        """After the last read. Raises `conflict`: what was read may be of two images."""
        now = self.store.stat(self.key)
        if now is None or (ImageFile(self.store, now).state, now.changed) != (self.state, self.info.changed):
            text = f"{self.where} changed while it was read."
            raise VmferryError("conflict", text, "Put it where nobody writes to it, and try again.")
