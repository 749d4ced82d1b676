# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands on what in one VM's folder, asked again whenever it matters.

A manifest changes only where its parents are merged into it, and those are gone then. So of those that were read, only
new ones are looked for, and the ones whose parents are not there.
"""

from __future__ import annotations

from typing import Callable, Iterable, Iterator, Sequence

from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.deletion import DELETION, read_deletion
from ..._exports.folding import FOLDING, Folding, folding_in
from ..._exports.intent import INTENT, Intent, read_intent
from ..._exports.manifest import MANIFEST, MANIFEST_LIMIT, read_manifest
from ..._exports.naming import is_export_id
from ..._stores.base import Store, StoreCapabilities
from ..attempts.attempt_life import by_clock_of_store, is_dead, is_over
from ..attempts.dead_attempts import remove_dead_attempt


class VmFolder:
    """`home`: the folder, or '' where the store's URL is one VM's folder."""

    def __init__(
        self,
        store: Store,
        capabilities: StoreCapabilities,
        home: str,
        committed: Iterable[CatalogEntry],
        warn: Callable[[str], object],
        now: float,
    ) -> None:
        """`now` by the clock that counts, and never after that of the store."""
        self._store, self._capabilities, self._warn, self._now = store, capabilities, warn, now
        self.home, self.prefix = home, f"{home}/" if home else ""
        self._parents = {entry.folder: entry.manifest.parent for entry in committed}
        self.unreadable: dict[str, VmferryError] = {}  # folders with an intent, a deletion or a merge that says nothing

    def is_committed(self, folder: str) -> bool:
        """As far as was seen."""
        return folder in self._parents

    def forget(self, folder: str) -> None:
        """Its manifest was removed by this run."""
        self._parents.pop(folder, None)

    def note(self, folder: str, parent: str) -> None:
        """This run has made it stand on another export, or on none."""
        self._parents[folder] = parent

    def look_again(self) -> None:
        """At every manifest, also of exports that were not there before."""
        for folder in [*self._parents, *self._others()]:
            if self._committed(folder) is None:
                self.forget(folder)

    def foldings(self) -> list[str]:
        """Folders of exports that others are merged into, by a run that lives or died."""
        end = f"/{FOLDING}"
        keys = [info.key for info in self._store.list(self.prefix) if info.key.endswith(end)]
        return [key[: -len(end)] for key in keys if is_export_id(_id(key[: -len(end)]))]

    def merges(self) -> Iterator[tuple[str, Folding]]:
        """As `foldings`, with what is said of them."""
        for folder in self.foldings():
            try:
                folding = folding_in(self._store, folder)
            except VmferryError as error:
                if error.kind != "invalid_config":
                    raise
                self.unreadable[folder] = error
                continue
            if folding is not None:
                yield folder, folding

    def taken_by_merges(self) -> dict[str, str]:
        """Why exports must stay as they are, by folder."""
        return {
            self.prefix + name: f"Exports are being merged into {_id(folder)}, or an increment reads what they were."
            for folder, folding in self.merges()
            for name in (_id(folder), *folding.merged)
        }

    def who_builds_on(self, exports: Sequence[str]) -> str:
        """A sentence about a living job that makes an increment on one of these, or on what stands on one."""
        parents = {_id(folder): parent for folder, parent in self._parents.items()}
        for _folder, intent in self.unfinished():
            below, seen = intent.parent, set()
            while below and below not in seen and below not in exports:
                seen.add(below)
                below = parents.get(below, "")
            if below in exports and not is_over(intent, self._now):
                return who_makes(intent)
        return ""

    def unfinished(self) -> Iterator[tuple[str, Intent]]:
        """Exports under way, or dead."""
        for folder in self._others():
            try:
                intent = self._intent(folder)
            except VmferryError as error:
                if error.kind != "invalid_config":
                    raise
                if self._store.stat(f"{folder}/{MANIFEST}") is None:
                    self.unreadable[folder] = error
                continue
            if intent is not None and self._store.stat(f"{folder}/{MANIFEST}") is None:
                yield folder, intent

    def deletions(self) -> Iterator[str]:
        """Folders whose export is being deleted, by a run that lives or died."""
        for folder in self._others():
            if self._store.stat(f"{folder}/{DELETION}") is not None:
                yield folder

    def who_stands_on(self, export_id: str) -> str:
        """A sentence, or ''. An attempt that died on this export is removed: woken up, it must not commit.

        In each folder the intent is looked at before the manifest: whoever commits writes the manifest before the
        intent goes, so one of the two is seen.
        """
        for folder, parent in list(self._parents.items()):
            if parent and self.prefix + parent not in self._parents:
                self._committed(folder)
            if self._parents[folder] == export_id:
                return f"{_id(folder)} stands on it."
        for folder in self._others():
            if _id(folder) == export_id:
                continue
            try:
                told = self._attempt_on(folder, export_id) or self._export_on(folder, export_id)
            except VmferryError as error:
                if error.kind not in ("invalid_config", "unsupported"):
                    raise
                return f"{_id(folder)} cannot be read, and may stand on it: {error}"
            if told:
                return told
        return ""

    def _attempt_on(self, folder: str, export_id: str) -> str:
        intent = self._intent(folder)
        if intent is None or intent.parent != export_id:
            return ""
        told = who_makes(intent)
        if not is_over(intent, self._now):
            return told
        try:
            remove_dead_attempt(self._store, folder, self._capabilities, self._warn)
        except VmferryError as error:
            if error.kind != "busy":
                raise
            return told
        return ""

    def _export_on(self, folder: str, export_id: str) -> str:
        # Whoever takes a deletion back writes the manifest before the mark goes, so the manifest is looked at twice.
        parent = self._committed(folder)
        if parent is None:
            parent = self._being_deleted(folder)
        if parent is None:
            parent = self._committed(folder)
        return f"{_id(folder)} stands on it." if parent == export_id else ""

    def _committed(self, folder: str) -> str | None:
        """The parent's id, '' for a full export; None where there is no manifest."""
        key = f"{folder}/{MANIFEST}"
        text = self._get(key)
        if text is None:
            return None
        self._parents[folder] = read_manifest(text, self._store.object_url(key)).parent
        return self._parents[folder]

    def _being_deleted(self, folder: str) -> str | None:
        key = f"{folder}/{DELETION}"
        text = self._get(key)
        if text is None:
            return None
        where = self._store.object_url(key)
        return read_manifest(read_deletion(text, where).manifest, where).parent

    def _intent(self, folder: str) -> Intent | None:
        key = f"{folder}/{INTENT}"
        text = self._get(key)
        if text is None:
            return None
        intent = read_intent(text, self._store.object_url(key))
        info = self._store.stat(key)
        return intent if info is None else by_clock_of_store(intent, info.modified)

    def _others(self) -> Iterator[str]:
        """Everything but the exports that are known."""
        for name in list(self._store.list_folders(self.prefix)):
            if is_export_id(name) and self.prefix + name not in self._parents:
                yield self.prefix + name

    def _get(self, key: str) -> bytes | None:
        try:
            return self._store.get(key, MANIFEST_LIMIT)
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise


def who_makes(intent: Intent) -> str:
    """A sentence about its parent."""
    if is_dead(intent):
        return f"{intent.export_id}, which stands on it, is unfinished, and held for the next run to go on with."
    return f"Job {intent.job_id} is making {intent.export_id}, which stands on it."


def _id(folder: str) -> str:
    return folder.rpartition("/")[2]
