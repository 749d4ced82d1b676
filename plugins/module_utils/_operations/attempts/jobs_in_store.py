# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports as a store tells of them, in the shape of a job's record: for whoever is not on the host that runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, Mapping

from ..._errors import VmferryError
from ..._exports.catalog import Catalog, CatalogEntry
from ..._exports.intent import INTENT, Intent, read_intent
from ..._exports.manifest import MANIFEST, MANIFEST_LIMIT, read_manifest
from ..._exports.naming import iso_time
from ..._stores.base import Store
from .attempt_life import by_clock_of_store, is_dead, is_over

_TOLD = (
    *("phase", "disk", "disk_number", "disk_count", "bytes_total", "bytes_read", "bytes_sent"),
    *("percent", "phase_percent", "rate", "average_rate", "eta", "retries", "heartbeat"),
)


@dataclass(frozen=True)
class StoredJob:
    folder: str  # of the attempt, a key of the store
    record: dict[str, Any]


def jobs_in_store(store: Store) -> Iterator[StoredJob]:
    """Those under way or dead, by their intents; then those that are done, by their manifests."""
    catalog = Catalog(store)
    for folder, intent in catalog.unfinished():
        yield StoredJob(folder, _of_intent(store, folder, intent))
    for entry in catalog.read()[0]:
        yield StoredJob(entry.folder, _of_manifest(store, entry))


def job_in_folder(store: Store, folder: str, job: str) -> StoredJob | None:
    """None once it has undone itself, or was undone.

    The intent is read first: whoever commits writes the manifest before the intent goes, so one of the two is seen.
    """
    intent, manifest = _get(store, f"{folder}/{INTENT}"), _get(store, f"{folder}/{MANIFEST}")
    found = None
    if manifest is not None:
        entry = CatalogEntry(folder, read_manifest(manifest, store.object_url(f"{folder}/{MANIFEST}")))
        found = StoredJob(folder, _of_manifest(store, entry))
    elif intent is not None:
        read = read_intent(intent, store.object_url(f"{folder}/{INTENT}"))
        found = StoredJob(folder, _of_intent(store, folder, read))
    return found if found is not None and found.record["id"] == job else None


def is_given_up(found: Mapping[str, Any]) -> bool:
    """Whether a job's record has no end and no sign of life. A store may know better."""
    return found["finished"] is None and found["alive"] is False


def with_store(found: Mapping[str, Any], stored: StoredJob | None) -> dict[str, Any]:
    """The record of a job that is given up, corrected by what its store tells: that it is done, or that it lives."""
    if stored is None or stored.record["finished"] is None:
        told = {name: stored.record[name] for name in ("alive", "kept")} if stored is not None else {"alive": False}
        return {**found, **told}
    own = {name: found[name] for name in ("vm", "url", "started", "owner")}
    return {**stored.record, **own}


def _of_intent(store: Store, folder: str, found: Intent) -> dict[str, Any]:
    written = store.stat(f"{folder}/{INTENT}")
    intent = found if written is None else by_clock_of_store(found, written.modified)
    alive = not is_dead(intent)
    told = {name: intent.progress[name] for name in _TOLD if name in intent.progress}
    return {
        "phase": "pending",
        "heartbeat": intent.started_at,
        **told,
        "id": intent.job_id,
        "kind": "export",
        "vm": intent.vm_name,
        "url": store.object_url(folder),
        "started": intent.started_at,
        "finished": None,
        "alive": alive,
        "kept": None if alive or is_over(intent) else _kept(intent),
        "owner": dict(intent.owner),
        "error": None,
    }


def _kept(intent: Intent) -> dict[str, str]:
    return {"export": intent.export_id, "until": iso_time(intent.held_until)}


def _of_manifest(store: Store, entry: CatalogEntry) -> dict[str, Any]:
    made = entry.manifest
    duration = float(made.statistics.get("duration", 0.0))
    size = sum(disk.size for disk in made.disks)
    return {
        "phase": "ready",
        "id": made.job_id,
        "kind": "export",
        "vm": made.machine.name,
        "url": store.object_url(entry.folder),
        "started": made.created_at - duration,
        "finished": made.created_at,
        "heartbeat": made.created_at,
        "alive": False,
        "owner": {},
        "error": None,
        "disk": made.disks[-1].id if made.disks else "",
        "disk_number": len(made.disks),
        "disk_count": len(made.disks),
        "percent": 100.0,
        "bytes_total": size,
        "bytes_read": sum(disk.bytes_read for disk in made.disks),
        "bytes_sent": sum(disk.bytes_stored for disk in made.disks),
        "average_rate": int(size / duration) if duration > 0 else 0,
        "retries": int(made.statistics.get("retries", 0)),
    }


def _get(store: Store, key: str) -> bytes | None:
    try:
        return store.get(key, MANIFEST_LIMIT)
    except VmferryError as error:
        if error.kind == "not_found":
            return None
        raise
