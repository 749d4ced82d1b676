# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the SHA-256 of whole images into the manifest of an export, where other tools look for it.

A manifest is swapped by nobody else but a merge, and removed by a deletion or by a run that takes its own commit back.
Each of them leaves a mark beside it first. So one without marks, which is replaced only if it is still what was read
before the marks were looked for, is nobody's unfinished work. What begins later may find either manifest, or one after
the other: they say the same of the export.
"""

from __future__ import annotations

from typing import Mapping

from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.checksums import with_checksums
from ..._exports.deletion import DELETION
from ..._exports.folding import FOLDING
from ..._exports.intent import INTENT
from ..._exports.manifest import MANIFEST, MANIFEST_LIMIT, read_manifest
from ..._stores.base import Store
from ..attempts.litter import probe_key

_AT_WORK = (INTENT, DELETION, FOLDING)


def fill_checksums(store: Store, entry: CatalogEntry, files: Mapping[str, str]) -> bool:
    """Whether the manifest has them now. `files`: SHA-256 of images of this entry, by path.

    Another manifest than the entry's stays as it is, as does any where the store cannot replace on a condition.
    """
    key = entry.key(MANIFEST)
    info = store.stat(key)
    if info is None:
        return False
    found = store.get(key, MANIFEST_LIMIT)
    if read_manifest(found, store.object_url(key)) != entry.manifest:
        return False
    sums = {disk.id: files[disk.file] for disk in entry.manifest.disks if disk.file in files}
    filled = with_checksums(found, sums)
    if filled is None:
        return True
    if not store.probe(probe_key()).conditional_replace:
        return False
    if any(store.stat(entry.key(mark)) is not None for mark in _AT_WORK):
        return False
    try:
        store.put(key, filled, if_match=info.etag)
    except VmferryError as error:
        if error.kind in ("conflict", "not_found"):
            return False
        raise
    return True
