# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An attempt's folder in the store: claimed by an intent before anything else, kept by a lease, undone if it fails.

Whoever removes a dead attempt first makes its intent their own, and only then looks whether a manifest appeared. Its
owner, should it live after all (a host that was paused, a clock that is wrong), looks at the intent after it wrote the
manifest. So one of the two always sees the other: an export never commits while its data is being removed.
"""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import suppress
from typing import Any, Callable, Mapping

from .._errors import VmferryError
from .._exports.intent import BEAT, CANCEL, INTENT, LEASE, Intent, read_intent
from .._exports.manifest import MANIFEST
from .._stores.base import Store, StoreCapabilities
from .._transfer.failpoints import failpoint
from .._transfer.flow import Stopped
from .._transfer.owner import current_owner, is_owner_alive
from .running_job import RunningJob


class AttemptFolder:
    """Entering writes the intent, leaving by an error removes everything below the folder; the intent goes last."""

    beat = BEAT

    def __init__(self, store: Store, folder: str, intent: Intent, job: RunningJob) -> None:
        self._store, self._folder, self._intent, self._job = store, folder, intent, job
        self._capabilities = job.capabilities
        self._etag = ""
        self.claimed_at = 0.0  # by the store's clock
        self._done = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._committed = False

    def __enter__(self) -> AttemptFolder:
        try:
            text, conditional = self._intent.to_json(), self._capabilities.conditional_put
            written = self._store.put(self.key(INTENT), text, if_absent=conditional)
            self._etag, self.claimed_at = written.etag, written.modified
        except BaseException:  # it may have been written although its answer was lost
            self._undo()
            raise
        self._keeper.start()
        return self

    def key(self, file: str) -> str:
        return f"{self._folder}/{file}"

    def commit(self, manifest: bytes) -> None:
        """Raises `conflict` where another run has taken this one for dead: then nothing is committed."""
        self._let_go()
        self._renew()
        failpoint("manifest")
        self._store.put(self.key(MANIFEST), manifest, if_absent=self._capabilities.conditional_put)
        failpoint("committed")
        self._insist_on_ownership()
        self._committed = True
        # Beside a manifest it means nothing, and the next run removes it.
        with suppress(VmferryError), self._job.flow.shielded():
            remove_intent(self._store, self._folder)

    def __exit__(self, *_unused: object) -> None:
        self._let_go()
        if not self._committed:
            self._undo()

    def _undo(self) -> None:
        with self._job.undoing(self._store.object_url(self._folder)):
            # The manifest first, since that un-commits; the intent last, since it says that there is more to remove.
            self._store.delete(self.key(MANIFEST))
            clean = _remove_data(self._store, self._folder, self._job.warn)
            if clean and self._job.undone:
                self._store.delete(self.key(INTENT))

    def _let_go(self) -> None:
        with self._job.flow.changing():  # the keeper may be waiting for its next try
            self._done.set()
        self._keeper.join()

    def _keep(self) -> None:
        with suppress(Stopped), self._job.flow.until(self._done.is_set):
            while not self._done.wait(self.beat):
                self._beat()

    def _beat(self) -> None:
        try:
            self._renew()
            if self._store.stat(self.key(CANCEL)) is not None:
                self._job.flow.request_cancel(f"{self._store.object_url(self.key(CANCEL))} asks for it")
        except VmferryError as error:
            if error.kind == "conflict":
                self._job.flow.stop(error)
                raise Stopped from error
            # The data's own requests decide whether the store is lost.
            self._job.log("warning", f"The lease could not be renewed: {error}")

    def _renew(self) -> None:
        self._intent = self._intent.renewed(time.time(), self._job.progress.snapshot())
        if not self._capabilities.conditional_replace:
            self._insist_on_ownership()
        try:
            self._put_intent()
        except VmferryError as error:
            if error.kind not in ("conflict", "not_found"):
                raise
            self._adopt()
            self._put_intent()

    def _put_intent(self) -> None:
        condition = self._etag if self._capabilities.conditional_replace else None
        self._etag = self._store.put(self.key(INTENT), self._intent.to_json(), if_match=condition).etag

    def _adopt(self) -> None:
        """What is there is no longer what was seen to be written. It is ours where an answer was lost."""
        info = self._store.stat(self.key(INTENT))
        self._insist_on_ownership()
        self._etag = info.etag if info is not None else ""

    def _insist_on_ownership(self) -> None:
        key = self.key(INTENT)
        try:
            seen = read_intent(self._store.get(key), self._store.object_url(key))
        except VmferryError as error:
            if error.kind == "not_found":
                raise self._taken_over() from error
            raise
        if seen.job_id != self._intent.job_id:
            raise self._taken_over()

    def _taken_over(self) -> VmferryError:
        return VmferryError(
            "conflict",
            f"Another run took this export of {self._intent.vm_name} for dead, and removes it.",
            "This host was paused for minutes, or a clock is wrong. Export again.",
            retryable=True,
        )


def remove_dead_attempt(
    store: Store, folder: str, capabilities: StoreCapabilities, warn: Callable[[str], object]
) -> bool:
    """False where it was committed after all, and stays. Raises `busy` where its owner lives."""
    key = f"{folder}/{INTENT}"
    info = store.stat(key)
    if info is None:
        return False
    found = read_intent(store.get(key), store.object_url(key))
    if not is_dead(found, is_owner_alive):
        raise in_use(store, found)
    now = time.time()
    ours = Intent(found.export_id, secrets.token_hex(16), found.vm_id, found.vm_name, now, now + LEASE, current_owner())
    try:
        store.put(key, ours.to_json(), if_match=info.etag if capabilities.conditional_replace else None)
    except VmferryError as error:
        if error.kind == "conflict":
            raise in_use(store, found) from error
        raise
    if store.stat(f"{folder}/{MANIFEST}") is not None:
        remove_intent(store, folder)
        return False
    if _remove_data(store, folder, warn):
        store.delete(key)
    return True


def remove_intent(store: Store, folder: str) -> None:
    store.delete(f"{folder}/{CANCEL}")
    store.delete(f"{folder}/{INTENT}")


def in_use(store: Store, intent: Intent) -> VmferryError:
    host, pid = intent.owner.get("hostname", "another host"), intent.owner.get("pid", "unknown")
    return VmferryError(
        "busy",
        f"{intent.vm_name} is being exported to {store.url} by job {intent.job_id} "
        f"(process {pid} on {host}, for {int(time.time() - intent.started_at)} s).",
        "Wait until it is done. A job that died is cleaned up by the next run once its lease is over.",
    )


def is_dead(intent: Intent, alive: Callable[[Mapping[str, Any]], bool | None]) -> bool:
    """`alive` says of an owner True or False where this host can tell, None where it cannot: the lease decides then.

    It also decides after a reboot: in a store that many hosts use, another boot id may as well be another host's.
    """
    seen = alive(intent.owner)
    if seen is None or intent.owner.get("boot_id") != current_owner()["boot_id"]:
        return intent.lease_until < time.time()
    return not seen


def _remove_data(store: Store, folder: str, warn: Callable[[str], object]) -> bool:
    """False where uploads may be left that can be removed later, so that the intent has to stay."""
    prefix, clean = f"{folder}/", True
    try:
        store.abort_uploads(prefix)
    except VmferryError as error:
        clean = not error.retryable  # to be refused is for ever: no later run could do more
        warn(f"Unfinished uploads below {store.object_url(prefix)} may be left: {error} {error.hint}".rstrip())
    for info in list(store.list(prefix)):
        if info.key not in (prefix + INTENT, prefix + MANIFEST):
            store.delete(info.key)
    return clean
