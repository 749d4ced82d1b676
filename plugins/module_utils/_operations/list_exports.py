# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `export_info` does: reads manifests, changes nothing."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Sequence

from .._exports.catalog import Catalog, CatalogEntry
from .._exports.naming import iso_time
from .._stores.open import open_store
from .requests import StoreSpec
from .results import export_result


def list_exports(
    spec: StoreSpec, vm: str, export: str, tags: Sequence[str], purpose: str, statistics: bool
) -> dict[str, Any]:
    """All that fit; `export` (an id or a name) must exist. Broken manifests are told, never left out in silence."""
    with closing(open_store(spec.url, spec.settings)) as store:
        store.require_root()
        catalog = Catalog(store)
        whole, broken = catalog.read(vm)
        if export:
            whole, broken = [catalog.find(export, vm)], []
        chosen = [entry for entry in whole if _fits(entry, tags, purpose)]
        result: dict[str, Any] = {
            "changed": False,
            "exports": [export_result(store, entry) for entry in chosen],
            "broken": [{"url": store.object_url(one.folder), "msg": str(one.error)} for one in broken],
        }
        if statistics:
            result["statistics"] = _statistics(chosen, store.free_space())
        return result


def _fits(entry: CatalogEntry, tags: Sequence[str], purpose: str) -> bool:
    return set(tags) <= set(entry.manifest.tags) and purpose in ("", entry.manifest.purpose)


def _statistics(entries: Sequence[CatalogEntry], free: int | None) -> dict[str, Any]:
    disks = [disk for entry in entries for disk in entry.manifest.disks]
    taken = sorted(entry.manifest.taken_at for entry in entries)
    return {
        "exports": len(entries),
        "vms": len({entry.manifest.machine.id for entry in entries}),
        "size": sum(disk.size for disk in disks),
        "bytes_stored": sum(disk.bytes_stored for disk in disks),
        "oldest": iso_time(taken[0]) if taken else None,
        "newest": iso_time(taken[-1]) if taken else None,
        "free_space": free,
    }
