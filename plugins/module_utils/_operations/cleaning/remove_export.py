# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deletes one committed export, so that nothing that stands on it is ever left without it.

An increment writes its intent, which names its parent; then it looks whether the parent's manifest is there; then it
commits. A deletion removes the manifest; then it looks for intents and manifests that name it as their parent; then it
removes the data. Each writes before it looks, so one of the two always sees the other:

* The intent was there when the deletion looked: the manifest is put back, and the export stays. An increment that
  looked just then ends without a commit, and can be run again.
* It was not: then the increment looks after the manifest was removed, and does not commit.

A run that is killed in between leaves `deleting.json`, with the manifest in it. The next cleanup goes on from there.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import replace
from typing import Callable

from ..._errors import VmferryError
from ..._exports.deletion import DELETION, Deletion, read_deletion
from ..._exports.folding import folding_in
from ..._exports.intent import LEASE, Intent
from ..._exports.manifest import MANIFEST, MANIFEST_LIMIT, Manifest, read_manifest
from ..._stores.base import Store, StoreCapabilities
from ..._transfer.failpoints import failpoint
from ..._transfer.owner import current_owner
from ..attempts.attempt_life import is_dead
from .vm_folder import VmFolder

DELETION_LIMIT = 2 * MANIFEST_LIMIT  # bytes; a manifest with every quote escaped


