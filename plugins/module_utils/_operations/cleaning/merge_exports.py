# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of a cleanup that merges exports into those that stand on them, before they are deleted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Callable, Iterable, Mapping, Sequence

from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.retention_rules import Decision
from ..stored.image_formats import image_bound
from ..stored.stored_disk import Locked
from .cleanup_result import CleanupResult

if TYPE_CHECKING:
    from .fold_export import Merged, Merger


@dataclass(frozen=True)
class Task:
    """`merged`: what goes, oldest first, each the parent of the next, the last one that of `into`."""

    into: CatalogEntry
    merged: tuple[CatalogEntry, ...]


def tasks_of(decisions: Iterable[Decision], by_folder: Mapping[str, CatalogEntry]) -> list[Task]:
    runs: dict[str, list[Decision]] = {}
    for one in decisions:
        for target in one.into if one.action == "merge" else ():
            runs.setdefault(target, []).append(one)
    return [Task(by_folder[target], _in_order(target, runs[target], by_folder)) for target in sorted(runs)]


def _in_order(target: str, run: Iterable[Decision], by_folder: Mapping[str, CatalogEntry]) -> tuple[CatalogEntry, ...]:
    """As the chain has them, whatever the clock said."""
    candidates = {one.candidate.key: one.candidate for one in run}
    home, parent = target.rpartition("/")[0], by_folder[target].manifest.parent
    found: list[CatalogEntry] = []
    key = f"{home}/{parent}" if home else parent
    while key in candidates:
        found.append(by_folder[key])
        key = candidates.pop(key).parent
    return tuple(reversed(found))


class Merging:
    """`done` has the keys of exports that nothing stands on any more."""

    def __init__(self, result: CleanupResult, merger: Callable[[str], Merger], check_mode: bool) -> None:
        """`merger`: of the VM's folder that holds an export."""
        self._result, self._merger, self._check_mode = result, merger, check_mode

    def run(self, decisions: Sequence[Decision], by_folder: Mapping[str, CatalogEntry]) -> set[str]:
        by_key = {one.candidate.key: one for one in decisions}
        done = {key for key, one in by_key.items() if one.action == "merge"}
        for task in tasks_of(decisions, by_folder):
            rule = "in_use"
            try:
                stays = self._merge(task)
            except Locked:
                rule, stays = "encrypted", "What stands on it is encrypted, and the task has no passphrase for it."
            for entry in task.merged if stays is not None else ():
                done.discard(entry.folder)
                if stays:
                    kept = replace(by_key[entry.folder], action="keep", rule=rule, reason=stays, into=())
                    self._result.keep(kept)
        return done

    def _merge(self, task: Task) -> str | None:
        """None where all of it can go; a sentence where it stays, '' where that is told as a failure.

        Raises `Locked`.
        """
        if self._result.gave_up is not None:
            self._result.fail(task.into.folder, self._result.gave_up)
            return ""
        try:
            merger = self._merger(task.into.folder)
            if self._check_mode:
                merger.insist_on_store(task.into)
                merger.insist_on_seals(task.into, task.merged)
                self._result.merge(task.into, task.merged, foreseen(task))
                return None
            merged = merger.merge(task.into, task.merged)
        except Locked:
            raise
        except VmferryError as error:
            if error.kind in ("busy", "not_found"):  # another run is at it, or was faster
                return str(error)
            self._result.fail(task.into.folder, error)
            return ""
        if merged.done:
            self._result.merge(task.into, task.merged, merged)
        return merged.stays or None


def foreseen(task: Task) -> Merged:
    """Upper bounds: what a layer hides is neither read nor written."""
    from .fold_export import Merged

    read = written = 0
    for disk in task.into.manifest.disks:
        stored = disk.bytes_stored
        for entry in task.merged:
            stored += sum(one.bytes_stored for one in entry.manifest.disks if one.id == disk.id)
        read += stored
        written += min(stored, image_bound(disk.format, disk.size, disk.size, bool(disk.key_nonce)))
    before = sum(disk.bytes_stored for disk in task.into.manifest.disks)
    return Merged(done=True, bytes_read=read, bytes_written=written, grown=written - before)
