# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `storage_copy` does: objects from one store to another, by the server or block by block, never by a file."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any, Literal, Sequence

from .._blocks import ObjectInfo
from .._errors import VmferryError
from .._providers.finding import Finding
from .._stores.base import Store
from .._stores.server_copy import CopyOrder
from .._stores.sidecar import sidecar_key
from .._transfer.digest_bytes import digest_of
from .._transfer.object_journal import remove_old_journals
from .._transfer.progress import DiskProgress
from .attempts.litter import probe_key
from .jobs.findings import checked, finding_of
from .jobs.running_job import RunningJob, state_dir_of
from .jobs.storage_requests import CopyRequest
from .jobs.store_access import keeps_files, takes_any_offset
from .objects.byte_sources import StoredObject, is_same
from .objects.copy_notes import CopyNotes
from .objects.move_object import RESUME_WINDOW, SMALL, ObjectMove, Sent, Target, Wanted
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
from .objects.sparse_object import SparseObject
from .objects.stored_checksums import SHA256, SOURCE, known_details, note_metadata, without_sidecars

Outcome = Literal["sent", "unchanged", "left"]


@dataclass(frozen=True)
class Pair:
    source: ObjectInfo
    key: str  # of the copy
    outcome: Outcome
    checksum: str = ""  # as noted with the source
    same: str = ""  # SHA-256 of what is there, where it has the same size
    before: ObjectInfo | None = None


