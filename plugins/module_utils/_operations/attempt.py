# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An attempt's folder in the store: claimed by an intent before anything else, kept by a lease, undone if it fails."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Mapping

from .._errors import VmferryError
from .._exports.intent import BEAT, CANCEL, INTENT, Intent
from .._exports.manifest import MANIFEST
from .._stores.base import Store
from .._transfer.owner import current_owner
from .running_job import RunningJob


class AttemptFolder:
    """Entering writes the intent, leaving by an error removes everything below the folder; the intent goes last."""

    beat = BEAT

    def __init__(self, store: Store, folder: str, intent: Intent, job: RunningJob) -> None:
        self._store, self._folder, self._intent, self._job = store, folder, intent, job
        self._done = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._committed = False

    def __enter__(self) -> AttemptFolder:
        self._store.put(self.key(INTENT), self._intent.to_json(), if_absent=True)
        self._keeper.start()
        return self

    def key(self, file: str) -> str:
        return f"{self._folder}/{file}"

    def commit(self, manifest: bytes) -> None:
        self._store.put(self.key(MANIFEST), manifest, if_absent=True)
        self._committed = True

    def __exit__(self, *_unused: object) -> None:
        self._done.set()
        self._keeper.join()
        if not self._committed:
            with self._job.flow.shielded():  # undoing waits for the store, although the job was stopped
                remove_attempt(self._store, self._folder)

    def _keep(self) -> None:
        while not self._done.wait(self.beat):
            self._intent = self._intent.renewed(time.time(), self._job.progress.snapshot())
            try:
                self._store.put(self.key(INTENT), self._intent.to_json())
                if self._store.stat(self.key(CANCEL)) is not None:
                    self._job.flow.request_cancel(f"{self._store.object_url(self.key(CANCEL))} asks for it")
            except VmferryError as error:  # the data's own requests decide whether the store is lost
                self._job.log("warning", f"The lease could not be renewed: {error}")


def remove_attempt(store: Store, folder: str) -> None:
    """The manifest first, since that un-commits; the intent last, since it says that there is something to remove."""
    prefix = f"{folder}/"
    store.delete(prefix + MANIFEST)
    store.abort_uploads(prefix)
    for info in list(store.list(prefix)):
        if info.key != prefix + INTENT:
            store.delete(info.key)
    store.delete(prefix + INTENT)


def is_dead(intent: Intent, alive: Callable[[Mapping[str, Any]], bool | None]) -> bool:
    """`alive` says of an owner True or False where this host can tell, None where it cannot: the lease decides then.

    It also decides after a reboot: in a store that many hosts use, another boot id may as well be another host's.
    """
    seen = alive(intent.owner)
    if seen is None or intent.owner.get("boot_id") != current_owner()["boot_id"]:
        return intent.lease_until < time.time()
    return not seen
