# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The note that an import of files writes before it writes anything else: whose it is, and which files it will make.

While it is there, what the files look like is no VM. Whoever comes next and finds that its owner is dead removes the
files by it; one whose last file is there has made its VM, and only the note goes. It is removed last.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Iterable, Iterator, Tuple

from ..._blocks import ObjectInfo
from ..._errors import WAIT_OR_CANCEL, VmferryError
from ..._exports.fields import Fields
from ..._exports.intent import BEAT, Intent, read_intent
from ..._exports.naming import export_id
from ..._providers.job import Job
from ..._stores.base import Store, StoreCapabilities
from ..._transfer.flow import Flow, Stopped
from ..._transfer.owner import current_owner
from ..attempts.attempt_life import by_clock_of_store, is_dead
from ..attempts.litter import time_of_store
from .layouts import FileLayout
from .note_names import NOTES, note_key, noted_name

MARK = "vmferry-import"  # of an object, where the store keeps metadata: the attempt that made it


@dataclass(frozen=True)
class ImportNote:
    """`keys`: of all files, the one that appears last before the others. `made`: those that were about to appear."""

    intent: Intent
    attempt: str
    keys: Tuple[str, ...]
    made: Tuple[str, ...] = ()

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
        own = {"attempt": self.attempt, "keys": list(self.keys), "made": list(self.made)}
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
    note = ImportNote(intent, fields.text("attempt"), fields.texts("keys"), fields.texts("made"))
    expected = (f"{intent.vm_name}.ova", f"{intent.vm_name}/")
    named = {*note.keys, *note.made}
    if noted_name(key) != intent.vm_name or not note.keys or not all(one.startswith(expected) for one in named):
        raise fields.lie("names files that are not those of its VM")
    return note, info


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


def undo(store: Store, note: ImportNote, keeps_metadata: bool) -> str:
    """What became of the files of a dead run, as a sentence."""
    vm, job = note.intent.vm_name, note.intent.job_id
    made = [key for key in note.made if _is_made_by(store, note, key, keeps_metadata)]
    if note.keys[0] in made:
        store.delete(note.key)
        return f"The VM {vm} that a dead import job {job} wrote is whole, and stays."
    remove_files(store, note, made)
    store.delete(note.key)
    return f"Removed what a dead import job {job} had written of {vm}."


def remove_files(store: Store, note: ImportNote, made: Iterable[str]) -> None:
    """And what was sent of files that did not appear. `made`: those that did, and that are nobody else's."""
    wanted = frozenset(note.keys)
    prefix = note.keys[0] if len(note.keys) == 1 else f"{note.intent.vm_name}/"
    store.abort_uploads(prefix, lambda info: info.key in wanted)
    for key in sorted(made, key=note.keys.index):
        store.delete(key)


def _is_made_by(store: Store, note: ImportNote, key: str, keeps_metadata: bool) -> bool:
    """Nothing was there when the note was written. Where objects have metadata, that has to agree."""
    info = store.stat(key)
    return info is not None and (not keeps_metadata or info.metadata.get(MARK) == note.attempt)


class HeldNote:
    """This run's own, renewed until it is let go."""

    beat = BEAT

    def __init__(self, store: Store, note: ImportNote, capabilities: StoreCapabilities, flow: Flow) -> None:
        self._store, self.note, self._capabilities, self._flow = store, note, capabilities, flow
        self._done, self._writing = threading.Event(), threading.Lock()
        self._keeper = threading.Thread(target=self._keep, name="import note", daemon=True)

    def claim(self) -> None:
        """Raises `busy` where another's is there."""
        conditional = self._capabilities.conditional_put
        found = None if conditional else read_note(self._store, self.note.key)
        if found is not None:
            raise found[0].in_use(self._store)
        try:
            self._store.put(self.note.key, self.note.to_json(), if_absent=conditional)
        except VmferryError as error:
            found = read_note(self._store, self.note.key) if error.kind == "conflict" else None
            if found is None:
                raise
            raise found[0].in_use(self._store) from error
        self._keeper.start()

    def will_make(self, key: str) -> None:
        """Written down before it appears."""
        with self._writing:
            self.note = replace(self.note, made=(*self.note.made, key))
            self._store.put(self.note.key, self.note.to_json())

    def insist_on_own(self) -> None:
        """Raises `conflict` where another run has taken this one for dead."""
        found = read_note(self._store, self.note.key)
        if found is None or found[0].attempt != self.note.attempt:
            raise VmferryError(
                "conflict",
                f"Another run took this import of {self.note.intent.vm_name} for dead, and removed what it wrote.",
                "This host was paused for minutes, or a clock is wrong. Run the task again.",
            )

    def is_own(self) -> bool:
        try:
            self.insist_on_own()
        except VmferryError as error:
            if error.kind == "conflict":
                return False
            raise
        return True

    def let_go(self) -> None:
        with self._flow.changing():  # the keeper may be waiting for its next try
            self._done.set()
        if self._keeper.is_alive():
            self._keeper.join()

    def _keep(self) -> None:
        with suppress(Stopped), self._flow.until(self._done.is_set):
            while not self._done.wait(self.beat):
                self._renew()

    def _renew(self) -> None:
        try:
            self.insist_on_own()
            with self._writing:
                self.note = self.note.renewed()
                self._store.put(self.note.key, self.note.to_json())
        except VmferryError as error:
            if error.kind == "conflict":
                self._flow.stop(error)
                raise Stopped from error
            # The data's own requests decide whether the store is lost.
