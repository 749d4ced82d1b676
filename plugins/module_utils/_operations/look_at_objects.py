# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `storage_info` does: one object, or a list of them, as the store tells of it."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import Any

from .._stores.keys import check_key, check_prefix
from .._stores.open import open_store
from .jobs.storage_requests import LookRequest
from .jobs.store_access import keeps_files
from .objects.stored_checksums import described, without_sidecars


def look_at_objects(request: LookRequest) -> dict[str, Any]:
    """The module's result: an object that is not there is no failure, and a store that is not there is one."""
    is_path = keeps_files(request.store)
    with closing(open_store(request.store.url, request.store.settings)) as store:
        store.require_root()
        if request.key:
            one = store.stat(check_key(request.key))
            found, truncated = [] if one is None else [one], False
        else:
            listing = store.list(check_prefix(request.prefix))
            shown = without_sidecars(store, listing) if is_path else listing
            listed = list(islice(shown, request.limit + 1))
            found, truncated = listed[: request.limit], len(listed) > request.limit
        return {
            "changed": False,
            "exists": bool(found),
            "objects": [described(store, info, is_path) for info in found],
            "truncated": truncated,
            "free_space": store.free_space(),
        }
