# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an export that died is the one that is asked for now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Sequence

from ..._errors import VmferryError
from ..._exports.catalog import Catalog, CatalogEntry
from ..._exports.chain import BROKEN
from ..._exports.intent import Intent
from ..._exports.packed import PACKED
from ..._exports.signing import JournalKey
from ..._providers.finding import Finding
from ..._providers.spec import DiskSpec
from ..._stores.base import Store
from ..attempts.attempt_journal import AttemptJournal, AttemptState
from ..attempts.attempt_life import in_use, is_dead
from ..jobs.keeping import NotResumable
from ..jobs.requests import ExportRequest
from .export_base import Base, Choice, sound_base
from .export_snapshot import other_point_in_time


@dataclass(frozen=True)
class Resumable:
    folder: str
    intent: Intent
    state: AttemptState
    choice: Choice


def newest_unfinished(store: Store, catalog: Catalog, vm_id: str) -> tuple[str, Intent] | None:
    """Raises `busy` where one of them lives."""
    newest = None
    for folder, intent in catalog.unfinished(vm_id):
        if not is_dead(intent):
            raise in_use(store, intent)
        newest = max(newest, (folder, intent), key=lambda one: one[1].export_id) if newest else (folder, intent)
    return newest


def resumable(
    store: Store,
    request: ExportRequest,
    disks: Sequence[DiskSpec],
    existing: Sequence[CatalogEntry],
    found: tuple[str, Intent],
    now: float,
) -> Resumable:
    """Raises `NotResumable`, and `invalid_config` where the task would not trust what it would sign."""
    folder, intent = found
    state = AttemptJournal(store, folder, request.seals.journal_key).state()
    if state is None:
        raise NotResumable("it had not sent anything yet, or its journal cannot be read")
    reason = other_point_in_time(request, state.reference) or _other_task(request, state)
    reason = reason or _other_request(request, disks, state, now)
    if reason:
        raise NotResumable(reason)
    _insist_on_trust(request, intent, state)
    base = _base(store, existing, state.parent) if state.parent else None
    return Resumable(folder, intent, state, Choice(base, state.reason, state.fell_back))


def foreseen(
    store: Store,
    request: ExportRequest,
    disks: Sequence[DiskSpec],
    existing: Sequence[CatalogEntry],
    vm_id: str,
    findings: list[Finding],
) -> Resumable | None:
    """What a run now would go on with, as far as the store can tell; `findings` hears of it. Raises `busy`."""
    found = newest_unfinished(store, Catalog(store), vm_id)
    if found is None:
        return None
    name, left = found[1].export_id, None
    told = f"A run would go on with the unfinished export {name}, if its point in time is still held."
    try:
        left = resumable(store, request, disks, existing, found, time.time())
    except NotResumable as error:
        told = f"The unfinished export {name} would begin anew: {error.message}."
    findings.append(Finding("info", told, ""))
    return left


def _other_request(request: ExportRequest, disks: Sequence[DiskSpec], state: AttemptState, now: float) -> str:
    if state.format in PACKED:
        return f"an export of the format {state.format} cannot be gone on with"
    if state.format != request.format:
        return f"its images are {state.format}"
    if (state.compression, state.compression_level) != (request.compression, request.compression_level):
        return "it is compressed in another way"
    if _keys_differ(request, state):
        return "it is encrypted in another way, or with another passphrase"
    if state.disks != tuple((disk.id, disk.name) for disk in disks):
        return "it has other disks"
    if request.consistency not in ("auto", state.consistency):
        return f"its point in time is {state.consistency}"
    if state.tracked != request.track_changes:
        return "track_changes was another"
    if (request.mode == "full" and state.parent) or (request.mode == "incremental" and not state.parent):
        return f"it is {'an increment' if state.parent else 'a full export'}"
    if request.max_age is not None and now - state.taken_at > request.max_age:
        return "its point in time is older than max_age"
    return ""


def _keys_differ(request: ExportRequest, state: AttemptState) -> bool:
    ring, made = request.seals.keyring, state.encryption
    if ring is None or made is None:
        return (ring is None) != (made is None)
    return not ring.opens(made)


def _insist_on_trust(request: ExportRequest, intent: Intent, state: AttemptState) -> None:
    """Or it would fail at its commit: what an encrypted export is signed by was settled when it was begun."""
    if state.encryption is not None:
        request.seals.insist_on_own(
            state.encryption, f"The unfinished export {intent.export_id}, which this task would go on with,"
        )


def _other_task(request: ExportRequest, state: AttemptState) -> str:
    """Whoever asks under another label wants a point in time of their own, not one that another task had taken."""
    if state.name != request.name:
        return f"it was made with the name {state.name}" if state.name else "it was made without a name"
    if set(state.tags) != set(request.tags):
        return f"it was made with the tags {', '.join(state.tags)}" if state.tags else "it was made without tags"
    if state.purpose != request.purpose:
        return f"it was made with the purpose {state.purpose}" if state.purpose else "it was made without a purpose"
    return ""


def _base(store: Store, existing: Sequence[CatalogEntry], parent: str) -> Base:
    entry = next((entry for entry in existing if entry.manifest.export_id == parent), None)
    if entry is None:
        raise NotResumable(f"the export {parent}, on which it stands, is gone")
    try:
        base, flaw = sound_base(store, entry)
    except VmferryError as error:
        if error.kind not in BROKEN:
            raise
        raise NotResumable(f"the chain is broken: {error.message}") from error
    if flaw:
        raise NotResumable(f"the chain is broken: {flaw}")
    return base


def bytes_there(store: Store, folder: str, disks: Sequence[DiskSpec], secret: JournalKey | None) -> int:
    """Of an unfinished export's images, as far as its journal knows what lies in them."""
    journal = AttemptJournal(store, folder, secret)
    known = [journal.known_disk(disk.id) for disk in disks]
    return sum(one.end for one in known if one is not None)
