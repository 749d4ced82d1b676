# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dead runs left in a store: found first, so that check mode tells what would go, and removed one by one.

Only what bears the marks of this collection, and what nobody can still be at work on: an attempt whose owner is dead or
whose lease is over, once it is not held any more for another run to go on with; or what is older than a lease by the
store's own clock where no owner is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Callable, Iterator

from ..._blocks import ObjectInfo
from ..._exports.deletion import DELETION
from ..._exports.intent import CANCEL, INTENT, JOURNAL, LEASE
from ..._exports.marks import CHECKED, OWED
from ..._exports.naming import is_export_id
from ..._exports.verifications import VERIFIED
from ..._stores.base import Store, StoreCapabilities
from ..attempts.attempt_life import is_over
from ..attempts.dead_attempts import remove_dead_attempt, remove_unreadable_attempt
from ..attempts.litter import PROBE
from .vm_folder import VmFolder

_MARKS = (CANCEL, INTENT, DELETION)


@dataclass(frozen=True)
class Orphan:
    """`remove` returns whether it is gone: an attempt that was committed after all stays."""

    kind: str
    where: str  # a URL, or a VM of the provider
    reason: str
    remove: Callable[[], object]
    size: int = 0  # bytes of the store that it takes

    def as_result(self) -> dict[str, str]:
        return {"kind": self.kind, "where": self.where, "reason": self.reason}


class StoreOrphans:
    """`now` by the store's clock."""

    def __init__(
        self, store: Store, capabilities: StoreCapabilities, now: float, warn: Callable[[str], object]
    ) -> None:
        self._store, self._capabilities, self._warn = store, capabilities, warn
        self._now, self._limit = now, now - LEASE

    def probes(self) -> Iterator[Orphan]:
        """Of the whole store."""
        for info in list(self._store.list(PROBE)):
            if self._is_old(info):
                yield self._object(info, "probe", "A run died while it tried what the store can do.")
        yield from self._uploads(PROBE, self._is_old)

    def of_vm(self, family: VmFolder) -> Iterator[Orphan]:
        alive = set(family.foldings())  # what is sent to them is of a cleanup that lives, or is the next one's to undo
        for folder, intent in list(family.unfinished()):
            alive.add(folder)  # or about to be removed as a whole
            if is_over(intent, self._now):
                reason = f"Job {intent.job_id}, which exported {intent.vm_name}, died."
                remove = partial(remove_dead_attempt, self._store, folder, self._capabilities, self._warn)
                yield Orphan("attempt", self._store.object_url(folder), reason, remove, self._size_below(folder))
        for folder in family.unreadable:
            alive.add(folder)
            info = self._store.stat(f"{folder}/{INTENT}")
            if info is not None and self._is_old(info):  # an owner that lives writes it every few seconds
                remove = partial(remove_unreadable_attempt, self._store, folder, self._capabilities, info, self._warn)
                told = "Nobody can read its intent."
                yield Orphan("attempt", self._store.object_url(folder), told, remove, self._size_below(folder))
        for info in self._marks(family):
            yield self._object(info, "mark", "It belongs to a run that is over.")
        yield from self._uploads(family.prefix, lambda info: self._is_abandoned(family.prefix, info, alive))

    def _marks(self, family: VmFolder) -> list[ObjectInfo]:
        """What nobody needs beside a manifest, and what is all there is where an export was deleted meanwhile."""
        objects: dict[str, list[tuple[str, ObjectInfo]]] = {}
        for info in self._store.list(family.prefix):
            folder, name = _split(family.prefix, info.key)
            objects.setdefault(folder, []).append((name, info))
        found = []
        for folder, inside in objects.items():
            if family.is_committed(folder):
                found += [info for name, info in inside if name in _MARKS or name.startswith(JOURNAL)]
            elif all(name in (CANCEL, CHECKED, VERIFIED) or name.startswith(OWED) for name, _info in inside):
                found += [info for _name, info in inside]
        return [info for info in found if self._is_old(info)]

    def _is_abandoned(self, prefix: str, info: ObjectInfo, alive: set[str]) -> bool:
        folder, name = _split(prefix, info.key)
        return bool(name) and folder not in alive and self._is_old(info)

    def _uploads(self, prefix: str, chosen: Callable[[ObjectInfo], bool]) -> Iterator[Orphan]:
        found: dict[str, ObjectInfo] = {}

        def note(info: ObjectInfo) -> bool:
            if chosen(info):
                found[info.key] = info
            return False

        self._store.abort_uploads(prefix, note)
        for key in sorted(found):
            again = partial(self._abort, key, chosen)
            told = "Nobody is at work on this unfinished object."
            yield Orphan("upload", self._store.object_url(key), told, again, found[key].size)

    def _abort(self, key: str, chosen: Callable[[ObjectInfo], bool]) -> None:
        self._store.abort_uploads(key, lambda info: info.key == key and chosen(info))

    def _object(self, info: ObjectInfo, kind: str, reason: str) -> Orphan:
        # Changed meanwhile, it is somebody's again.
        remove = partial(self._store.delete, info.key, if_match=info.etag)
        return Orphan(kind, self._store.object_url(info.key), reason, remove, info.size)

    def _size_below(self, folder: str) -> int:
        found = list(self._store.list(f"{folder}/"))

        def note(info: ObjectInfo) -> bool:
            found.append(info)
            return False

        self._store.abort_uploads(f"{folder}/", note)
        return sum(info.size for info in found)

    def _is_old(self, info: ObjectInfo) -> bool:
        return info.modified < self._limit


def _split(prefix: str, key: str) -> tuple[str, str]:
    """The export's folder, and what is below it; '' for what is in no export's folder."""
    name, _slash, rest = key[len(prefix) :].partition("/")
    return (prefix + name, rest) if is_export_id(name) else ("", "")
