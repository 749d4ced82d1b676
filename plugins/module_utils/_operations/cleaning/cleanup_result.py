# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cleanup did, told as it happens, so that a failure in the middle loses nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable, Sequence

from ..._errors import Kind, VmferryError
from ..._exports.catalog import BrokenEntry, CatalogEntry
from ..._exports.intent import Intent
from ..._exports.naming import iso_time
from ..._exports.retention_rules import Decision
from ..._stores.base import Store
from .orphans import Orphan

if TYPE_CHECKING:
    from .fold_export import Merged


class CleanupResult:
    """In check mode nothing is removed, and what would be is told in the same places."""

    def __init__(self, store: Store, check_mode: bool) -> None:
        self._store, self._check_mode = store, check_mode
        self._entries: dict[str, CatalogEntry] = {}
        self._broken: Sequence[BrokenEntry] = ()
        self._decisions: dict[str, Decision] = {}
        self._deleted: dict[str, Decision] = {}
        self._merged: list[dict[str, Any]] = []
        self._grown = 0  # bytes that exports take more since others were merged into them
        self._orphans: list[dict[str, str]] = []
        self._held: list[dict[str, str]] = []
        self.would_be_free = 0  # bytes that check mode has not freed
        self._failed: list[tuple[str, VmferryError]] = []
        self._warnings: list[str] = []
        self.gave_up: VmferryError | None = None  # the store is not there: what else there is to do is not tried

    def warn(self, message: str) -> None:
        if message not in self._warnings:
            self._warnings.append(message)

    def start(
        self, entries: Iterable[CatalogEntry], broken: Sequence[BrokenEntry], decisions: Iterable[Decision]
    ) -> None:
        self._entries = {entry.folder: entry for entry in entries}
        self._broken = broken
        self._decisions = {one.candidate.key: one for one in decisions}

    def keep(self, decision: Decision) -> None:
        self._decisions[decision.candidate.key] = decision

    def drop(self, decision: Decision) -> None:
        """It is gone, and was not deleted here."""
        del self._decisions[decision.candidate.key]

    def delete(self, decision: Decision) -> None:
        self._deleted[decision.candidate.key] = decision

    def merge(self, into: CatalogEntry, merged: Sequence[CatalogEntry], how: Merged) -> None:
        self._grown += how.grown
        self._merged.append(
            {
                "id": into.manifest.export_id,
                "exports": [entry.manifest.export_id for entry in merged],
                "bytes_read": how.bytes_read,
                "bytes_written": how.bytes_written,
            }
        )

    def insist(self) -> None:
        """That all went that was looked at."""
        for one in self._decisions.values():
            if one.action == "keep":
                kind: Kind = "busy" if one.rule == "in_use" else "conflict"
                self.fail(one.candidate.key, VmferryError(kind, f"{one.candidate.export_id} stays. {one.reason}"))

    def fail(self, folder: str, error: VmferryError) -> None:
        self._note_failure(self._store.object_url(folder), error)

    def hold(self, folder: str, intent: Intent) -> None:
        """An export whose run died, and that the next one may go on with."""
        self._held.append(
            {
                "export": intent.export_id,
                "vm": intent.vm_name,
                "url": self._store.object_url(folder),
                "until": iso_time(intent.held_until),
            }
        )

    def remove(self, orphan: Orphan) -> None:
        told = orphan.as_result()
        if self._check_mode:
            self.would_be_free += orphan.size
        else:
            try:
                became = orphan.remove()
            except VmferryError as error:
                if error.kind not in ("busy", "conflict"):  # somebody is at work on it after all
                    self._note_failure(orphan.where, error)
                return
            if became is False:
                return
            if isinstance(became, str) and became:
                told["reason"] = became
        self._orphans.append(told)

    def remove_each(self, where: str, orphans: Iterable[Orphan]) -> None:
        try:
            for orphan in orphans:
                self.remove(orphan)
        except VmferryError as error:  # of looking for them
            self._note_failure(where, error)

    def _note_failure(self, where: str, error: VmferryError) -> None:
        self._failed.append((where, error))
        if error.retryable and error.kind != "busy":  # it was tried again already
            self.gave_up = error

    def finish(self) -> dict[str, Any]:
        """Raises where anything failed; the error carries the result."""
        result = self._as_result()
        if not self._failed:
            return result
        where, first = self._failed[0]
        more = f", and {len(self._failed) - 1} more failed" if len(self._failed) > 1 else ""
        raised = VmferryError(
            first.kind,
            f"{where} could not be cleaned up{more}: {first}",
            first.hint or "What was done until then is in the result. Run the task again.",
            retryable=first.retryable,
            phase="deleting",
        )
        raised.done = result
        raise raised from first

    def so_far(self) -> dict[str, Any]:
        """Where something else ends the task. Empty where nothing was done."""
        result = self._as_result()
        return result if result["changed"] else {}

    def _as_result(self) -> dict[str, Any]:
        before = [one.candidate.export_id for one in self._decisions.values()]
        deleted = [one for key, one in self._decisions.items() if key in self._deleted]
        after = [one.candidate.export_id for key, one in self._decisions.items() if key not in self._deleted]
        return {
            "changed": bool(deleted or self._merged or self._orphans),
            "exports": [self._export(one) for one in self._decisions.values()],
            "deleted": [one.candidate.export_id for one in deleted],
            "freed": max(0, sum(one.candidate.size for one in deleted) - self._grown),
            "merged": self._merged,
            "orphans": self._orphans,
            "held": self._held,
            "failures": [{"where": where, "msg": str(error), "kind": error.kind} for where, error in self._failed],
            "broken": [{"url": self._store.object_url(one.folder), "msg": str(one.error)} for one in self._broken],
            "diff": {"before": {"exports": before}, "after": {"exports": after}},
            "warnings": list(self._warnings),
        }

    def _export(self, decision: Decision) -> dict[str, Any]:
        one = decision.candidate
        made = self._entries[one.key].manifest
        return {
            "id": one.export_id,
            "name": one.name,
            "url": self._store.object_url(one.key),
            "vm": {"id": made.machine.id, "name": made.machine.name, "provider": made.machine.provider},
            "tags": list(one.tags),
            "purpose": made.purpose,
            "taken_at": iso_time(one.taken_at),
            "size": one.size,
            "parent": made.parent,
            "action": decision.action,
            "into": [key.rpartition("/")[2] for key in decision.into],
            "rule": decision.rule,
            "reason": decision.reason,
        }
