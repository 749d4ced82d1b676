# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The claim on an export that others are merged into: one run at a time does it, and says that it lives."""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Callable, TypeVar

from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.folding import FOLDING, FOLDING_LIMIT, Folding, read_folding
from ..._exports.intent import BEAT, LEASE, Intent
from ..._stores.base import Store
from ..._transfer.flow import Stopped
from ..._transfer.owner import current_owner
from ..attempts.attempt_life import is_dead
from ..jobs.running_job import RunningJob

Done = TypeVar("Done")


def new_folding(into: CatalogEntry, merged: tuple[str, ...]) -> Folding:
    now, machine = time.time(), into.manifest.machine
    export, job = into.manifest.export_id, secrets.token_hex(16)
    claim = Intent(export, job, machine.id, machine.name, now, now + LEASE, current_owner())
    return Folding(claim, secrets.token_hex(4), merged)


class FoldClaim:
    """Made by `take` or `take_over`; over by `remove` or `let_go`. The store replaces and creates on conditions."""

    beat = BEAT

    def __init__(self, job: RunningJob, store: Store, folder: str, folding: Folding, etag: str) -> None:
        self._job, self._store, self._key = job, store, f"{folder}/{FOLDING}"
        self.folding, self._etag = folding, etag
        self._writing, self._done = threading.Lock(), threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._keeper.start()

    @classmethod
    def take(cls, job: RunningJob, store: Store, folder: str, folding: Folding) -> FoldClaim:
        """Raises `busy` where another run has it."""
        try:
            written = store.put(f"{folder}/{FOLDING}", folding.to_json(), if_absent=True)
        except VmferryError as error:
            if error.kind == "conflict":
                raise _busy(store, folder) from error
            raise
        return cls(job, store, folder, folding, written.etag)

    @classmethod
    def take_over(cls, job: RunningJob, store: Store, folder: str) -> FoldClaim | None:
        """That of a run that died. None where there is none; raises `busy` where it lives, or another was faster."""
        key = f"{folder}/{FOLDING}"
        info = store.stat(key)
        if info is None:
            return None
        found = read_folding(store.get(key, FOLDING_LIMIT), store.object_url(key))
        if not is_dead(found.claim):
            raise _busy(store, folder)
        now, ours = time.time(), secrets.token_hex(16)
        claim = replace(found.claim, job_id=ours, started_at=now, lease_until=now + LEASE, owner=current_owner())
        folding = replace(found, claim=claim)
        try:
            written = store.put(key, folding.to_json(), if_match=info.etag)
        except VmferryError as error:
            if error.kind in ("conflict", "not_found"):
                raise _busy(store, folder) from error
            raise
        return cls(job, store, folder, folding, written.etag)

    def note(self, manifest: bytes) -> None:
        self._write(replace(self.folding, manifest=manifest))

    def insist(self) -> None:
        """A host that was paused for longer than its lease may find that another one goes on with it."""
        self._write(self.folding)

    def remove(self) -> None:
        """Unless it is another's by now."""
        self._stop()
        self._if_ours(lambda: self._store.delete(self._key, if_match=self._etag))

    def let_go(self) -> None:
        """So that the next run, wherever it is, need not wait for the lease."""
        self._stop()
        over = replace(self.folding.claim, lease_until=0.0, owner={})
        self._write(replace(self.folding, claim=over))

    def _write(self, folding: Folding) -> None:
        with self._writing:
            claim = folding.claim
            if claim.lease_until:
                folding = replace(folding, claim=claim.renewed(time.time(), {}))
            self._etag = self._if_ours(lambda: self._store.put(self._key, folding.to_json(), if_match=self._etag)).etag
            self.folding = folding

    def _if_ours(self, step: Callable[[], Done]) -> Done:
        """`step` is on the condition of what was seen last. Raises `busy` where the claim is another's."""
        try:
            return step()
        except VmferryError as error:
            if error.kind not in ("conflict", "not_found"):
                raise
            self._adopt(error)
        return step()

    def _adopt(self, error: VmferryError) -> None:
        """What is there is no longer what was seen to be written. It is ours where an answer was lost."""
        info = self._store.stat(self._key)
        seen = read_folding(self._store.get(self._key, FOLDING_LIMIT), self._key) if info is not None else None
        if info is None or seen is None or seen.claim.job_id != self.folding.claim.job_id:
            raise _busy(self._store, self._key.rpartition("/")[0]) from error
        self._etag = info.etag

    def _stop(self) -> None:
        with self._job.flow.changing():  # the keeper may be waiting for its next try
            self._done.set()
        self._keeper.join()

    def _keep(self) -> None:
        with suppress(Stopped), self._job.flow.until(self._done.is_set):
            while not self._done.wait(self.beat):
                try:
                    self._write(self.folding)
                except VmferryError as error:
                    if error.kind == "busy":
                        self._job.flow.stop(error)
                        return
                    # The data's own requests decide whether the store is lost.


def _busy(store: Store, folder: str) -> VmferryError:
    return VmferryError("busy", f"Another run is merging exports into {store.object_url(folder)}.")
