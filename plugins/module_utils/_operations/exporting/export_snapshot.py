# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export of a snapshot: of one that is there and stays, or of one that is made for it.

It is not the newest state of its VM, and no provider can say what changed since. So it never begins what a tracked
increment stands on: all of it is read, and what differs from an earlier export by digests is stored.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from typing import Callable, ContextManager, Iterator, Mapping, Sequence

from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.naming import new_attempt, parse_iso_time
from ..._providers.base import ExportSession, Provider
from ..._providers.finding import Finding
from ..._providers.job import Job
from ..._providers.snapshot_choice import DEFAULT_NAME, filled, in_removal_order, surplus
from ..._providers.snapshots import Quiesce, SnapshotWish
from ..._providers.spec import DiskSpec, VmSpec
from ..._transfer.failpoints import failpoint
from ..jobs.requests import ExportRequest
from ..jobs.running_job import RunningJob
from .export_base import has_same_disks

CREATION_TIME = 600.0  # seconds
REMOVAL_TIME = 3600.0  # seconds; what the guest wrote meanwhile is merged
QUIESCE: Mapping[str, Quiesce] = {"quiesced": "required", "crash_consistent": "never"}


class ExportedSnapshot:
    def __init__(self, request: ExportRequest, provider: Provider, vm: VmSpec, job: RunningJob) -> None:
        """Raises `unsupported` where the provider has no snapshots, `invalid_config` for a name it cannot have."""
        if request.snapshot is None:
            raise ValueError("no snapshot is asked for")
        self._request, self._options, self._provider, self._vm, self._job = request, request.snapshot, provider, vm, job
        self._service = provider.snapshots(vm)
        now = datetime.now(timezone.utc)
        self.name = self._options.source or filled(self._options.name or DEFAULT_NAME, vm.name, job.id, now)
        self._before = list(self._service.list())
        self._present = next((one for one in self._before if one.name == self.name), None)

    def satisfying_export(
        self, disks: Sequence[DiskSpec], existing: Sequence[CatalogEntry], damage: Callable[[CatalogEntry], str]
    ) -> CatalogEntry | None:
        """That was made of this very snapshot, as it is asked for now. The newest, should there be several.

        `damage`: what is known of it, or ''.
        """
        if not self._options.source or self._present is None:
            return None
        taken_at = parse_iso_time(self._present.created)
        found = [
            entry
            for entry in existing
            if entry.manifest.snapshot == self.name
            and int(entry.manifest.taken_at) == int(taken_at)
            and has_same_disks(entry, disks)
            and self._is_as_asked(entry)
            and not damage(entry)
        ]
        return found[-1] if found else None

    def to_stand_on(self, existing: Sequence[CatalogEntry]) -> list[CatalogEntry]:
        """Exports of no later moment: an increment looks back."""
        until = time.time() if self._present is None else parse_iso_time(self._present.created)
        return [entry for entry in existing if entry.manifest.taken_at <= until]

    def findings(self, disks: Sequence[DiskSpec]) -> list[Finding]:
        if not self._provider.exports_snapshots:  # so that none is made in vain
            return list(self._provider.check_snapshot_export(self._vm, disks, self.name))
        if self._options.source:
            return self._of_source(disks)
        found = self._of_state()
        if self._present is not None:
            hint = "Give the new one another name, or export that one with snapshot.source."
            found.append(Finding("error", f"{self._vm.name} has a snapshot {self.name}.", hint, "conflict"))
            return found
        return [*found, *self._service.check_create(self._wish())]

    @contextmanager
    def session(self, disks: Sequence[DiskSpec], owner: Job) -> Iterator[ExportSession]:
        if self._options.source:
            with self._provider.open_snapshot_export(self._vm, disks, self.name, owner) as session:
                yield session
            return
        warnings = self._service.create(self._wish(), replace(owner, attempt=new_attempt()), CREATION_TIME)
        for warning in warnings:
            self._job.warn(warning)
        failpoint("snapshot_for_export")
        done = False
        try:
            with self._provider.open_snapshot_export(self._vm, disks, self.name, owner) as session:
                yield session
            done = True
        finally:
            self._leave(owner, keep=self._options.keep if done else 0)

    def reopened(
        self, disks: Sequence[DiskSpec], owner: Job, reference: Mapping[str, str]
    ) -> ContextManager[ExportSession]:
        return self._provider.open_snapshot_export(self._vm, disks, self.name, owner, reference)

    def _leave(self, owner: Job, keep: int) -> None:
        if not keep:
            failpoint("snapshot_to_remove")
            with self._job.undoing(f"The snapshot {self.name} of {self._vm.name}"):
                self._remove(self.name, owner)
            return
        with self._job.undoing(f"Older snapshots of {self._vm.name}"):
            for snapshot in in_removal_order(surplus(self._service.list(), keep)):
                self._remove(snapshot.name, owner)
                self._job.log("info", f"Removed the snapshot {snapshot.name} of {self._vm.name}.")

    def _remove(self, name: str, owner: Job) -> None:
        for finding in self._service.check_remove(name):
            if finding.severity == "error":
                raise VmferryError(finding.kind or "conflict", finding.message, finding.hint)  # type: ignore[arg-type]
        self._service.remove(name, replace(owner, attempt=new_attempt()), REMOVAL_TIME)

    def _wish(self) -> SnapshotWish:
        quiesce = QUIESCE.get(self._request.consistency, "auto")
        return SnapshotWish(self.name, self._options.memory, quiesce, temporary=not self._options.keep)

    def _of_source(self, disks: Sequence[DiskSpec]) -> list[Finding]:
        found = list(self._provider.check_snapshot_export(self._vm, disks, self.name))
        wanted, known = self._request.consistency, self._present
        if known is not None and wanted != "auto" and wanted != self._provider.consistency_of(known):
            text = f"The snapshot {self.name} is {self._provider.consistency_of(known)}, not {wanted}."
            found.append(Finding("error", text, "Choose another snapshot, or consistency: auto.", "conflict"))
        return found

    def _of_state(self) -> list[Finding]:
        off = self._vm.power_state in ("powered_off", "crashed")
        if off or self._request.consistency != "powered_off":
            return []
        text = f"{self._vm.name} is {self._vm.power_state}, not powered_off."
        return [Finding("error", text, "Shut it down first.", "conflict")]

    def _is_as_asked(self, entry: CatalogEntry) -> bool:
        request, made = self._request, entry.manifest
        return (
            made.format == request.format
            and request.mode in ("auto", made.mode)
            and request.consistency in ("auto", made.consistency)
            and request.name in ("", made.name)
            and set(request.tags) <= set(made.tags)
            and request.purpose in ("", made.purpose)
        )


def tracked_first(existing: Sequence[CatalogEntry]) -> Sequence[CatalogEntry]:
    """What an export of the VM itself stands on: exports of snapshots know nothing of changes, so others come first."""
    return [entry for entry in existing if not entry.manifest.snapshot] or existing


def other_point_in_time(request: ExportRequest, reference: Mapping[str, str]) -> str:
    """Why an unfinished export with this reference is not of what is asked for; '' where it is."""
    options, held = request.snapshot, reference.get("snapshot", "")
    if options is not None and not options.source:
        return "a new snapshot was asked for"
    wanted = "" if options is None else options.source
    if held == wanted:
        return ""
    return f"it is of the snapshot {held}" if held else "it is of no snapshot"
