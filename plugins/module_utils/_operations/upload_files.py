# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `storage_upload` does: files of this host into a store, each object there whole or not at all."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from threading import Lock
from typing import Any, Callable, Iterator, Literal, Mapping, Sequence

from .._blocks import ObjectInfo
from .._errors import VmferryError
from .._stores.base import Store
from .._stores.sidecar import sidecar_key
from .._transfer.digest_bytes import digest_of
from .._transfer.move_bytes import WORKERS
from .._transfer.object_journal import remove_old_journals
from .._transfer.workers import run_workers
from .attempts.litter import probe_key
from .jobs.findings import checked, finding_of
from .jobs.running_job import RunningJob, state_dir_of
from .jobs.storage_requests import UploadRequest
from .jobs.store_access import keeps_files, takes_any_offset
from .objects.byte_sources import LocalFile, StoredObject, without_change_time
from .objects.local_files import FileToSend, fields_of, files_to_send
from .objects.move_object import SMALL, ObjectMove, Sent, Target, Wanted
from .objects.object_results import (
    PHASES,
    StoreAccount,
    insist_on_checksum,
    not_told,
    rate,
    space_findings,
    tell_outcome,
    told,
    warnings_of,
)
from .objects.stored_checksums import SHA256, known_details, note_metadata

Outcome = Literal["sent", "unchanged", "left", "noted"]  # left: another object is there; noted: only its metadata


@dataclass(frozen=True)
class Planned:
    file: FileToSend
    outcome: Outcome
    version: str  # of the file when it was looked at
    known: str = ""  # its SHA-256, if it was taken
    info: ObjectInfo | None = None  # what is there


