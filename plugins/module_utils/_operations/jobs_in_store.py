# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports as a store tells of them, in the shape of a job's record: for whoever is not on the host that runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._exports.catalog import Catalog, CatalogEntry
from .._exports.intent import Intent
from .._stores.base import Store
from .._transfer.owner import is_owner_alive
from .attempt import is_dead

_TOLD = (
    *("phase", "disk", "disk_number", "disk_count", "bytes_total", "bytes_read", "bytes_sent"),
    *("percent", "phase_percent", "rate", "average_rate", "eta", "retries", "heartbeat"),
)


@dataclass(frozen=True)
class StoredJob:
    folder: str  # of the attempt, a key of the store
    record: dict[str, Any]


def jobs_in_store(store: Store) -> list[StoredJob]:
    """Those under way or dead, by their intents; those that are done, by their manifests."""
    catalog = Catalog(store)
    under_way = [StoredJob(folder, _of_intent(store, folder, intent)) for folder, intent in catalog.unfinished()]
    return under_way + [StoredJob(entry.folder, _of_manifest(store, entry)) for entry in catalog.read()[0]]


def _of_intent(store: Store, folder: str, intent: Intent) -> dict[str, Any]:
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
        "alive": not is_dead(intent, is_owner_alive),
        "owner": dict(intent.owner),
        "error": None,
    }


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
