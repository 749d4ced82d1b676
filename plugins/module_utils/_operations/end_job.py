# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `job` does: brings a job to an end, or waits for it, and says so only once it is true."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Callable

from .._errors import VmferryError
from .._exports.intent import CANCEL
from .._providers.open import open_provider
from .._stores.base import Store
from .._stores.open import open_store
from .._transfer import record
from .._transfer.orders import ask_to_stop
from .attempt import remove_dead_attempt
from .jobs_in_store import StoredJob, jobs_in_store
from .list_jobs import described
from .litter import probe_key
from .requests import JobRequest

POLL = 0.5  # seconds between two looks at a record
STORE_POLL = 5.0  # and at a store
WHO = "the module job"


def end_job(request: JobRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `not_found`, `busy`, `conflict` where the job was done already, `timeout`."""
    ending = _Ending(request)
    found = ending.look()
    if request.state == "absent":
        return _forget(ending, found, check_mode)
    if found is None:
        raise VmferryError(
            "not_found",
            f"There is no job {request.job} in {ending.state_dir}" + (", nor in the store." if request.store else "."),
            "List the jobs with job_info. A job of another host is found through its store, with url and storage.",
        )
    if request.state == "finished":
        ended = found if found["finished"] or check_mode else ending.wait(lambda job: job["finished"])
        return {"changed": False, "job": ended}
    return _cancel(ending, found, check_mode)


def _forget(ending: _Ending, found: dict[str, Any] | None, check_mode: bool) -> dict[str, Any]:
    if found is not None and not found["finished"]:
        raise VmferryError("busy", f"The job {found['job']} is running.", "Cancel it first.")
    there = ending.folder.is_dir()
    if there and not check_mode:
        shutil.rmtree(ending.folder)
    return {"changed": there, "job": None}


def _cancel(ending: _Ending, found: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    if found["ended"] is not None and found["state"] != "ready":
        return {"changed": False, "job": found}  # however it ended, it has undone what it did
    if not found["finished"] and check_mode:
        return {"changed": True, "job": found}
    if not found["finished"]:
        ending.ask()
        found = ending.wait(lambda job: job["finished"])
    if found["state"] == "ready":
        raise VmferryError(
            "conflict",
            f"The job {found['job']} was done before it could be cancelled.",
            "What it made is whole. Remove it if it is not wanted.",
        )
    if found["ended"] is None and not check_mode:
        ending.undo(found)
        found = ending.look() or {**found, "state": "cancelled"}
    return {"changed": True, "job": found, "warnings": ending.warnings}


class _Ending:
    """The job on this host, by its record; else in the store, by its intent."""

    def __init__(self, request: JobRequest) -> None:
        self._request = request
        self.warnings: list[str] = []
        self.state_dir = Path(request.state_dir) if request.state_dir else record.default_state_dir()
        self.folder = record.job_dir(self.state_dir, request.job)

    def look(self) -> dict[str, Any] | None:
        try:
            here = record.read_job(self.state_dir, self._request.job)
        except VmferryError as error:
            if error.kind != "not_found":
                raise
        else:
            return described(here, record.read_log(self.state_dir, self._request.job, 20))
        stored = self._stored()
        return None if stored is None else described(stored.record, [])

    def ask(self) -> None:
        if self.folder.is_dir():
            ask_to_stop(self.folder, WHO)
            return
        with closing(self._open_store()) as store:
            stored = self._find(store)
            if stored is not None and not stored.record["finished"]:
                store.put(f"{stored.folder}/{CANCEL}", WHO.encode())

    def wait(self, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """A job that was seen and is gone from the store has undone itself."""
        deadline, last = time.monotonic() + self._request.timeout, self.look()
        while last is not None and not enough(last):
            if time.monotonic() > deadline:
                raise VmferryError(
                    "timeout",
                    f"The job {self._request.job} is still in phase {last['phase']} after {self._request.timeout:g} s.",
                    "Wait longer, with timeout.",
                    retryable=True,
                )
            time.sleep(POLL if self.folder.is_dir() else STORE_POLL)
            seen = self.look()
            if seen is None:
                now = time.time()
                return {**last, "phase": "cancelled", "state": "cancelled", "finished": True, "ended": now}
            last = seen
        if last is None:
            raise VmferryError("not_found", f"The job {self._request.job} is gone.")
        return last

    def undo(self, found: dict[str, Any]) -> None:
        """Of a job that died: what the next run on the same VM and store would remove."""
        request, kind = self._request, found["kind"]
        if request.provider is None or (request.store is None and kind == "export"):
            raise VmferryError(
                "invalid_config",
                f"The job {request.job} died, and what it left can only be removed with its provider and its store.",
                "Give provider, url and storage as the task that started it had them.",
            )
        with closing(open_provider(request.provider.name, request.provider.settings)) as provider:
            provider.undo(request.job)
        if kind == "export":
            with closing(self._open_store()) as store:
                stored = self._find(store)
                if stored is not None and stored.record["finished"] is None:
                    remove_dead_attempt(store, stored.folder, store.probe(probe_key()), self.warnings.append)
        if self.folder.is_dir():
            record.close_record(self.folder, "cancelled")

    def _stored(self) -> StoredJob | None:
        if self._request.store is None:
            return None
        with closing(self._open_store()) as store:
            return self._find(store)

    def _find(self, store: Store) -> StoredJob | None:
        return next((one for one in jobs_in_store(store) if one.record["id"] == self._request.job), None)

    def _open_store(self) -> Store:
        spec = self._request.store
        if spec is None:
            raise VmferryError("invalid_config", "The job's store is not known.", "Give url and storage.")
        return open_store(spec.url, spec.settings)
