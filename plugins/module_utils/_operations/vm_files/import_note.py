# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The note that an import of files writes before it writes anything else: whose it is, and which files it will make.

While it is there, what the files look like is no VM. Whoever comes next and finds that its owner is dead removes the
files by it; one whose last file is there has made its VM, and only the note goes. It is removed last.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Iterable, Iterator, Mapping, Tuple

from ..._blocks import ObjectInfo
from ..._errors import WAIT_OR_CANCEL, VmferryError
from ..._exports.fields import Fields
from ..._exports.intent import LEASE, Intent, read_intent
from ..._exports.naming import export_id
from ..._providers.job import Job
from ..._stores.base import Store
from ..._stores.keys import is_key, owner_of
from ..._transfer.owner import current_owner
from ..attempts.attempt_life import by_clock_of_store, is_dead
from ..attempts.litter import time_of_store
from .file_place import FilePlace
from .layouts import FileLayout, paths_of
from .note_names import NOTES, note_key, noted_name

MARK = "vmferry-import"  # of an object, where the store keeps metadata: the attempt that made it


@dataclass(frozen=True)
class ImportNote:
    """`keys`: of all files, the one that appears last before the others. `made`: of those that were about to appear,
    the ETag, once they had one."""

    intent: Intent
    attempt: str
    keys: Tuple[str, ...]
    made: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, layout: FileLayout, made_of: str, job: Job) -> ImportNote:
        now = time.time()
        intent = Intent(
            export_id=export_id(now, job.attempt),
            job_id=job.job_id,
            vm_id=made_of,
            vm_name=layout.name,
            started_at=now,
            lease_until=now,
            owner=current_owner(),
        )
        return cls(intent.renewed(now, {}), job.attempt, tuple(layout.keys))

    @property
    def key(self) -> str:
        return note_key(self.intent.vm_name)

    def renewed(self) -> ImportNote:
        return replace(self, intent=self.intent.renewed(time.time(), {}))

    def to_json(self) -> bytes:
        told = json.loads(self.intent.to_json())
        own = {"attempt": self.attempt, "keys": list(self.keys), "made": dict(self.made)}
        return json.dumps({**told, **own}, indent=1).encode() + b"\n"

    def in_use(self, store: Store) -> VmferryError:
        owner = self.intent.owner
        host, pid = owner.get("hostname", "another host"), owner.get("pid", "unknown")
        return VmferryError(
            "busy",
            f"{self.intent.vm_name} is being written to {store.url} by job {self.intent.job_id} (process {pid} on "
            f"{host}, for {int(time.time() - self.intent.started_at)} s).",
            WAIT_OR_CANCEL,
            retryable=True,
        )


def read_note(store: Store, key: str) -> Tuple[ImportNote, ObjectInfo] | None:
    """None where there is none. Raises `invalid_config` for what nobody of ours wrote."""
    info = store.stat(key)
    text = None if info is None else store.read_whole(key, 1 << 20)
    if info is None or text is None:
        return None
    where = store.object_url(key)
    fields, intent = Fields.parse(text, where), read_intent(text, where)
    note = ImportNote(intent, fields.text("attempt"), fields.texts("keys"), fields.mapping("made"))
    if noted_name(key) != intent.vm_name or not _is_of_one_vm(note):
        raise fields.lie("names files that are not those of its VM")
    return note, info


def _is_of_one_vm(note: ImportNote) -> bool:
    """Whether an import of ours could have written it: by what it says, files are removed."""
    keys, name = note.keys, note.intent.vm_name
    if not keys or keys[0] not in paths_of(name) or not all(isinstance(etag, str) for etag in note.made.values()):
        return False
    in_folder = all(is_key(key) and key.startswith(f"{name}/") for key in keys)
    return (in_folder or len(keys) == 1) and set(note.made) <= set(keys)


def all_notes(store: Store) -> Iterator[Tuple[ImportNote, ObjectInfo]]:
    """Those that can be read."""
    for key in [info.key for info in store.list(NOTES) if noted_name(info.key)]:
        try:
            found = read_note(store, key)
        except VmferryError as error:
            if error.kind != "invalid_config":
                raise
            continue  # whoever imports under its name is told
        if found is not None:
            yield found


def is_over(store: Store, note: ImportNote, info: ObjectInfo) -> bool:
    """Whether its owner is dead. Where that cannot be seen, its lease decides, by the clock of the store too."""
    seen = by_clock_of_store(note.intent, info.modified)
    return is_dead(seen) and is_dead(seen, time_of_store(store))


def undo(place: FilePlace, note: ImportNote) -> str:
    """What became of the files of a dead run, as a sentence."""
    store, vm, job = place.store, note.intent.vm_name, note.intent.job_id
    there = present(place, note, note.made)
    if note.keys[0] in there:
        store.delete(note.key)
        return f"The VM {vm} that a dead import job {job} wrote is whole, and stays."
    abort_unfinished(store, note)
    etags = there if place.keeps_metadata else note.made
    unknown = [key for key in there if not etags[key]]
    for key in there:
        if etags[key]:
            delete_own(store, key, etags[key])
    if unknown:  # and the note, or what is there would be taken for a VM
        return (
            f"The dead import job {job} of {vm} was about to write {store.object_url(unknown[0])}. What is there may "
            f"be somebody else's, and stays. Remove it, to import {vm} anew."
        )
    store.delete(note.key)
    return f"Removed what a dead import job {job} had written of {vm}."


def present(place: FilePlace, note: ImportNote, keys: Iterable[str]) -> dict[str, str]:
    """The ETags of what is there, and where objects have metadata is the run's by these, the one that appears last
    first."""
    found = [info for key in sorted(keys, key=note.keys.index) for info in [place.store.stat(key)] if info is not None]
    keeps = place.keeps_metadata
    return {info.key: info.etag for info in found if not keeps or info.metadata.get(MARK) == note.attempt}


def abort_unfinished(store: Store, note: ImportNote) -> None:
    """What was sent of files that did not appear, pieces of them that are objects included."""
    wanted = frozenset(note.keys)
    prefix = note.keys[0] if len(note.keys) == 1 else f"{note.intent.vm_name}/"
    store.abort_uploads(prefix, lambda info: owner_of(info.key) in wanted)
    for info in list(store.list(prefix)):
        if info.key not in wanted and owner_of(info.key) in wanted:
            store.delete(info.key)


def delete_own(store: Store, key: str, etag: str) -> None:
    """What is there under another ETag by now is somebody else's, and stays."""
    try:
        store.delete(key, if_match=etag)
    except VmferryError as error:
        if error.kind != "conflict":
            raise


def abort_unfinished_notes(store: Store) -> None:
    """Of runs that were killed while they wrote theirs. They harm nobody but the eye, so what fails is left."""

    def is_old(info: ObjectInfo) -> bool:
        return bool(noted_name(info.key)) and info.modified < time_of_store(store) - LEASE

    with suppress(VmferryError):
        store.abort_uploads(NOTES, is_old)