def upload_files(request: UploadRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`, whose `done` tells what was sent before."""
    spec = request.store
    with ExitStack() as stack:
        job = stack.enter_context(
            RunningJob.start("upload", request.transfer, request.vm, spec.url, PHASES, check_mode)
        )
        store = stack.enter_context(closing(job.open_store(spec)))
        return _Upload(request, job, store).run(check_mode)


class _Upload:
    def __init__(self, request: UploadRequest, job: RunningJob, store: Store) -> None:
        self._request, self._job, self._store = request, job, store
        self._is_path = keeps_files(request.store)
        self._rows: dict[str, dict[str, Any]] = {}
        self._removed_files: set[str] = set()  # versions, but for the time of their last change
        self._lock = Lock()

    def run(self, check_mode: bool) -> dict[str, Any]:
        self._job.phase("validating")
        files = self._job.ask(self._find)
        plans = self._job.ask(lambda: self._planned(files))
        if check_mode:
            return {**self._job.supervise(lambda: self._checked(plans)), "job": self._job.as_result()}
        if any(self._has_to_act(plan) for plan in plans):
            remove_old_journals(state_dir_of(self._request.transfer))
            self._job.wait_for_slot(StoreAccount.of(self._request.store))
        try:
            return self._job.supervise(lambda: self._carry_out(plans))
        except VmferryError as error:
            error.done = {**self._result(plans), **error.done}
            raise

    def _find(self) -> list[FileToSend]:
        fields = fields_of(self._request.vm, datetime.now(timezone.utc))
        files = files_to_send(self._request.src, self._request.key, fields, self._job.warn)
        if not files and self._request.keep_source:  # or an earlier run has moved them
            what = " and ".join(self._request.src)
            raise VmferryError("not_found", f"No file fits {what}.", "Correct src. It is about the module's host.")
        if self._request.checksum and len(files) > 1:
            raise VmferryError("invalid_config", f"checksum is of one file, and {len(files)} are to be sent.")
        keys = {file.key for file in files}
        for key in keys if self._is_path and self._request.metadata else ():
            if sidecar_key(key) in keys:
                raise VmferryError("invalid_config", f"{sidecar_key(key)} is where the metadata of {key} would be.")
        return files

    def _planned(self, files: Sequence[FileToSend]) -> list[Planned]:
        found: dict[str, Planned] = {}

        def plan(file: FileToSend) -> None:
            found[file.key] = self._plan(file)

        self._for_each(files, plan)
        return [found[file.key] for file in files]

    def _for_each(self, items: Sequence[Any], act: Callable[[Any], object]) -> None:
        left: Iterator[Any] = iter(items)

        def take() -> Any:
            with self._lock:
                return next(left, None)

        def work() -> None:
            while (item := take()) is not None:
                self._job.flow.raise_if_stopped()
                act(item)

        run_workers(self._job.flow, min(self._request.transfer.parallel or WORKERS, max(1, len(items))), work)

    def _plan(self, file: FileToSend) -> Planned:
        with LocalFile.opened(file.path) as local:
            self._refuse_itself(file)
            file = replace(file, size=local.size)
            info = self._store.stat(file.key)
            if info is None:
                return Planned(file, "sent", local.version)
            outcome, known = self._compared(local, info)
            local.insist_on_version()
            return Planned(file, outcome, local.version, known, info)

    def _refuse_itself(self, file: FileToSend) -> None:
        if not takes_any_offset(self._request.store):
            return
        there = Path(self._store.location(file.key))
        with suppress(OSError):  # there is none yet, or what is wrong with it is told by the store
            if there.samefile(file.path):
                raise VmferryError(
                    "invalid_config", f"{file.path} is {file.key} of the store itself.", "Correct src, key or url."
                )

    def _compared(self, local: LocalFile, info: ObjectInfo) -> tuple[Outcome, str]:
        """Also the file's SHA-256, if it had to be taken."""
        if self._request.overwrite == "never":
            return "left", ""
        if self._request.overwrite == "always" or info.size != local.size:
            return "sent", ""
        noted, metadata = known_details(self._store, info, self._is_path)
        if not noted and not self._is_path:
            return "sent", ""  # reading it would cost as much
        known = self._digest(local)
        insist_on_checksum(str(local.path), known, self._request.checksum)
        if (noted or self._digest(StoredObject(self._store, info))) != known:
            return "sent", known
        if self._request.metadata is None or dict(metadata) == dict(self._request.metadata):
            return "unchanged", known
        return "noted", known

    def _digest(self, source: LocalFile | StoredObject) -> str:
        return digest_of(source, self._job.flow, self._job.progress.alive)

    def _has_to_act(self, plan: Planned) -> bool:
        return plan.outcome in ("sent", "noted") or (plan.outcome == "unchanged" and self._goes(plan))

    def _goes(self, plan: Planned) -> bool:
        """Of a link, the file that was sent is elsewhere."""
        return not self._request.keep_source and not plan.file.path.is_symlink()

    def _checked(self, plans: Sequence[Planned]) -> dict[str, Any]:
        findings = []
        size = sum(plan.file.size for plan in plans if plan.outcome == "sent")
        if any(plan.outcome in ("sent", "noted") for plan in plans):
            try:
                self._store.probe(probe_key())
                findings += space_findings(self._store, size)
            except VmferryError as error:
                findings.append(finding_of(error))
        rows = [{**self._named(plan), "size": plan.file.size, "outcome": plan.outcome} for plan in plans]
        changes = any(self._has_to_act(plan) for plan in plans)
        found = checked(findings, {"files": rows, "bytes_to_send": size}, *self._states(plans))
        return {**found, "changed": found["changed"] and changes}

    def _carry_out(self, plans: Sequence[Planned]) -> dict[str, Any]:
        sending = [plan for plan in plans if plan.outcome in ("sent", "noted")]
        if sending:
            self._job.capabilities = self._store.probe(probe_key())
            size = sum(plan.file.size for plan in sending if plan.outcome == "sent")
            for warning in warnings_of(space_findings(self._store, size)):
                self._job.warn(warning)
            self._job.phase("transferring", [(plan.file.path.name, plan.file.size) for plan in sending])
            numbered = list(enumerate(sending))
            self._for_each([one for one in numbered if one[1].file.size <= SMALL], self._send)
            for one in numbered:
                if one[1].file.size > SMALL:
                    self._send(one)
        if not self._request.keep_source:
            for plan in plans:
                self._remove_source(plan)
        return self._result(plans)

    def _send(self, numbered: tuple[int, Planned]) -> None:
        number, plan = numbered
        progress = self._job.progress.disk(number)
        key = plan.file.key
        with LocalFile.opened(plan.file.path) as local:
            if local.version != plan.version:
                raise local.changed()
            if plan.outcome == "noted" and plan.info is not None:
                info = self._noted(plan, plan.info)
                if info is not None:
                    self._rows[key] = {**not_told(plan.file.size, plan.known, info.etag), "outcome": "noted"}
                    return
            known = plan.known or self._request.checksum
            if not (known or self._is_path or self._store.metadata_last) and local.size > SMALL:
                # It is noted when an upload begins, and not when it ends.
                known = digest_of(local, self._job.flow, progress.alive)
            metadata = self._metadata(plan)
            sent = self._moved(local, key, known, metadata).run(progress)
        if sent is None:  # something came there meanwhile, that shall stay
            self._rows[key] = {**not_told(plan.file.size, "", ""), "outcome": "left"}
            return
        if self._is_path:
            note_metadata(self._store, sent.info, sent.sha256, metadata)
        self._store.lock(key)
        self._rows[key] = {**self._row(sent), "outcome": "sent"}

    def _noted(self, plan: Planned, info: ObjectInfo) -> ObjectInfo | None:
        """The object with other metadata, its bytes not sent again. None where the store cannot do that."""
        metadata = self._request.metadata or {}
        if self._is_path:
            note_metadata(self._store, info, plan.known, metadata)
            return info
        now = self._store.replace_metadata(info, {**metadata, SHA256: plan.known})
        if now is not None:
            self._store.lock(info.key)
        return now

    def _metadata(self, plan: Planned) -> Mapping[str, str]:
        """What is there stays with an object whose content is replaced, unless the task says what it shall be."""
        if self._request.metadata is not None or plan.info is None:
            return self._request.metadata or {}
        return known_details(self._store, plan.info, self._is_path)[1]

    def _moved(self, local: LocalFile, key: str, known: str, metadata: Mapping[str, str]) -> ObjectMove:
        wanted = Wanted(
            metadata=metadata,
            checksum=self._request.checksum,
            known=known,
            note=True,
            resume_window=self._request.resume_window,
            read_back=self._request.read_back,
            if_absent=self._request.overwrite == "never",
        )
        return ObjectMove(
            self._job, local, Target(self._store, key, self._is_path, takes_any_offset(self._request.store)), wanted
        )

    def _row(self, sent: Sent) -> dict[str, Any]:
        return told(sent, bool(self._request.checksum) or self._request.read_back)

    def _remove_source(self, plan: Planned) -> None:
        if self._rows.get(plan.file.key, {"outcome": plan.outcome})["outcome"] == "left":
            self._job.warn(f"{plan.file.path} is kept, since another object may be at {plan.file.key}.")
            return
        if not self._goes(plan):
            self._job.warn(f"{plan.file.path} is kept: it is a link, and the file that was sent is elsewhere.")
            return
        with LocalFile.opened(plan.file.path) as local:
            if not self._is_still(local.version, plan.version) or not local.is_at_its_path():
                raise local.changed()
            plan.file.path.unlink()
        self._removed_files.add(without_change_time(plan.version))

    def _is_still(self, now: str, then: str) -> bool:
        """To remove one name of a file changes the time of its last change under all others."""
        plain = without_change_time(then)
        return now == then or (plain in self._removed_files and without_change_time(now) == plain)

    def _named(self, plan: Planned) -> dict[str, Any]:
        key = plan.file.key
        return {"src": str(plan.file.path), "key": key, "url": self._store.object_url(key)}

    def _result(self, plans: Sequence[Planned]) -> dict[str, Any]:
        rows = [self._told(plan) for plan in plans]
        before, after = self._states(plans)
        sent, seconds = sum(row["bytes_sent"] for row in rows), self._job.progress.snapshot()["elapsed"]
        changed = any(row["outcome"] in ("sent", "noted") for row in rows) or self._removed(plans)
        tell_outcome(self._job, changed)
        return {
            "changed": changed,
            "files": rows,
            "bytes_sent": sent,
            "rate": rate(sent, seconds) if sent else 0,
            "job": self._job.as_result(),
            "diff": {"before": before, "after": after},
            "warnings": list(self._job.warnings),
        }

    def _told(self, plan: Planned) -> dict[str, Any]:
        """Of a run that failed, also what was not sent."""
        row = self._rows.get(plan.file.key)
        if row is not None:
            return {**self._named(plan), **row}
        outcome = "failed" if plan.outcome in ("sent", "noted") else plan.outcome
        etag = plan.info.etag if plan.info is not None else ""
        return {**self._named(plan), **not_told(plan.file.size, plan.known, etag), "outcome": outcome}

    def _removed(self, plans: Sequence[Planned]) -> bool:
        return not self._request.keep_source and any(not plan.file.path.exists() for plan in plans)

    def _states(self, plans: Sequence[Planned]) -> tuple[dict[str, Any], dict[str, Any]]:
        def size(plan: Planned) -> Mapping[str, Any] | None:
            return None if plan.info is None else {"size": plan.info.size, "etag": plan.info.etag}

        before = {plan.file.key: size(plan) for plan in plans}
        after = {plan.file.key: {"size": plan.file.size} if self._replaces(plan) else size(plan) for plan in plans}
        return {"objects": before}, {"objects": after}

    def _replaces(self, plan: Planned) -> bool:
        row = self._rows.get(plan.file.key)
        return plan.outcome == "sent" and (row is None or row["outcome"] == "sent")
