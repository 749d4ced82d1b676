# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `export_cleanup` does: deletes what no limit allows and no protection spares, and what dead runs left."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence

from .._errors import VmferryError
from .._exports.catalog import BrokenEntry, Catalog, CatalogEntry
from .._exports.intent import LEASE, Intent
from .._exports.marks import read_pin
from .._exports.naming import attempt_of, is_export_id, may_be_folder_of
from .._exports.retention import decide, unmet, without_sound
from .._exports.retention_rules import Candidate, Decision
from .._exports.verifications import read_verifications
from .._providers.open import open_provider
from .._stores.base import Store, StoreCapabilities
from .._stores.open import open_store
from .._stores.retrying import RetryingStore
from .._transfer.retry import Retry, RetryPolicy
from .attempts.attempt_life import is_dead, is_over
from .attempts.litter import probe_key, time_of_store
from .attempts.owed_starts import owed_starts
from .cleaning.cleanup_result import CleanupResult
from .cleaning.guests_to_start import guests_to_start
from .cleaning.merge_exports import Merging
from .cleaning.orphans import Orphan, StoreOrphans
from .cleaning.provider_orphans import StoreView, provider_orphans
from .cleaning.remove_export import ExportRemover
from .cleaning.vm_folder import VmFolder, who_makes
from .jobs.requests import CleanupRequest
from .stored.locked_exports import locked_exports
from .stored.stored_bytes import stored_bytes

if TYPE_CHECKING:
    from .cleaning.fold_export import Merger


