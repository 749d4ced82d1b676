# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `export_info` does: reads manifests, changes nothing."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Sequence

from .._exports.catalog import BrokenEntry, Catalog, CatalogEntry
from .._exports.naming import iso_time
from .._exports.seals import UNCHECKED, Seals
from .._exports.signing import Lenient, Untrusted
from .._stores.open import open_store
from .jobs.requests import StoreSpec
from .stored.results import export_result


def list_exports(
    spec: StoreSpec,
    vm: str,
    export: str,
    tags: Sequence[str],
    purpose: str,
    statistics: bool,
    seals: Seals = UNCHECKED,
) -> dict[str, Any]:
    """All that fit; `export` (an id or a name) must exist, and be signed as `seals` asks for. Broken manifests are
    told, never left out in silence; those without such a signature are told as what they are, and added up apart."""
    with closing(open_store(spec.url, spec.settings)) as store:
        store.require_root()
        catalog = Catalog(store, seals)
        trusted, broken = catalog.read(vm)
        untrusted, broken = _told_by_claims(Catalog(store, Lenient(seals)), vm, broken)
        whole = _in_order([*trusted, *untrusted])
        chosen = [entry for entry in whole if _fits(entry, tags, purpose)]
        if export:
            chosen, broken = [one for one in [catalog.find(export, vm)] if _fits(one, tags, purpose)], []
        result: dict[str, Any] = {
            "changed": False,
            "exports": [export_result(store, entry, whole) for entry in chosen],
            "broken": [{"url": store.object_url(one.folder), "msg": str(one.error)} for one in broken],
        }
        if statistics:
            beside = {entry.folder for entry in untrusted}
            counted = [entry for entry in chosen if entry.folder not in beside]
            result["statistics"] = _statistics(counted, len(chosen) - len(counted), store.free_space())
        return result


def _told_by_claims(
    catalog: Catalog, vm: str, broken: Sequence[BrokenEntry]
) -> tuple[list[CatalogEntry], list[BrokenEntry]]:
    """Of what is broken, that which has no signature that is trusted, and claims to be of this VM; and the rest.

    What lies among the exports of this VM and claims to be another's is none of theirs for nobody but who changed it.
    """
    claims, rest = [], []
    for one in broken:
        told = catalog.at(one.folder) if isinstance(one.error, Untrusted) else None
        if told is not None and (not vm or vm in (told.manifest.machine.name, told.manifest.machine.id)):
            claims.append(told)
        else:
            rest.append(one)
    return claims, rest


def _in_order(entries: Sequence[CatalogEntry]) -> list[CatalogEntry]:
    """The oldest of each VM first."""
    first = {entry.manifest.machine.id: place for place, entry in reversed([*enumerate(entries)])}

    def order(entry: CatalogEntry) -> tuple[int, float, str]:
        return first[entry.manifest.machine.id], entry.manifest.taken_at, entry.manifest.export_id

    return sorted(entries, key=order)


def _fits(entry: CatalogEntry, tags: Sequence[str], purpose: str) -> bool:
    return set(tags) <= set(entry.manifest.tags) and purpose in ("", entry.manifest.purpose)


def _statistics(entries: Sequence[CatalogEntry], untrusted: int, free: int | None) -> dict[str, Any]:
    disks = [disk for entry in entries for disk in entry.manifest.disks]
    taken = sorted(entry.manifest.taken_at for entry in entries)
    return {
        "exports": len(entries),
        "untrusted": untrusted,
        "vms": len({entry.manifest.machine.id for entry in entries}),
        "size": sum(disk.size for disk in disks),
        "bytes_stored": sum(disk.bytes_stored for disk in disks),
        "oldest": iso_time(taken[0]) if taken else None,
        "newest": iso_time(taken[-1]) if taken else None,
        "free_space": free,
    }
