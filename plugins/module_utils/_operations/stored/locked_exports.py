# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports that their store keeps, by object lock: to delete them would hide them and free nothing."""

from __future__ import annotations

from typing import Callable, Iterable, Sequence

from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.manifest import MANIFEST
from ..._exports.retention_rules import Decision
from ..._stores.base import Store
from .stored_objects import objects_of


def lock_export(store: Store, entry: CatalogEntry) -> None:
    """All but the manifest, which commits it and comes last."""
    for _unused, path, _also_unused in objects_of(entry):
        store.lock(entry.key(path))


def lock_manifest(store: Store, entry: CatalogEntry, warn: Callable[[str], object]) -> None:
    """When it is committed: what is done is done, and its data are locked already."""
    try:
        store.lock(entry.key(MANIFEST))
    except VmferryError as error:
        warn(f"The manifest is not locked, while all else of the export is: {error}")


def locked_exports(store: Store, decisions: Iterable[Decision], entries: Sequence[CatalogEntry]) -> dict[str, str]:
    """By folder, of what is to go: a sentence. A merge into what is locked is refused by whoever merges."""
    going = {one.candidate.key for one in decisions if one.action != "keep"}
    found = {}
    for entry in entries:
        file = _first_locked(store, entry) if entry.folder in going else ""
        if file:
            found[entry.folder] = f"Its {file} is locked in the store, so that nobody can delete it yet."
    return found


def _first_locked(store: Store, entry: CatalogEntry) -> str:
    for file in [MANIFEST, *(path for _unused, path, _also_unused in objects_of(entry))]:
        info = store.stat(entry.key(file))
        if info is not None and info.locked:
            return file
    return ""