def clean_up_exports(request: CleanupRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`, which carries the result where something was done."""
    with closing(open_store(request.store.url, request.store.settings)) as store:
        return _CleanUp(request, RetryingStore(store, Retry(RetryPolicy())), check_mode).run()


class _CleanUp:
    def __init__(self, request: CleanupRequest, store: Store, check_mode: bool) -> None:
        self._request, self._store, self._check_mode = request, store, check_mode
        self._catalog = Catalog(store, request.seals)
        self._result = CleanupResult(store, check_mode)
        self._gone: list[CatalogEntry] = []
        self._dead: list[Intent] = []

    def run(self) -> dict[str, Any]:
        try:
            return self._run()
        except VmferryError as error:
            error.done = error.done or self._result.so_far()
            raise

    def _run(self) -> dict[str, Any]:
        self._store.require_root()
        self._free_space()  # a store that cannot tell is refused before anything is removed
        self._capabilities, self._now = self._look_at_store()
        entries, broken = self._look()
        if self._resume():
            entries, broken = self._look()
        if self._request.orphans:
            self._remove_orphans(entries)  # before whole exports are deleted for the room that these take
        free = self._free_space()
        candidates, decisions = self._decide(entries, broken, free)
        self._result.start(entries, broken, decisions)
        for sentence in [*unmet(decisions, self._request.limits, free), *without_sound(decisions, candidates)]:
            self._result.warn(sentence)
        self._delete(entries, decisions)
        if self._request.limits.exports is not None:
            self._result.insist()
        if self._request.orphans:
            self._remove_orphans_of_provider()
        return self._result.finish()

    def _look_at_store(self) -> tuple[StoreCapabilities, float]:
        """And the time: the earlier one, where the clocks differ, since it makes exports younger."""
        capabilities = self._store.probe(probe_key())
        stored, here = time_of_store(self._store), time.time()
        if abs(here - stored) > LEASE:
            told = f"The clocks of this host and of {self._store.url} differ by {abs(here - stored):.0f} seconds."
            self._result.warn(f"{told} The earlier one counts.")
        return capabilities, min(here, stored)

    def _look(self) -> tuple[list[CatalogEntry], list[BrokenEntry]]:
        """Every export, whatever is asked for: it may stand on one that is. One `VmFolder` for each VM's folder."""
        entries, broken = self._catalog.read()
        if "" in [*(entry.folder for entry in entries), *(one.folder for one in broken)]:
            raise VmferryError(
                "invalid_config",
                f"{self._store.url} is one export, so what stands on it cannot be seen.",
                "Set url to the store, and use the filters.",
            )
        names = list(self._store.list_folders(""))
        homes = {"" if is_export_id(name) else name for name in names}
        self._families = {home: self._family(home, entries) for home in sorted(homes)}
        return entries, broken

    def _family(self, home: str, entries: Iterable[CatalogEntry]) -> VmFolder:
        mine = [entry for entry in entries if _home(entry.folder) == home]
        return VmFolder(self._store, self._capabilities, home, mine, self._result.warn, self._now)

    def _free_space(self) -> int:
        if self._request.limits.min_free is None:
            return 0
        free = self._store.free_space()
        if free is None:
            raise VmferryError(
                "invalid_config",
                f"min_free is set, and {self._store.url} cannot tell how much is free.",
                "Use max_total_size instead.",
            )
        return free + self._result.would_be_free

    def _decide(
        self, entries: Sequence[CatalogEntry], broken: Sequence[BrokenEntry], free: int
    ) -> tuple[list[Candidate], tuple[Decision, ...]]:
        candidates, asked = self._candidates(entries, broken), self._request
        decisions = decide(candidates, asked.limits, asked.protections, self._now, free, asked.merge)
        # Only of what would go: to ask costs a request for each object. What is spared then changes no mark.
        locked = locked_exports(self._store, decisions, entries)
        if locked:
            candidates = [replace(one, locked=locked.get(one.key, "")) for one in candidates]
            decisions = decide(candidates, asked.limits, asked.protections, self._now, free, asked.merge)
        return candidates, decisions

    def _candidates(self, entries: Sequence[CatalogEntry], broken: Sequence[BrokenEntry]) -> list[Candidate]:
        in_use = self._in_use()
        for family in self._families.values():
            for error in family.unreadable.values():
                self._result.warn(
                    f"{error} No export of its VM is deleted meanwhile. If it is an intent, orphans removes it once "
                    "nobody has written it for five minutes; else look at its folder."
                )
                for entry in entries:
                    if _home(entry.folder) == family.home:
                        in_use.setdefault(entry.folder, f"It may be what an unfinished export stands on. {error}")
        for entry in entries:
            for one in broken:
                if _home(one.folder) == _home(entry.folder):
                    name = one.folder.rpartition("/")[2]
                    told = f"The manifest of {name} cannot be read or trusted, and it may stand on this one."
                    in_use.setdefault(entry.folder, told)
        return [self._candidate(entry, in_use.get(entry.folder, "")) for entry in entries]

    def _in_use(self) -> dict[str, str]:
        """By folder of the parent: what is being made of it right now."""
        found = {}
        for family in self._families.values():
            found.update(family.taken_by_merges())
            for _folder, intent in family.unfinished():
                if intent.parent and not is_over(intent, self._now):
                    found[family.prefix + intent.parent] = who_makes(intent)
        return found

    def _candidate(self, entry: CatalogEntry, in_use: str) -> Candidate:
        made, looked_at = entry.manifest, self._is_looked_at(entry)
        home = _home(entry.folder)
        return Candidate(
            key=entry.folder,
            export_id=made.export_id,
            vm_id=f"{made.machine.provider} {made.machine.id}",
            vm_name=made.machine.name,
            taken_at=made.taken_at,
            size=stored_bytes(made),
            name=made.name,
            tags=made.tags,
            disks=frozenset(f"{disk.id} {disk.name}" for disk in made.disks),
            whole=made.all_disks,
            parent=(f"{home}/{made.parent}" if home else made.parent) if made.parent else "",
            pin=read_pin(self._store, entry) if looked_at else None,
            in_use=in_use,
            damaged=self._counts(entry) and bool(read_verifications(self._store, entry).damage),
            looked_at=looked_at,
        )

    def _counts(self, entry: CatalogEntry) -> bool:
        """How many there are is asked of these VMs; what is looked at may stand on what is not."""
        return self._request.limits.exports is None and (not self._request.vm or self._is_of_vm(entry))

    def _is_looked_at(self, entry: CatalogEntry) -> bool:
        made, wanted = entry.manifest, self._request
        return (
            (not wanted.vm or made.machine.name in wanted.vm or made.machine.id in wanted.vm)
            and set(wanted.tags) <= set(made.tags)
            and wanted.purpose in ("", made.purpose)
            and (wanted.limits.exports is None or made.export_id in wanted.limits.exports)
        )

    def _resume(self) -> bool:
        """What earlier runs began, whatever this one is asked for: half an export is no use to anybody."""
        resumed = False
        for family in self._families.values():
            for folder, folding in list(family.merges()):
                if is_dead(folding.claim, self._now):
                    self._result.remove(self._merger_of(folder).dead_merge(folder))
                    resumed = not self._check_mode
            remover = self._remover(family)
            for folder in list(family.deletions()):
                if self._is_resumable(family, remover, folder):
                    reason = "A run that was deleting it died."
                    orphan = Orphan("deletion", self._store.object_url(folder), reason, _resuming(remover, folder))
                    self._result.remove(orphan)
                    resumed = not self._check_mode
        return resumed

    def _is_resumable(self, family: VmFolder, remover: ExportRemover, folder: str) -> bool:
        try:
            return remover.is_resumable(folder)
        except VmferryError as error:
            if error.kind != "invalid_config":
                raise
            family.unreadable[folder] = error
            return False

    def _delete(self, entries: Sequence[CatalogEntry], decisions: Sequence[Decision]) -> None:
        """What stands on others goes before them, so that no export is without its parent at any moment."""
        by_folder = {entry.folder: entry for entry in entries}
        merged = Merging(self._result, self._merger_of, self._check_mode).run(decisions, by_folder)
        doomed = [one for one in decisions if one.action == "delete" or one.candidate.key in merged]
        depths = _depths(doomed)
        for one in sorted(doomed, key=lambda one: (-depths[one.candidate.key], one.candidate.taken_at)):
            entry = by_folder[one.candidate.key]
            if self._check_mode:
                self._gone.append(entry)
                self._result.delete(one)
            elif self._result.gave_up is not None:
                self._result.fail(entry.folder, self._result.gave_up)
            else:
                self._delete_one(entry, one)

    def _delete_one(self, entry: CatalogEntry, decision: Decision) -> None:
        family = self._families[_home(entry.folder)]
        try:
            pin = read_pin(self._store, entry)
            stays = "It was pinned meanwhile." if pin is not None else self._remover(family).remove(entry.folder)
        except VmferryError as error:
            if error.kind == "not_found":  # another run was faster
                self._result.drop(decision)
            elif error.kind == "busy":
                self._result.keep(replace(decision, action="keep", rule="in_use", reason=str(error), into=()))
            else:
                self._result.fail(entry.folder, error)
        else:
            if stays:
                rule = "pinned" if pin is not None else "in_use"
                self._result.keep(replace(decision, action="keep", rule=rule, reason=stays, into=()))
            else:
                self._gone.append(entry)
                self._result.delete(decision)

    def _remover(self, family: VmFolder) -> ExportRemover:
        return ExportRemover(self._store, self._capabilities, family, self._result.warn)

    def _merger_of(self, folder: str) -> Merger:
        # A module is compiled anew at every start, and most of what it takes to merge only a few need.
        from .cleaning.fold_export import Merger

        family = self._families[_home(folder)]
        return Merger(self._store, self._capabilities, family, self._result.warn, self._request.seals)

    def _remove_orphans(self, entries: Sequence[CatalogEntry]) -> None:
        mine = {_home(entry.folder) for entry in entries if not self._request.vm or self._is_of_vm(entry)}
        found = StoreOrphans(self._store, self._capabilities, self._now, self._result.warn)
        self._result.remove_each("unfinished probes", found.probes())
        for home, family in self._families.items():
            if self._request.vm and home and home not in mine and not self._may_be_ours(home):
                continue
            for folder, intent in family.unfinished():
                if is_over(intent, self._now):
                    self._dead.append(intent)
                elif is_dead(intent, self._now):
                    self._result.hold(folder, intent)
            self._result.remove_each(self._store.object_url(home), found.of_vm(family))

    def _remove_orphans_of_provider(self) -> None:
        """Now that it is known which exports are gone."""
        spec = self._request.provider
        if spec is None:
            for owed in owed_starts(self._store):
                self._result.warn(f"{owed.reason} With its provider, it is started again if it is still off.")
        else:
            with closing(open_provider(spec.name, spec.settings)) as provider:
                orphans = provider_orphans(provider, self._request.vm, self._view, self._check_mode)
                self._result.remove_each(f"the provider {spec.name}", orphans)
                starts = guests_to_start(provider, self._store, self._request.vm)
                self._result.remove_each(f"VMs of {spec.name} that were shut down", starts)
                for owed in owed_starts(self._store):
                    if not owed.is_at(provider):
                        self._result.warn(owed.elsewhere)

    def _is_of_vm(self, entry: CatalogEntry) -> bool:
        return bool({entry.manifest.machine.name, entry.manifest.machine.id} & set(self._request.vm))

    def _may_be_ours(self, home: str) -> bool:
        return any(may_be_folder_of(vm, home) for vm in self._request.vm)

    def _view(self) -> StoreView:
        """The intents before the manifests: what commits in between is seen twice, and never not at all."""
        intents = [intent for family in self._families.values() for _folder, intent in family.unfinished()]
        unreadable = [folder for family in self._families.values() for folder in family.unreadable]
        entries, broken = self._catalog.read()
        gone = {entry.folder for entry in self._gone}  # in check mode they are still there
        alive = {intent.export_id for intent in intents if not is_over(intent, self._now)}
        dead = {intent.export_id for intent in [*self._dead, *intents]} - alive
        return StoreView(
            entries=[entry for entry in entries if entry.folder not in gone],
            kept_attempts=frozenset(map(attempt_of, [*alive, *unreadable, *(one.folder for one in broken)])),
            dead_attempts=frozenset(map(attempt_of, [*dead, *gone])),
            gone_chains=frozenset(entry.manifest.chain_id for entry in self._gone),
        )


def _resuming(remover: ExportRemover, folder: str) -> Callable[[], object]:
    return lambda: remover.resume(folder)


def _depths(decisions: Sequence[Decision]) -> dict[str, int]:
    """How many exports lie below each, among these."""
    parents = {one.candidate.key: one.candidate.parent for one in decisions}
    depths = {}
    for key in parents:
        below, seen = parents[key], {key}
        while below in parents and below not in seen:
            seen.add(below)
            below = parents[below]
        depths[key] = len(seen)
    return depths


def _home(folder: str) -> str:
    return folder.rpartition("/")[0]
