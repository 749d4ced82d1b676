# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The note of an import of files that runs: renewed until it is let go, and never written over another run's."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from typing import Callable

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..._exports.intent import BEAT
from ..._stores.base import StoreCapabilities
from ..._transfer.flow import Flow, Stopped
from .file_place import FilePlace
from .import_note import ImportNote, abort_unfinished, delete_own, present, read_note


class HeldNote:
    beat = BEAT

    def __init__(self, place: FilePlace, note: ImportNote, capabilities: StoreCapabilities, flow: Flow) -> None:
        self._place, self._store, self._flow = place, place.store, flow
        self.note, self._capabilities = note, capabilities
        self._made: dict[str, str] = {}  # keys and ETags; '' where nobody knows whether it appeared
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

    def make(self, key: str, complete: Callable[[], ObjectInfo]) -> ObjectInfo:
        """Have an object appear, by `complete`. It is written down before, and afterwards by what it is known again.

        Raises `conflict`, before it appears, where another run has taken this one for dead.
        """
        self._note_made(key, "")
        self._made[key] = ""
        try:
            info = complete()
        except VmferryError as error:
            if error.kind == "conflict":  # somebody else's is there
                del self._made[key]
            raise
        self._made[key] = info.etag
        if key != self.note.keys[0]:  # with which the VM is there, whoever wrote it
            self._note_made(key, info.etag)
        return info

    def leave(self, committed: bool) -> None:
        """The note goes, and before it, where nothing was committed, the files: those that this run made, and what was
        not finished. After it was let go."""
        own = self._own()
        if not committed:
            if own is not None:
                abort_unfinished(self._store, self.note)
            there = present(self._place, self.note, self._made)
            for key, etag in there.items():
                known = self._made[key] or (etag if own is not None else "")
                if known:
                    delete_own(self._store, key, known)
        if own is not None:
            delete_own(self._store, self.note.key, own.etag)

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
            with self._writing:
                self._write(self.note.renewed())
        except VmferryError as error:
            if error.kind == "conflict":
                self._flow.stop(error)
                raise Stopped from error
            # The data's own requests decide whether the store is lost.

    def _note_made(self, key: str, etag: str) -> None:
        with self._writing:
            self._write(replace(self.note.renewed(), made={**self.note.made, key: etag}))

    def _write(self, note: ImportNote) -> None:
        """Raises `conflict` where it is not this run's any more, also where it was taken since that was looked at, as
        far as the store has conditions."""
        own = self._own()
        if own is None:
            raise VmferryError(
                "conflict",
                f"Another run took this import of {note.intent.vm_name} for dead, and removed what it wrote.",
                "This host was paused for minutes, or a clock is wrong. Run the task again.",
            )
        match = own.etag if self._capabilities.conditional_replace else None
        self._store.put(note.key, note.to_json(), if_match=match)
        self.note = note

    def _own(self) -> ObjectInfo | None:
        """The note as it lies in the store; None where that is another's, or gone."""
        found = read_note(self._store, self.note.key)
        return found[1] if found is not None and found[0].attempt == self.note.attempt else None
