# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of an export after it was committed, in small objects beside its manifest, which stays as it is."""

from __future__ import annotations

import json
from hashlib import sha256

from .._errors import VmferryError
from .catalog import CatalogEntry, Shelf
from .fields import Fields
from .naming import iso_time

CHECKED = "checked.json"  # when the VM was last seen to equal this export
PINNED = "pinned"  # the export stays, whatever the limits; holds the reason, in plain text, or nothing
OWED = "copy-"  # begins the name of a mark: the export is to be in a further store, and was not seen there yet
_LIMIT = 65536  # bytes; what we write has under 200
_LONGEST_REASON = 256  # characters of it that are told


def owed_mark(url: str) -> str:
    """The mark's name, for the further store at `url`."""
    return f"{OWED}{sha256(url.rstrip('/').encode()).hexdigest()[:16]}"


def checked_mark(now: float, job_id: str) -> bytes:
    return json.dumps({"checked_at": iso_time(now), "job_id": job_id}).encode()


def read_checked_at(shelf: Shelf, entry: CatalogEntry) -> str:
    """ISO 8601, UTC; empty where it was not looked at again, or where somebody else wrote what is there."""
    return _checked(shelf, entry, "checked_at")


def read_checked_by(shelf: Shelf, entry: CatalogEntry) -> str:
    """The job that looked, else as `read_checked_at`."""
    return _checked(shelf, entry, "job_id")


def _checked(shelf: Shelf, entry: CatalogEntry, field: str) -> str:
    key = entry.key(CHECKED)
    try:
        return Fields.parse(shelf.get(key, _LIMIT), shelf.object_url(key)).text(field)
    except VmferryError as error:
        if error.kind in ("not_found", "invalid_config"):
            return ""
        raise


def read_pin(shelf: Shelf, entry: CatalogEntry) -> str | None:
    """Why it is pinned, '' where that is not said, or None: it is not."""
    try:
        text = shelf.get(entry.key(PINNED), _LIMIT).decode(errors="replace")
    except VmferryError as error:
        if error.kind == "not_found":
            return None
        if error.kind == "invalid_config":  # far too long for a reason, and a pin all the same
            return ""
        raise
    plain = "".join(letter if letter.isprintable() else " " for letter in text[:_LONGEST_REASON])
    return plain.strip()