class ExportRemover:
    def __init__(
        self, store: Store, capabilities: StoreCapabilities, family: VmFolder, warn: Callable[[str], object]
    ) -> None:
        self._store, self._capabilities, self._family, self._warn = store, capabilities, family, warn

    def remove(self, folder: str) -> str:
        """'' where nothing is left of it, or a sentence why it stays. Raises `not_found` where it was gone before."""
        text = self._store.get(f"{folder}/{MANIFEST}", MANIFEST_LIMIT)
        export = read_manifest(text, self._store.object_url(f"{folder}/{MANIFEST}"))
        stays = self._family.who_stands_on(export.export_id)
        if stays:
            return stays
        ours = self._claim(folder, export, text)
        if self._store.stat(f"{folder}/{MANIFEST}") is None:
            self._store.delete(f"{folder}/{DELETION}")
            raise VmferryError("not_found", f"{self._store.object_url(folder)} was deleted by another run.")
        if self._is_being_folded(folder):
            self._store.delete(f"{folder}/{DELETION}")
            return "Another cleanup is merging what it stands on into it."
        failpoint("deletion")
        try:
            self._store.delete(f"{folder}/{MANIFEST}")
            failpoint("uncommitted")
            stays = self._family.who_stands_on(export.export_id)
        except VmferryError:
            with suppress(VmferryError):  # then the next cleanup does it
                self._take_back(folder, ours)
            raise
        if stays:
            self._take_back(folder, ours)
            return stays
        self._family.forget(folder)
        self._finish(folder, ours)
        return ""

    def resume(self, folder: str) -> str:
        """What became of a deletion whose run died; '' where it is still at it."""
        key = f"{folder}/{DELETION}"
        info = self._store.stat(key)
        if info is None:
            return ""
        left = read_deletion(self._store.get(key, DELETION_LIMIT), self._store.object_url(key))
        if not is_dead(left.claim):
            return ""
        export = read_manifest(left.manifest, self._store.object_url(key))
        ours = self._take_over(folder, export, left.manifest, info.etag)
        if self._store.stat(f"{folder}/{MANIFEST}") is not None:
            self._store.delete(key)
            return "Its deletion had not begun."
        stays = self._family.who_stands_on(export.export_id)
        if stays:
            self._take_back(folder, ours)
            return f"Its deletion was taken back: {stays}"
        self._finish(folder, ours)
        return "Its deletion was finished."

    def _is_being_folded(self, folder: str) -> bool:
        found = folding_in(self._store, folder)
        return found is not None and not is_dead(found.claim)

    def is_resumable(self, folder: str) -> bool:
        key = f"{folder}/{DELETION}"
        try:
            left = read_deletion(self._store.get(key, DELETION_LIMIT), self._store.object_url(key))
        except VmferryError as error:
            if error.kind == "not_found":
                return False
            raise
        return is_dead(left.claim)

    def _claim(self, folder: str, export: Manifest, text: bytes) -> Deletion:
        """Raises `busy` where another run is deleting it."""
        key = f"{folder}/{DELETION}"
        info = self._store.stat(key)
        if info is not None:
            if not self.is_resumable(folder):
                raise self._busy(folder)
            return self._take_over(folder, export, text, info.etag)
        ours = _deletion(export, text)
        try:
            self._store.put(key, ours.to_json(), if_absent=self._capabilities.conditional_put)
        except VmferryError as error:
            if error.kind == "conflict":
                raise self._busy(folder) from error
            raise
        return ours

    def _take_over(self, folder: str, export: Manifest, text: bytes, etag: str) -> Deletion:
        ours = _deletion(export, text)
        condition = etag if self._capabilities.conditional_replace else None
        try:
            self._store.put(f"{folder}/{DELETION}", ours.to_json(), if_match=condition)
        except VmferryError as error:
            if error.kind in ("conflict", "not_found"):
                raise self._busy(folder) from error
            raise
        return ours

    def _busy(self, folder: str) -> VmferryError:
        return VmferryError("busy", f"{self._store.object_url(folder)} is being deleted by another run.")

    def _insist_on_claim(self, folder: str, ours: Deletion) -> None:
        """A host that was paused for longer than its lease may find that another one took the deletion back."""
        key = f"{folder}/{DELETION}"
        try:
            seen = read_deletion(self._store.get(key, DELETION_LIMIT), self._store.object_url(key))
        except VmferryError as error:
            if error.kind == "not_found":
                self._claim_again(folder, ours)
                return
            raise
        if seen.claim.job_id != ours.claim.job_id:
            raise self._busy(folder)

    def _claim_again(self, folder: str, ours: Deletion) -> None:
        """Whoever took it back wrote the manifest before the mark went. Else the mark was taken for litter beside a
        manifest that this run deleted only then, and without it nobody would ever find the rest.
        """
        if self._store.stat(f"{folder}/{MANIFEST}") is not None:
            raise self._busy(folder)
        try:
            self._store.put(f"{folder}/{DELETION}", ours.to_json(), if_absent=self._capabilities.conditional_put)
        except VmferryError as error:
            if error.kind == "conflict":
                raise self._busy(folder) from error
            raise

    def _take_back(self, folder: str, ours: Deletion) -> None:
        try:
            self._store.put(f"{folder}/{MANIFEST}", ours.manifest, if_absent=self._capabilities.conditional_put)
        except VmferryError as error:
            if error.kind != "conflict":  # it is there already
                raise
        self._store.delete(f"{folder}/{DELETION}")

    def _finish(self, folder: str, ours: Deletion) -> None:
        try:
            self._remove_data(folder, ours)
        except VmferryError as error:
            if error.kind != "busy":
                with suppress(VmferryError):
                    self._let_go(folder, ours)
            raise

    def _let_go(self, folder: str, ours: Deletion) -> None:
        """So that the next run, wherever it is, need not wait for the lease."""
        over = replace(ours, claim=replace(ours.claim, lease_until=0.0, owner={}))
        self._store.put(f"{folder}/{DELETION}", over.to_json())

    def _remove_data(self, folder: str, ours: Deletion) -> None:
        """Raises where anything is left that could be seen."""
        self._insist_on_claim(folder, ours)
        prefix, mark = f"{folder}/", f"{folder}/{DELETION}"
        try:
            self._store.abort_uploads(prefix)
        except VmferryError as error:
            if error.retryable:
                raise
            self._warn(f"Unfinished uploads below {self._store.object_url(prefix)} may be left: {error} {error.hint}")
        for info in list(self._store.list(prefix)):
            if info.key != mark:
                self._store.delete(info.key)
                failpoint("deleted")
        left = [info.key for info in self._store.list(prefix) if info.key != mark]
        if left:
            raise VmferryError(
                "conflict",
                f"{self._store.object_url(left[0])} is still there after it was deleted.",
                "Somebody writes it again, or the store holds on to it. Run the task again.",
            )
        self._store.delete(mark)


def _deletion(export: Manifest, text: bytes) -> Deletion:
    now, job_id = time.time(), secrets.token_hex(16)
    vm = export.machine
    return Deletion(Intent(export.export_id, job_id, vm.id, vm.name, now, now + LEASE, current_owner()), text)
