# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `storage_object` does: an object that shall not be there is removed."""

from __future__ import annotations

import re
from contextlib import closing
from fnmatch import fnmatchcase
from typing import Any

from .._errors import VmferryError
from .._stores.base import Store
from .._stores.open import open_store
from .jobs.storage_requests import RemoveRequest
from .jobs.store_access import keeps_files
from .objects.stored_checksums import described, forget_metadata, has_metadata

_MAGIC = re.compile(r"[*?[]")


def remove_object(request: RemoveRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. `conflict` where the object is not the one that is meant."""
    spec, key = request.target.store, request.target.key
    is_path = keeps_files(spec)
    with closing(open_store(spec.url, spec.settings)) as store:
        store.require_root()
        info = store.stat(key)
        before = None if info is None else described(store, info, is_path)
        if info is not None and request.if_match and info.etag != request.if_match:
            raise VmferryError(
                "conflict",
                f"{store.object_url(key)} has the etag {info.etag}, not {request.if_match}.",
                "It is another object than the one that was looked at. Look again before it is removed.",
            )
        if info is not None and info.locked:
            raise VmferryError(
                "permission_denied",
                f"{store.object_url(key)} is locked in its store, and cannot be removed yet.",
                "Wait until its retention has passed, or have whoever may lift its legal hold.",
            )
        left = info is None and is_path and has_metadata(store, key)  # by a run that was killed in between
        if info is not None and not check_mode:
            store.delete(key, if_match=request.if_match or None)
        if is_path and not check_mode:
            forget_metadata(store, key)
        return {
            "changed": info is not None or left,
            "warnings": [] if info is not None or left else _taken_for_more(store, key),
            "object": before or {},
            "diff": {
                "before": {"state": "present", **before} if before else {"state": "absent"},
                "after": {"state": "absent"},
            },
        }


def _taken_for_more(store: Store, key: str) -> list[str]:
    """What is there of that name although no such object is: whoever asked may believe that it is removed."""
    below = next(store.list(f"{key}/"), None)
    if below is not None:
        return [
            f"{store.object_url(key)} is a folder, of {store.object_url(below.key)} for example: nothing was removed. "
            "Name each object, or remove exports with vmferry.migrate.export_cleanup."
        ]
    magic = _MAGIC.search(key)
    listed = store.list(key[: magic.start()]) if magic else iter(())
    found = next((one for one in listed if fnmatchcase(one.key, key)), None)
    if found is None:
        return []
    return [
        f"There is no object of the very name {store.object_url(key)}, and key is no pattern: nothing was removed. "
        f"{store.object_url(found.key)} is still there."
    ]
