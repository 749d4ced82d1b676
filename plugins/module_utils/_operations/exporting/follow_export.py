# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another run that is exporting the same VM to the same store, watched to its end.

It is found and watched by its record where it runs on this host, else by its intent. Two runs that start at once do not
wait for each other: a record is only followed by a job that began later, and never where it follows another itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..._errors import VmferryError
from ..._exports.catalog import Catalog, CatalogEntry
from ..._exports.intent import INTENT, Intent, read_intent
from ..._exports.marks import read_checked_by
from ..._providers.finding import Finding
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..._transfer import record
from ..._transfer.progress import Progress
from ..attempts.attempt_life import is_dead
from ..jobs.running_job import RunningJob, state_dir_of

POLL = 0.5  # seconds between two looks at a record
STORE_POLL = 5.0  # and at an intent, which changes every 15 seconds
_OWN = frozenset(
    {"version", "id", "kind", "vm", "url", "started", "finished", "result", "error", "undone", "owner", "watcher"}
)  # what of a record is not how far its job is
_OTHERS = frozenset({"alive", "follows", "note", "kept"})


@dataclass(frozen=True)
class Leader:
    """`folder`: its attempt's in the store, empty where only its record tells of it."""

    job_id: str
    owner: Mapping[str, Any]
    folder: str = ""

    def as_result(self) -> dict[str, Any]:
        return {"job": self.job_id, "hostname": self.owner.get("hostname", ""), "pid": self.owner.get("pid")}


class FollowedProgress(Progress):
    """How far another job is."""

    def __init__(self) -> None:
        super().__init__({})
        self._seen: dict[str, Any] = {}

    @property
    def must_move(self) -> bool:
        return False  # that is for its own watcher to see to

    def see(self, told: Mapping[str, Any]) -> None:
        seen = {name: value for name, value in told.items() if name not in _OWN | _OTHERS}
        self._seen = seen
        self.phase = str(seen.get("phase", self.phase))

    def snapshot(self) -> dict[str, Any]:
        return {**self._seen, "phase": self.phase, "heartbeat": time.time()}


class Following:
    def __init__(self, job: RunningJob, store: Store, catalog: Catalog, vm: VmSpec) -> None:
        self._job, self._store, self._catalog, self._vm = job, store, catalog, vm
        self._state_dir = state_dir_of(job.options)

    def to_its_end(self) -> tuple[Leader, CatalogEntry, bool] | None:
        """Whom, and what `wait_for` says of it; None where there is nobody, too."""
        leader, progress = self._job.ask(self.leader), FollowedProgress()
        if leader is None:
            return None
        seen = self._job.follow(leader.job_id, lambda: self.wait_for(leader, progress), progress)
        return None if seen is None else (leader, *seen)

    def foreseen(self, findings: Sequence[Finding]) -> list[Finding]:
        """As a run would meet them that follows: then nobody is in its way."""
        leader = self.leader()
        if leader is None:
            return list(findings)
        told = Finding("info", f"A run would follow the job {leader.job_id}, which is exporting {self._vm.name}.", "")
        return [told, *(finding for finding in findings if finding.kind != "busy")]

    def leader(self) -> Leader | None:
        """The run to follow."""
        for folder, intent in self._catalog.unfinished(self._vm.id):
            if not is_dead(intent):
                return Leader(intent.job_id, intent.owner, folder)
        return self._earlier_here()

    def wait_for(self, leader: Leader, progress: FollowedProgress) -> tuple[CatalogEntry, bool] | None:
        """What it made and True, or what it found unchanged and False. None where it did neither, or died: then there
        is something to do here. Raises its error where it failed.
        """
        while True:
            here = self._record_of(leader)
            if here is None:
                told = self._told_by_store(leader, progress)
            else:
                progress.see({**here, "phase": here["phase"] if here["finished"] is None else progress.phase})
                told = _told_by_record(leader, here)
            if told is not None:
                return self._made_by(leader) if told else None
            self._job.flow.sleep(STORE_POLL if here is None else POLL)

    def _told_by_store(self, leader: Leader, progress: FollowedProgress) -> bool | None:
        """As `_told_by_record`. Once the intent is gone, what was made tells how it ended."""
        intent = self._intent_of(leader)
        if intent is None:
            if self._made_by(leader) is not None:
                return True
            raise VmferryError(
                "conflict",
                f"The job {leader.job_id}, which was followed, failed or was cancelled, and nothing of it is left.",
                f"Its record on {leader.owner.get('hostname', 'its host')} tells more. Run the task again.",
                retryable=True,
            )
        progress.see(intent.progress)
        return False if intent.job_id != leader.job_id or is_dead(intent) else None

    def _made_by(self, leader: Leader) -> tuple[CatalogEntry, bool] | None:
        for entry in reversed(self._catalog.of_vm(self._vm.id)):
            if entry.manifest.job_id == leader.job_id:
                return entry, True
            if read_checked_by(self._store, entry) == leader.job_id:
                return entry, False
        return None

    def _intent_of(self, leader: Leader) -> Intent | None:
        key = f"{leader.folder}/{INTENT}"
        try:
            return read_intent(self._store.get(key), self._store.object_url(key)) if leader.folder else None
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise

    def _record_of(self, leader: Leader) -> dict[str, Any] | None:
        try:
            return record.read_job(self._state_dir, leader.job_id)
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise

    def _earlier_here(self) -> Leader | None:
        """It may have no intent yet, as it waits for a slot."""
        jobs = {job["id"]: job for job in record.list_jobs(self._state_dir)}
        own = jobs.get(self._job.id)
        for job in jobs.values():
            if own is not None and _is_earlier(job, own) and job["vm"] in (own["vm"], self._vm.name, self._vm.id):
                return Leader(job["id"], job["owner"])
        return None


def _is_earlier(job: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """And does the same to the same place."""
    return (
        job["kind"] == own["kind"]
        and job["url"] == own["url"]
        and job["finished"] is None
        and job["alive"] is not False
        and not job.get("follows")
        and (job["started"], job["id"]) < (own["started"], own["id"])
    )


def _told_by_record(leader: Leader, here: Mapping[str, Any]) -> bool | None:
    """None while it runs; True where it is done, False where it died. Raises its error where it failed."""
    if here["finished"] is None:
        return False if here["alive"] is False else None
    if here["phase"] == "ready":
        return True
    error = here["error"] or {}
    failed = VmferryError(
        error.get("kind", "internal"),
        f"The job {leader.job_id}, which was followed, {here['phase']}: {error.get('message', 'it does not say why.')}"
        if here["phase"] == "failed"
        else f"The job {leader.job_id}, which was followed, was cancelled.",
        error.get("hint", ""),
        retryable=error.get("retryable"),
    )
    if here.get("kept"):
        failed.done = {"kept": here["kept"]}
    raise failed
