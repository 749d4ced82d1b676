# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a store, read from the store itself: no catalog file exists that could go stale.

`<url>/<vm folder>/<export id>/manifest.json`. The URL may also be one VM's folder, or one export.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Callable, FrozenSet, Iterable, Iterator, Optional, Protocol

from .._errors import VmferryError
from .intent import INTENT, Intent, read_intent
from .manifest import MANIFEST, MANIFEST_LIMIT, Manifest, read_manifest
from .naming import is_export_id, iso_time, may_be_folder_of, vm_folder
from .seals import UNCHECKED
from .signing import Trust, Untrusted

CLOCK_SKEW = 300.0  # seconds between two hosts' clocks that are not worth a word


class Shelf(Protocol):
    """As much of a store as a catalog needs."""

    def get(self, key: str, limit: int = ...) -> bytes: ...

    def list_folders(self, prefix: str) -> Iterator[str]: ...

    def object_url(self, key: str) -> str: ...


@dataclass(frozen=True)
class CatalogEntry:
    """A committed export and the folder it lies in: a key without `/` at its end, empty for the URL itself.

    `folded`: the manifest that it will have, where its parents are being merged into it; `replaced`: the disks whose
    images are of that one already. `trust`: whom its manifest had to be signed by, and those have to be that are read
    because of it.
    """

    folder: str
    manifest: Manifest
    folded: Optional[Manifest] = None
    replaced: FrozenSet[str] = frozenset()
    trust: Trust = field(default=UNCHECKED, compare=False, repr=False)

    def key(self, file: str) -> str:
        return f"{self.folder}/{file}" if self.folder else file

    @property
    def home(self) -> str:
        """The VM's folder; empty where the URL itself is one VM's or one export."""
        return _home(self.folder)


@dataclass(frozen=True)
class BrokenEntry:
    """A manifest that cannot be read or trusted."""

    folder: str
    error: VmferryError


def tips(entries: Iterable[CatalogEntry]) -> list[CatalogEntry]:
    """Those that none of them stands on: what does was taken later, whatever the clocks said."""
    found = list(entries)
    parents = {(entry.manifest.machine.id, entry.manifest.parent) for entry in found}
    return [entry for entry in found if (entry.manifest.machine.id, entry.manifest.export_id) not in parents]


def newest(entries: Iterable[CatalogEntry], now: float) -> CatalogEntry | None:
    """What is later than `now` was taken while a clock was wrong, and comes last: it would be the newest until then."""
    return max(tips(entries), key=lambda entry: (entry.manifest.taken_at <= now, *_age(entry)), default=None)


