# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which exports are to be in a further store, and were not seen there yet: said by marks beside their manifests.

So a copy that failed is made up for, also where the next export does not stand on that one; what was copied once and
was cleaned up there is not copied again. A mark is there before its manifest, which the run may not survive.
"""

from __future__ import annotations

from ..._errors import VmferryError
from ..._exports.catalog import Catalog, CatalogEntry
from ..._exports.marks import owed_mark
from ..._stores.base import Store


class OwedCopies:
    """`url`: of the further store."""

    def __init__(self, store: Store, url: str) -> None:
        self._store, self._url, self._mark = store, url, owed_mark(url)

    def note(self, entry: CatalogEntry) -> None:
        self._store.put(entry.key(self._mark), f"{self._url}\n".encode())

    def forget(self, entry: CatalogEntry) -> None:
        self._store.delete(entry.key(self._mark))

    def beside(self, entry: CatalogEntry) -> list[CatalogEntry]:
        """The others of the same VM, the oldest first. What cannot be read is left out: its own tasks tell of that."""
        if not entry.home:
            return []
        found = []
        for info in list(self._store.list(f"{entry.home}/")):
            folder, _slash, name = info.key.rpartition("/")
            if name == self._mark and folder != entry.folder:
                found += self._committed(folder.rpartition("/")[2], entry)
        return sorted(found, key=lambda one: one.manifest.taken_at)

    def _committed(self, export: str, entry: CatalogEntry) -> list[CatalogEntry]:
        try:
            found = Catalog(self._store, entry.trust).search(export, entry.manifest.machine.id)
        except VmferryError as error:
            if error.kind not in ("not_found", "conflict"):
                raise
            return []
        return [found] if isinstance(found, CatalogEntry) else []