def copy_objects(request: CopyRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`, whose `done` tells what was copied before."""
    with ExitStack() as stack:
        job = stack.enter_context(
            RunningJob.start("copy", request.transfer, "", request.destination.url, PHASES, check_mode)
        )
        source = stack.enter_context(closing(job.open_store(request.source, limited=False)))
        target = stack.enter_context(closing(job.open_store(request.destination)))
        return _Copy(request, job, source, target).run(check_mode)


class _Copy:
    def __init__(self, request: CopyRequest, job: RunningJob, source: Store, target: Store) -> None:
        self._request, self._job, self._source, self._target = request, job, source, target
        self._from_path, self._to_path = keeps_files(request.source), keeps_files(request.destination)
        self._rows: dict[str, dict[str, Any]] = {}

    def run(self, check_mode: bool) -> dict[str, Any]:
        self._job.phase("validating")
        pairs = self._job.ask(self._find)
        if check_mode:
            return {**self._job.supervise(lambda: self._checked(pairs)), "job": self._job.as_result()}
        if any(pair.outcome == "sent" for pair in pairs):
            remove_old_journals(state_dir_of(self._request.transfer))
            self._job.wait_for_slot(StoreAccount.of(self._request.destination))
        try:
            return self._job.supervise(lambda: self._carry_out(pairs))
        except VmferryError as error:
            error.done = {**self._result(pairs), **error.done}
            raise

    def _find(self) -> list[Pair]:
        self._source.require_root()
        if self._request.key:
            info = self._source.stat(self._request.key)
            found = [] if info is None else [info]
        else:
            listed = self._source.list(self._request.prefix)
            # What is noted of a file goes with it.
            found = list(without_sidecars(self._source, listed) if self._from_path else listed)
        if not found:
            what = self._source.object_url(self._request.key or self._request.prefix)
            hint = "Name one object by key, or all below a name by prefix; the empty prefix is of all there are."
            raise VmferryError("not_found", f"There is no object at {what}.", hint)
        pairs = [self._pair(info) for info in found]
        keys = {pair.key for pair in pairs}
        for pair in pairs if self._to_path else ():
            if sidecar_key(pair.key) in keys:
                taken = f"{sidecar_key(pair.key)} is where the metadata of {pair.key} would be."
                raise VmferryError("invalid_config", taken, "Copy one of them by its key, to another name.")
        return pairs

    def _pair(self, info: ObjectInfo) -> Pair:
        self._job.flow.raise_if_stopped()
        key = self._request.new_key or info.key
        if self._source.object_url(info.key) == self._target.object_url(key):
            raise VmferryError(
                "invalid_config", f"{self._target.object_url(key)} is source and destination.", "Name another one."
            )
        known = known_details(self._source, info, self._from_path)[0]
        insist_on_checksum(self._source.object_url(info.key), known, self._request.checksum)
        before = self._target.stat(key)
        if before is not None and before.size == info.size and not self._request.key:
            info = self._source.stat(info.key) or info  # a list does not tell all
            known = known_details(self._source, info, self._from_path)[0]
        if before is None or self._request.overwrite == "always":
            return Pair(info, key, "sent", known, before=before)
        if self._request.overwrite == "never":
            return Pair(info, key, "left", known, before=before)
        outcome, same = self._compared(info, before, known or self._request.checksum)
        return Pair(info, key, outcome, known or same, same, before)

    def _compared(self, info: ObjectInfo, before: ObjectInfo, known: str) -> tuple[Outcome, str]:
        """Also the SHA-256 of what is there, where that is known."""
        if info.size != before.size:
            return "sent", ""
        there = known_details(self._target, before, self._to_path)[0]
        if not there and self._to_path:
            there = digest_of(StoredObject(self._target, before), self._job.flow, self._job.progress.alive)
        if known and there:
            return ("unchanged" if known == there else "sent"), there
        if info.etag and before.metadata.get(SOURCE) == info.etag and not self._request.checksum:
            return "unchanged", there
        return "sent", there

    def _checked(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        findings: list[Finding] = []
        sending = [pair for pair in pairs if pair.outcome == "sent"]
        size = sum(pair.source.size for pair in sending)
        if sending:
            try:
                self._target.probe(probe_key())
                findings += space_findings(self._target, size)
            except VmferryError as error:
                findings.append(finding_of(error))
        rows = [{**self._named(pair), "size": pair.source.size, "outcome": pair.outcome} for pair in pairs]
        found = checked(findings, {"objects": rows, "bytes_to_send": size}, *self._states(pairs))
        return {**found, "changed": found["changed"] and bool(sending)}

    def _carry_out(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        sending = [pair for pair in pairs if pair.outcome == "sent"]
        if sending:
            self._job.capabilities = self._target.probe(probe_key())
            for warning in warnings_of(space_findings(self._target, sum(pair.source.size for pair in sending))):
                self._job.warn(warning)
            self._job.phase("transferring", [(pair.key, pair.source.size) for pair in sending])
            for number, pair in enumerate(sending):
                self._send(pair, self._job.progress.disk(number))
        return self._result(pairs)

    def _send(self, pair: Pair, progress: DiskProgress) -> None:
        info = self._source.stat(pair.source.key)  # a list does not tell all
        if info is None or not is_same(info, pair.source):
            StoredObject(self._source, pair.source).insist_on_version()
            info = pair.source
        known, own = known_details(self._source, info, self._from_path)
        metadata = {**own, **({} if known or not info.etag or self._to_path else {SOURCE: info.etag})}
        relay = self._relay(pair, info, known, metadata)
        # The server may refuse what it refused before, and what was sent since would be gone by then.
        by_server = None if relay.has_begun() else self._by_server(pair, info, known, metadata, progress)
        if by_server is not None:
            if by_server["outcome"] == "sent":
                self._target.lock(pair.key)
            self._rows[pair.key] = by_server
            return
        sent = relay.run(progress)
        if sent is None and self._is_to_stay:
            self._rows[pair.key] = self._left(info)
            return
        if sent is None:
            etag = pair.before.etag if pair.before is not None else ""
            self._rows[pair.key] = {**not_told(info.size, pair.same, etag), "outcome": "unchanged", "by_server": False}
            return
        if self._to_path:
            note_metadata(self._target, sent.info, sent.sha256, own)
        self._target.lock(pair.key)
        row = told(sent, bool(known or self._request.checksum))
        self._rows[pair.key] = {**row, "outcome": "sent", "by_server": False}

    def _by_server(
        self, pair: Pair, info: ObjectInfo, known: str, metadata: dict[str, str], progress: DiskProgress
    ) -> dict[str, Any] | None:
        """Not where a checksum is asked for that nobody noted or that is noted beside a file, which may have changed
        since, and not where one is to be compared with that of a file which is there: only this host could take it.
        """
        compares = self._to_path and pair.same and self._request.overwrite == "different"
        asks = self._request.checksum and (self._from_path or not known)
        if self._request.relay or compares or asks:
            return None
        started = time.monotonic()

        def moved(count: int) -> None:
            self._job.flow.raise_if_stopped()
            progress.read(count)
            progress.settled(count)

        noted = {**metadata, **({SHA256: known} if known else {})}
        order = CopyOrder(info, pair.key, noted, moved, self._is_to_stay)
        try:
            with progress.rest():
                copied, kept = self._ordered(order)
        except VmferryError as error:
            if not self._is_to_stay or error.kind != "conflict" or self._target.stat(pair.key) is None:
                raise
            return self._left(info)
        if copied is None:
            return None
        if self._to_path:
            own = {name: value for name, value in metadata.items() if name != SOURCE}
            note_metadata(self._target, copied, known, own)
        sent = Sent(copied, known, 0, kept, time.monotonic() - started)
        return {**told(sent, False), "outcome": "sent", "by_server": True}

    def _ordered(self, order: CopyOrder) -> tuple[ObjectInfo | None, int]:
        """Also how many bytes of it the server had of an earlier run."""
        if order.info.size <= SMALL and not order.if_absent:  # one request, of which nothing is left if that fails
            return self._target.copy_within(self._source, order), 0
        window = RESUME_WINDOW if self._request.resume_window is None else self._request.resume_window
        source = self._source.object_url(order.info.key)
        with CopyNotes.of(self._job, self._target, source, order, window) as notes:
            copied = self._target.copy_within(self._source, replace(order, notes=notes))
            if copied is not None:
                notes.whole()
        return copied, notes.bytes_kept

    @property
    def _is_to_stay(self) -> bool:
        """What is there, whatever it is, also if it came while the copy was made."""
        return self._request.overwrite == "never"

    @staticmethod
    def _left(info: ObjectInfo) -> dict[str, Any]:
        return {**not_told(info.size, "", ""), "outcome": "left", "by_server": False}

    def _relay(self, pair: Pair, info: ObjectInfo, known: str, metadata: dict[str, str]) -> ObjectMove:
        wanted = Wanted(
            metadata=metadata,
            checksum=self._request.checksum,
            known=known,
            resume_window=self._request.resume_window,
            read_back=self._request.read_back,
            same=pair.same if self._request.overwrite == "different" and self._to_path else "",
            if_absent=self._is_to_stay,
        )
        target = Target(self._target, pair.key, self._to_path, takes_any_offset(self._request.destination))
        return ObjectMove(self._job, SparseObject(self._source, info), target, wanted)

    def _named(self, pair: Pair) -> dict[str, Any]:
        return {
            "source": self._source.object_url(pair.source.key),
            "key": pair.key,
            "url": self._target.object_url(pair.key),
        }

    def _result(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        rows = [self._told(pair) for pair in pairs]
        before, after = self._states(pairs)
        sent, seconds = sum(row["bytes_sent"] for row in rows), self._job.progress.snapshot()["elapsed"]
        changed = any(row["outcome"] == "sent" for row in rows)
        tell_outcome(self._job, changed)
        return {
            "changed": changed,
            "objects": rows,
            "bytes_sent": sent,
            "rate": rate(sent, seconds) if sent else 0,
            "job": self._job.as_result(),
            "diff": {"before": before, "after": after},
            "warnings": list(self._job.warnings),
        }

    def _told(self, pair: Pair) -> dict[str, Any]:
        row = self._rows.get(pair.key)
        if row is not None:
            return {**self._named(pair), **row}
        outcome = "failed" if pair.outcome == "sent" else pair.outcome
        etag = pair.before.etag if pair.before is not None else ""
        nothing = not_told(pair.source.size, pair.checksum, etag)
        return {**self._named(pair), **nothing, "outcome": outcome, "by_server": False}

    def _states(self, pairs: Sequence[Pair]) -> tuple[dict[str, Any], dict[str, Any]]:
        before = {pair.key: None if pair.before is None else {"size": pair.before.size} for pair in pairs}
        after = {pair.key: {"size": pair.source.size} if self._replaces(pair) else before[pair.key] for pair in pairs}
        return {"objects": before}, {"objects": after}

    def _replaces(self, pair: Pair) -> bool:
        row = self._rows.get(pair.key)
        return pair.outcome == "sent" and (row is None or row["outcome"] == "sent")