class Catalog:
    def __init__(self, shelf: Shelf, trust: Trust = UNCHECKED) -> None:
        self._shelf, self._trust = shelf, trust

    def read(self, vm: str = "") -> tuple[list[CatalogEntry], list[BrokenEntry]]:
        """Committed exports, oldest first within a VM, and what is broken; `vm` is a name, an id, or empty for all."""
        return self._read_all(self._all_exports(), vm)

    def at(self, folder: str) -> CatalogEntry | None:
        """What lies there, whosever it is; None where nothing does, or what is broken."""
        return next(iter(self._read_all(iter([folder]))[0]), None)

    def of_vm(self, uuid: str, untrusted: Callable[[Untrusted], object] = lambda error: None) -> list[CatalogEntry]:
        """This VM's committed exports, oldest first, whatever it was called when they were made. `untrusted` is told
        of those that are left out because of their signatures."""
        whole, broken = self._read_all(self._exports_of(uuid))
        for one in broken:
            if isinstance(one.error, Untrusted):
                untrusted(one.error)
        return [entry for entry in whole if entry.manifest.machine.id == uuid]

    def folder_for(self, name: str, uuid: str) -> str:
        """Where the next full export of this VM goes: where the last one went, even if the VM had another name then."""
        last = newest(self.of_vm(uuid), time.time())
        return last.home if last is not None else vm_folder(name, uuid)

    def find(self, export: str = "", vm: str = "") -> CatalogEntry:
        """One export, by id or name, or else the newest; `not_found`, or `conflict` where several VMs fit, or where a
        clock was wrong and several exports could be the newest.

        A broken manifest is never passed over in silence for an older export.
        """
        found = self.search(export, vm)
        if isinstance(found, BrokenEntry):
            raise found.error
        return found

    def search(self, export: str = "", vm: str = "") -> CatalogEntry | BrokenEntry:
        """As `find`; of a broken one, whose it is, its folder tells."""
        whole, broken = self.read(vm)
        found = [entry for entry in whole if export in ("", entry.manifest.export_id, entry.manifest.name)]
        last = tips(found)
        best = max(last, key=_age, default=None)
        if len({entry.manifest.machine.id for entry in found}) > 1:
            raise VmferryError(
                "conflict",
                f"Exports of more than one VM in {self._shelf.object_url('')} fit.",
                "Say which VM with vm, or give the export's id.",
            )
        homes = {_home(entry.folder) for entry in whole}
        for entry in sorted(broken, key=lambda one: _name(one.folder), reverse=True):  # of the newest, if of several
            name, home = _name(entry.folder), _home(entry.folder)
            of_vm = vm == "" or home == "" or home in homes or may_be_folder_of(vm, home)
            if export == name or (export == "" and of_vm and (best is None or name > best.manifest.export_id)):
                return entry
        if best is not None and len(last) > 1 and best.manifest.taken_at > time.time() + CLOCK_SKEW:
            raise VmferryError(
                "conflict",
                f"Nobody can tell which export is the newest: {best.manifest.export_id} of "
                f"{best.manifest.machine.name} was taken at {iso_time(best.manifest.taken_at)}, which is yet to come.",
                "A clock is wrong, or was. Give the export's id.",
            )
        if best is None:
            for entry in broken:
                if entry.error.kind == "unauthenticated":  # it may have the name
                    return entry
            what = " ".join(["an export", *([repr(export)] if export else []), *([f"of {vm}"] if vm else [])])
            raise VmferryError(
                "not_found",
                f"There is no such thing as {what} in {self._shelf.object_url('')}.",
                "List what is there with vmferry.migrate.export_info.",
            )
        return best

    def beside(self, entry: CatalogEntry) -> Callable[[str], CatalogEntry | None]:
        """Finds exports of the same VM by their ids. Raises what is wrong with a manifest that cannot be trusted."""

        def find(export_id: str) -> CatalogEntry | None:
            if not entry.folder:
                return None  # the URL is that of one export alone
            home = _home(entry.folder)
            whole, broken = self._read_all(iter([f"{home}/{export_id}" if home else export_id]))
            for one in broken:
                raise one.error
            return next((one for one in whole if one.manifest.machine.id == entry.manifest.machine.id), None)

        return find

    def unfinished(
        self, uuid: str = "", unreadable: Callable[[VmferryError], object] = lambda error: None
    ) -> Iterator[tuple[str, Intent]]:
        """Exports, of one VM or of all, that have an intent and no manifest: under way, or dead. `unreadable` is told
        of an intent that says nothing. It stops nobody, since every attempt has a folder of its own.
        """
        for folder in self._exports_of(uuid) if uuid else self._all_exports():
            if self._get(f"{folder}/{MANIFEST}") is not None:
                continue
            text = self._get(f"{folder}/{INTENT}")
            if text is None:
                continue
            try:
                intent = read_intent(text, self._shelf.object_url(f"{folder}/{INTENT}"))
            except VmferryError as error:
                unreadable(error)
                continue
            if uuid in ("", intent.vm_id):
                yield folder, intent

    def _all_exports(self) -> Iterator[str]:
        if self._get(MANIFEST) is not None:
            yield ""
            return
        for name in self._shelf.list_folders(""):
            if is_export_id(name):
                yield name
            else:
                yield from self._exports_in(name)

    def _exports_of(self, uuid: str) -> Iterator[str]:
        suffix = vm_folder("x", uuid)[1:]
        for folder in self._shelf.list_folders(""):
            if folder.endswith(suffix):
                yield from self._exports_in(folder)

    def _exports_in(self, folder: str) -> Iterator[str]:
        for name in self._shelf.list_folders(f"{folder}/"):
            if is_export_id(name):
                yield f"{folder}/{name}"

    def _read_all(self, folders: Iterable[str], vm: str = "") -> tuple[list[CatalogEntry], list[BrokenEntry]]:
        """Of the VM that has this name or id. What is another's is not asked for its signatures: with a passphrase,
        that may take a third of a second for each VM. But what lies where this VM's exports do must prove that it is
        another's, or a changed name would hide the newest one."""
        whole, broken, others = self._read_each(folders, vm, lambda home: home == "" or may_be_folder_of(vm, home))
        if self._trust is not UNCHECKED:
            homes = {entry.home for entry in whole}
            beside = [folder for folder in others if _home(folder) in homes]
            meanwhile, lies, _unused = self._read_each(beside, vm, lambda home: True)
            whole, broken = whole + meanwhile, broken + lies
        return whole, broken

    def _read_each(
        self, folders: Iterable[str], vm: str, may_be_theirs: Callable[[str], bool]
    ) -> tuple[list[CatalogEntry], list[BrokenEntry], list[str]]:
        """The last ones say that they are another VM's, and were not asked to prove it."""
        whole: list[CatalogEntry] = []
        broken: list[BrokenEntry] = []
        others: list[str] = []
        for folder in folders:
            text = self._get(_key(folder))
            if text is None:
                continue
            try:
                first = self._manifest(folder, text, UNCHECKED if vm else self._trust)
                if vm and not _is_of(first, vm) and not may_be_theirs(_home(folder)):
                    others.append(folder)
                    continue
                manifest = self._manifest(folder, text, self._trust) if vm and self._trust is not UNCHECKED else first
                self._insist_on_place(folder, manifest)
            except VmferryError as error:
                broken.append(BrokenEntry(folder, error))
            else:
                if not vm or _is_of(manifest, vm):
                    whole.append(CatalogEntry(folder, manifest, trust=self._trust))
        return whole, broken, others

    def _manifest(self, folder: str, text: bytes, trust: Trust) -> Manifest:
        return read_manifest(text, self._shelf.object_url(_key(folder)), trust)

    def _insist_on_place(self, folder: str, manifest: Manifest) -> None:
        name = (folder or self._shelf.object_url("").rstrip("/")).rsplit("/", 1)[-1]
        if manifest.export_id != name and (folder or is_export_id(name)):
            where = self._shelf.object_url(_key(folder))
            raise VmferryError("invalid_config", f"{where} belongs to another export, {manifest.export_id}.")

    def _get(self, key: str) -> bytes | None:
        try:
            return self._shelf.get(key, MANIFEST_LIMIT)
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise


def _name(folder: str) -> str:
    return folder.rsplit("/", 1)[-1]


def _key(folder: str) -> str:
    """Of its manifest."""
    return f"{folder}/{MANIFEST}" if folder else MANIFEST


def _home(folder: str) -> str:
    """The VM's folder that an export's folder lies in; empty where the URL itself is one VM's or one export."""
    return folder.rpartition("/")[0]


def _is_of(manifest: Manifest, vm: str) -> bool:
    """By name or id."""
    return vm in (manifest.machine.name, manifest.machine.id)


def _age(entry: CatalogEntry) -> tuple[float, str]:
    return (entry.manifest.taken_at, entry.manifest.export_id)
