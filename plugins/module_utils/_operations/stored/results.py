# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results as users see them: built from the manifest, so that a run now and a look later say the same."""

from __future__ import annotations

from typing import Any, Iterable, Iterator

from ..._exports.catalog import CatalogEntry
from ..._exports.manifest import DiskRecord, Manifest
from ..._exports.marks import read_checked_at, read_pin
from ..._exports.naming import iso_time
from ..._exports.verifications import Verifications, read_verifications
from ..._stores.base import Store


def begun_anew(reason: str) -> dict[str, Any]:
    """The `resumed` of a result, where nothing could be gone on with."""
    return {"export": "", "bytes_kept": 0, "bytes_sent": 0, "reason": reason}


def export_result(store: Store, entry: CatalogEntry, others: Iterable[CatalogEntry]) -> dict[str, Any]:
    """The `export` of a result. `others`: exports of the same VM, among which are those it stands on."""
    made, pin = entry.manifest, read_pin(store, entry)
    seen = read_verifications(store, entry)
    duration = float(made.statistics.get("duration", 0.0))
    return {
        "id": made.export_id,
        "chain_id": made.chain_id,
        "name": made.name,
        "url": store.object_url(entry.folder),
        "manifest": store.object_url(entry.key("manifest.json")),
        "mode": made.mode,
        "parent": made.parent,
        "reason": str(made.statistics.get("reason", "")),
        "fell_back": str(made.statistics.get("reason", "")) if made.statistics.get("fell_back") else "",
        "change_token": made.change_token,
        "snapshot": made.snapshot,
        "consistency": made.consistency,
        "format": made.format,
        "compression": made.compression,
        "tags": list(made.tags),
        "purpose": made.purpose,
        "verified": made.verified,
        "taken_at": iso_time(made.taken_at),
        "created_at": iso_time(made.created_at),
        "checked_at": read_checked_at(store, entry),
        "last_verified": seen.as_result(),
        "signature": made.signature,
        "encryption": "none" if made.encryption is None else "luks",
        "signed_by": [one.public_key for one in made.signatures],
        "pinned": pin is not None,
        "pin_reason": pin or "",
        "vm": {"id": made.machine.id, "name": made.machine.name, "provider": made.machine.provider},
        "disks": [
            {
                "id": disk.id,
                "name": disk.name,
                "size": disk.size,
                "bytes_read": disk.bytes_read,
                "bytes_stored": disk.bytes_stored,
                "bytes_changed": disk.bytes_changed,
                "bytes_saved": max(0, disk.size - disk.bytes_stored),
                "digest_root": disk.digest_root,
                "sha256": _image_sum(made, disk, seen),
                "offset": disk.offset,
                "url": store.object_url(entry.key(disk.file)),
                **_sending(made.statistics.get("disks", {}).get(disk.id, {})),
            }
            for disk in made.disks
        ],
        "files": list(_files(store, entry, seen)),
        "duration": duration,
        "rate": _rate(sum(disk.bytes_read for disk in made.disks), duration),
        "structure": _structure(entry, others),
        "warnings": list(made.warnings),
    }


def _image_sum(made: Manifest, disk: DiskRecord, seen: Verifications) -> str:
    """Of its bytes, in hex; empty where nobody has seen all of them in a row."""
    known = str(made.statistics.get("disks", {}).get(disk.id, {}).get("sha256", ""))
    return known if known or disk.archive is not None else seen.files.get(disk.file, "")


def _files(store: Store, entry: CatalogEntry, seen: Verifications) -> Iterator[dict[str, Any]]:
    """What lies beside the manifest."""
    made = entry.manifest
    found = [(disk.file, disk.object.size, _image_sum(made, disk, seen)) for disk in made.disks if disk.archive is None]
    found += [(one.file, one.size, seen.files.get(one.file, "")) for disk, one in made.objects if not disk]
    found += [(file.path, file.size, file.sha256) for file in (*(disk.digests for disk in made.disks), *made.files)]
    for path, size, checksum in found:
        yield {"path": path, "size": size, "sha256": checksum, "url": store.object_url(entry.key(path))}


def _structure(entry: CatalogEntry, others: Iterable[CatalogEntry]) -> list[str]:
    """Ids, as far as the chain can be followed; whether it is whole is another question."""
    parents = {other.manifest.export_id: other.manifest.parent for other in others}
    chain = [entry.manifest.export_id]
    parent = entry.manifest.parent
    while parent and parent not in chain:
        chain.append(parent)
        parent = parents.get(parent, "")
    return chain[::-1]


def _sending(statistics: dict[str, Any]) -> dict[str, Any]:
    duration = float(statistics.get("duration", 0.0))
    return {
        "duration": duration,
        "rate": _rate(int(statistics.get("bytes_read", 0)), duration),
        "sent_as": str(statistics.get("sent_as", "")),
        "read_by": str(statistics.get("read_by", "")),
    }


def _rate(count: int, duration: float) -> int:
    """Bytes per second."""
    return int(count / duration) if duration > 0 else 0


def outcome_of(made: Manifest) -> str:
    """What was made, for a line: whoever expected an increment is told why it is none."""
    if made.parent:
        return f"increment on {made.parent}"
    reason = str(made.statistics.get("reason", "")) if made.statistics.get("fell_back") else ""
    return f"full, since {reason}" if reason else "full"
