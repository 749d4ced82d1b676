# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `job` does: brings a job to an end, or waits for it, and says so only once it is true."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, Sequence

from .._errors import VmferryError
from .._exports.intent import CANCEL, Intent
from .._exports.naming import iso_time
from .._providers.base import Provider, VendorTask
from .._stores.base import Store
from .._stores.open import open_store
from .._transfer import record
from .._transfer.orders import ask_to_stop
from .attempts.dead_attempts import remove_dead_attempt
from .attempts.jobs_in_store import StoredJob, is_given_up, job_in_folder, jobs_in_store, with_store
from .attempts.litter import probe_key
from .attempts.owed_starts import owed_starts, settle
from .jobs.requests import JobRequest
from .jobs.told_job import described
from .objects.undo_objects import MOVES_OBJECTS, undo_objects
from .vm_files.open import open_provider

POLL = 0.5  # seconds between two looks at a record
STORE_POLL = 5.0  # and at a store
WHO = "the module job"


def end_job(request: JobRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `not_found`, `busy`, `conflict` where the job was done already, `timeout`."""
    with closing(_Ending(request)) as ending:
        return _end(ending, request, check_mode)


def _end(ending: _Ending, request: JobRequest, check_mode: bool) -> dict[str, Any]:
    found = ending.look()
    if request.state == "absent":
        return _forget(ending, found, check_mode)
    if found is None:
        raise VmferryError(
            "not_found",
            f"There is no job {request.job} in {ending.state_dir}" + (", nor in the store." if request.store else "."),
            "List the jobs with job_info. An export of another host is found through its store, with url and storage; "
            "a job that moved files or objects only on the host that it ran on, with the state_dir that it had.",
        )
    if request.state == "finished":
        ended = found if found["finished"] or check_mode else ending.wait(lambda job: job["finished"])
        return {"changed": False, "job": ended}
    return _cancel(ending, found, check_mode)


def _forget(ending: _Ending, found: dict[str, Any] | None, check_mode: bool) -> dict[str, Any]:
    if found is not None and not found["finished"]:
        raise VmferryError("busy", f"The job {found['id']} is running.", "Cancel it first.")
    there = ending.folder.is_dir()
    if there and not check_mode:
        shutil.rmtree(ending.folder)
    return {"changed": there, "job": None}


def _cancel(ending: _Ending, found: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    if found["state"] == "ready" and not check_mode:
        ending.start_guests()
    _insist_on_not_ready(found)
    if found["ended"] is not None and found["undone"] is not False:
        return {"changed": False, "job": found}
    if not check_mode and not found["finished"]:
        ending.ask()
        found = ending.wait(lambda job: job["finished"])
        _insist_on_not_ready(found)
    left = found["finished"] and (found["ended"] is None or found["undone"] is False)
    if left and not check_mode:
        ending.undo(found)
        found = ending.look() or {**found, "state": "cancelled"}
    return {"changed": True, "job": found, "warnings": ending.warnings}


def _insist_on_not_ready(found: dict[str, Any]) -> None:
    if found["state"] == "ready":
        raise VmferryError(
            "conflict",
            f"The job {found['id']} was done before it could be cancelled.",
            "What it made is whole. Remove it if it is not wanted.",
        )


class _Ending:
    """The job on this host, by its record; in the store, by its intent or its manifest."""

    def __init__(self, request: JobRequest) -> None:
        self._request = request
        self._opened: Store | None = None
        self._attempt = ""  # the job's folder in the store, once it is known
        self.warnings: list[str] = []
        self.state_dir = Path(request.state_dir) if request.state_dir else record.default_state_dir()
        self.folder = record.job_dir(self.state_dir, request.job)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def look(self) -> dict[str, Any] | None:
        here = self._record()
        if here is not None:
            told = with_store(here, self._stored()) if is_given_up(here) else here
            return described(told, record.read_log(self.state_dir, self._request.job, 20))
        stored = self._stored()
        return None if stored is None else described(stored.record, [])

    def ask(self) -> None:
        if self.folder.is_dir():
            ask_to_stop(self.folder, WHO)
        stored = self._stored() if self._record_is_silent() else None
        if stored is not None and not stored.record["finished"]:
            self._store().put(f"{stored.folder}/{CANCEL}", WHO.encode())

    def wait(self, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline, last = time.monotonic() + self._request.timeout, self.look()
        while last is not None and not enough(last):
            if time.monotonic() > deadline:
                raise VmferryError(
                    "timeout",
                    f"The job {self._request.job} is still in phase {last['phase']} after {self._request.timeout:g} s.",
                    "Wait longer, with timeout.",
                    retryable=True,
                )
            time.sleep(STORE_POLL if self._record_is_silent() else POLL)
            seen = self.look()
            if seen is None:
                return self._gone(last)
            last = seen
        if last is None:
            raise VmferryError("not_found", f"The job {self._request.job} is gone.")
        return last

    def _gone(self, last: dict[str, Any]) -> dict[str, Any]:
        note = "Its record was removed after it had ended."
        if self._attempt:
            host = last["owner"].get("hostname", "its host")
            note = (
                f"It failed or was cancelled, and nothing of it is left in the store. Its record on {host} tells more."
            )
        now = time.time()
        ended = {"finished": True, "ended": now, "ended_at": iso_time(now)}
        over = {"phase": "gone", "state": "gone", "alive": False, **ended}
        return {**last, **over, "note": note, "rate": 0, "eta": None}

    def undo(self, found: dict[str, Any]) -> None:
        """Of a job that died, or that could not do it itself: what the next run would remove, or go on with."""
        here = record.reopen_record(self.folder)
        left_at: Sequence[str] = () if here is None else here.fields.get("left_at", ())
        if found["kind"] in MOVES_OBJECTS:
            undo_objects(self.state_dir, self._request.job, self._request.store)
        else:
            staging = "" if here is None else str(here.fields.get("staging", ""))
            done = self._undo_at_provider(found, staging)
            left_at = [account for account in left_at if account != done]
        if here is not None:
            here.finish("cancelled")
            here.note_undone(left_at)
        if left_at:
            where = " and ".join(left_at)
            self.warnings.append(f"What the job left at {where} may still be there: cancel it with that provider, too.")

    def _undo_at_provider(self, found: dict[str, Any], staging: str) -> str:
        """The account at which nothing is left any more. `staging`: where an import's images lay, if anywhere."""
        request, kind = self._request, found["kind"]
        if request.provider is None or (request.store is None and kind == "export"):
            ended = "died" if found["ended"] is None else "ended"
            raise VmferryError(
                "invalid_config",
                f"The job {request.job} {ended}, and what it left can only be removed with its provider and its store.",
                "Give provider with its connection, and url and storage, as the task that started it had them.",
            )
        with closing(open_provider(request.provider.name, request.provider.settings)) as provider:
            if staging:
                provider.import_by("vendor_task", VendorTask(staging))
            provider.undo(request.job)
            if kind == "export":
                self._remove_from_store(provider)
                self._start_guests(provider)
            return provider.account

    def start_guests(self) -> None:
        """Of a job that had made its export when it died."""
        spec = self._request.provider
        if spec is not None and self._request.store is not None:
            with closing(open_provider(spec.name, spec.settings)) as provider:
                self._start_guests(provider)

    def _start_guests(self, provider: Provider) -> None:
        """That the job had shut down."""
        for owed in list(owed_starts(self._store())):
            if owed.mark.job_id != self._request.job:
                continue
            if not owed.is_at(provider):
                self.warnings.append(owed.elsewhere)
                continue
            try:
                settle(self._store(), provider, owed)
            except VmferryError as error:
                if error.kind != "not_found":
                    raise
                self._store().delete(owed.mark.key)  # the VM is gone, and nobody owes it anything

    def _remove_from_store(self, provider: Provider) -> None:
        def forget_point_in_time(intent: Intent) -> None:
            if not intent.token:
                return
            try:
                vm = provider.describe(intent.vm_id)
            except VmferryError as error:
                if error.kind != "not_found":
                    raise
                return  # and its point in time with it
            provider.forget(vm, [intent.token])

        stored = self._stored()
        if stored is not None and stored.record["finished"] is None:
            store = self._store()
            capabilities = store.probe(probe_key())
            remove_dead_attempt(store, stored.folder, capabilities, self.warnings.append, forget_point_in_time)

    def _record(self) -> dict[str, Any] | None:
        try:
            return record.read_job(self.state_dir, self._request.job)
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise

    def _record_is_silent(self) -> bool:
        """Or not there: only the store can tell."""
        here = self._record()
        return here is None or is_given_up(here)

    def _stored(self) -> StoredJob | None:
        here = self._record()
        if self._request.store is None or (here is not None and here["kind"] in MOVES_OBJECTS):
            return None
        if self._attempt:  # once found it is never anywhere else
            return job_in_folder(self._store(), self._attempt, self._request.job)
        found = next((one for one in jobs_in_store(self._store()) if one.record["id"] == self._request.job), None)
        self._attempt = "" if found is None else found.folder
        return found

    def _store(self) -> Store:
        spec = self._request.store
        if spec is None:
            raise VmferryError("invalid_config", "The job's store is not known.", "Give url and storage.")
        if self._opened is None:
            self._opened = open_store(spec.url, spec.settings)
        return self._opened
