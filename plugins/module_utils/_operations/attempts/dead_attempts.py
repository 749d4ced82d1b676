# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of an attempt that died: a run goes on with it, or removes it. `attempt` tells how the two agree."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Callable, Sequence

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..._exports.intent import CANCEL, INTENT, JOURNAL, Intent, read_intent
from ..._exports.manifest import MANIFEST
from ..._exports.naming import attempt_of
from ..._stores.base import Store, StoreCapabilities
from ..._transfer.owner import current_owner
from .attempt_life import by_clock_of_store, in_use, is_dead
from .litter import time_of_store


def remove_dead_attempt(
    store: Store,
    folder: str,
    capabilities: StoreCapabilities,
    warn: Callable[[str], object],
    undo: Callable[[Intent], object] = lambda intent: None,
) -> bool:
    """False where it was committed after all, and stays. Raises `busy` where its owner lives.

    `undo` what it left elsewhere, while the intent still tells of it.
    """
    claimed = claim_dead_attempt(store, folder, capabilities, secrets.token_hex(16), to_remove=True)
    if claimed is None:
        return False
    undo(claimed.intent)
    return remove_attempt(store, folder, warn)


def remove_unreadable_attempt(
    store: Store, folder: str, capabilities: StoreCapabilities, seen: ObjectInfo, warn: Callable[[str], object]
) -> bool:
    """As `remove_dead_attempt`, where the intent that was `seen` tells nothing."""
    now, vm = time.time(), folder.rpartition("/")[0]
    export_id, job_id = folder.rpartition("/")[2], secrets.token_hex(16)
    if _claimed(store, folder, capabilities, seen, Intent(export_id, job_id, "", vm, now, now, {})) is None:
        return False
    return remove_attempt(store, folder, warn)


@dataclass(frozen=True)
class Claimed:
    """`intent`: now of the job that claimed it; `written`: as it is in the store."""

    intent: Intent
    written: ObjectInfo


def claim_dead_attempt(
    store: Store, folder: str, capabilities: StoreCapabilities, job_id: str, *, to_remove: bool = False
) -> Claimed | None:
    """None where it is gone, or was committed after all. Raises `busy` where its owner lives, or another was faster.

    It is held from now on as it was before, but for one that is claimed `to_remove` it.
    """
    key = f"{folder}/{INTENT}"
    info = store.stat(key)
    if info is None:
        return None
    found = by_clock_of_store(read_intent(store.get(key), store.object_url(key)), info.modified)
    if not _is_dead_by_any_clock(store, found):
        raise in_use(store, found)
    now, window = time.time(), 0.0 if to_remove else found.window
    ours = replace(found, job_id=job_id, started_at=now, owner=current_owner(), window=window).renewed(now, {})
    try:
        return _claimed(store, folder, capabilities, info, ours)
    except VmferryError as error:
        if error.kind == "conflict":
            raise in_use(store, found) from error
        raise


def attempts_known_dead(store: Store, left: Sequence[tuple[str, Intent]]) -> list[str]:
    """Of unfinished exports, by their folders and intents, those that nobody works on any more."""
    found = []
    for folder, intent in left:
        info = store.stat(f"{folder}/{INTENT}")
        if info is not None and _is_dead_by_any_clock(store, by_clock_of_store(intent, info.modified)):
            found.append(attempt_of(intent.export_id))
    return found


def _is_dead_by_any_clock(store: Store, intent: Intent) -> bool:
    return is_dead(intent) and is_dead(intent, time_of_store(store))


def _claimed(
    store: Store, folder: str, capabilities: StoreCapabilities, seen: ObjectInfo, intent: Intent
) -> Claimed | None:
    """Raises `conflict` where another was faster."""
    condition = seen.etag if capabilities.conditional_replace else None
    written = store.put(f"{folder}/{INTENT}", intent.to_json(), if_match=condition)
    if store.stat(f"{folder}/{MANIFEST}") is not None:
        remove_intent(store, folder)
        if store.stat(f"{folder}/{MANIFEST}") is None:  # it was taken back: its owner saw that it is ours
            _remove_objects(store, folder)
        return None
    store.delete(f"{folder}/{CANCEL}")  # it was meant for the run that died
    return Claimed(intent, written)


def remove_intent(store: Store, folder: str) -> None:
    with suppress(VmferryError):  # then a later cleanup finds what a killed run had half written
        store.abort_uploads(f"{folder}/{JOURNAL}")
    for info in list(store.list(f"{folder}/{JOURNAL}")):
        store.delete(info.key)
    store.delete(f"{folder}/{CANCEL}")
    store.delete(f"{folder}/{INTENT}")


def remove_attempt(store: Store, folder: str, warn: Callable[[str], object], *, intent_too: bool = True) -> bool:
    """By whoever's its intent is, which goes last: it says that there is more to remove. False where a manifest lies
    there: then nothing goes but what means nothing beside one.
    """
    manifest = f"{folder}/{MANIFEST}"
    if store.stat(manifest) is not None:
        remove_intent(store, folder)
        return False
    clean = _remove_data(store, folder, warn)
    if store.stat(manifest) is not None:  # it was on the way when its run was killed, and what it tells of is gone
        store.delete(manifest)
    if clean and intent_too:
        store.delete(f"{folder}/{INTENT}")
    return True


def _remove_data(store: Store, folder: str, warn: Callable[[str], object]) -> bool:
    """False where uploads may be left that can be removed later, so that the intent has to stay."""
    prefix, clean = f"{folder}/", True
    try:
        store.abort_uploads(prefix)
    except VmferryError as error:
        clean = not error.retryable  # to be refused is for ever: no later run could do more
        warn(f"Unfinished uploads below {store.object_url(prefix)} may be left: {error} {error.hint}".rstrip())
    _remove_objects(store, folder)
    return clean


def _remove_objects(store: Store, folder: str) -> None:
    for info in list(store.list(f"{folder}/")):
        if info.key not in (f"{folder}/{INTENT}", f"{folder}/{MANIFEST}"):
            store.delete(info.key)
