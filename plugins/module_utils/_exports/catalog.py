# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a store, read from the store itself: no catalog file exists that could go stale.

`<url>/<vm folder>/<export id>/manifest.json`. The URL may also be one VM's folder, or one export.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Protocol

from .._errors import VmferryError
from .intent import INTENT, Intent, read_intent
from .manifest import MANIFEST, MANIFEST_LIMIT, Manifest, read_manifest
from .naming import is_export_id, may_be_folder_of, vm_folder


class Shelf(Protocol):
    """As much of a store as a catalog needs."""

    def get(self, key: str, limit: int = ...) -> bytes: ...

    def list_folders(self, prefix: str) -> Iterator[str]: ...

    def object_url(self, key: str) -> str: ...


@dataclass(frozen=True)
class CatalogEntry:
    """A committed export and the folder it lies in: a key without `/` at its end, empty for the URL itself."""

    folder: str
    manifest: Manifest

    def key(self, file: str) -> str:
        return f"{self.folder}/{file}" if self.folder else file


@dataclass(frozen=True)
class BrokenEntry:
    """A manifest that cannot be read or trusted."""

    folder: str
    error: VmferryError


class Catalog:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def read(self, vm: str = "") -> tuple[list[CatalogEntry], list[BrokenEntry]]:
        """Committed exports, oldest first within a VM, and what is broken; `vm` is a name, an id, or empty for all."""
        whole, broken = self._read_all(self._all_exports())
        return [entry for entry in whole if vm in ("", entry.manifest.machine.name, entry.manifest.machine.id)], broken

    def of_vm(self, uuid: str) -> list[CatalogEntry]:
        """This VM's committed exports, oldest first, whatever it was called when they were made."""
        whole, _unused = self._read_all(self._exports_of(uuid))
        return [entry for entry in whole if entry.manifest.machine.id == uuid]

    def folder_for(self, name: str, uuid: str) -> str:
        """Where the next export of this VM goes: where the last one went, even if the VM had another name then."""
        used = [entry.folder.split("/")[0] for entry in self.of_vm(uuid)]
        return used[-1] if used else vm_folder(name, uuid)

    def find(self, export: str = "", vm: str = "") -> CatalogEntry:
        """One export, by id or name, or else the newest; `not_found`, or `conflict` where several VMs fit.

        A broken manifest is never passed over in silence for an older export. Whose it is, its folder tells.
        """
        whole, broken = self.read(vm)
        found = [entry for entry in whole if export in ("", entry.manifest.export_id, entry.manifest.name)]
        best = max(found, key=lambda entry: (entry.manifest.taken_at, entry.manifest.export_id), default=None)
        if len({entry.manifest.machine.id for entry in found}) > 1:
            raise VmferryError(
                "conflict",
                f"Exports of more than one VM in {self._shelf.object_url('')} fit.",
                "Say which VM with vm, or give the export's id.",
            )
        homes = {_home(entry.folder) for entry in whole}
        for entry in broken:
            name, home = entry.folder.rsplit("/", 1)[-1], _home(entry.folder)
            of_vm = vm == "" or home == "" or home in homes or may_be_folder_of(vm, home)
            if export == name or (export == "" and of_vm and (best is None or name > best.manifest.export_id)):
                raise entry.error
        if best is None:
            what = " ".join(["an export", *([repr(export)] if export else []), *([f"of {vm}"] if vm else [])])
            raise VmferryError(
                "not_found",
                f"There is no such thing as {what} in {self._shelf.object_url('')}.",
                "List what is there with vmferry.migrate.export_info.",
            )
        return best

    def unfinished(self, uuid: str = "") -> Iterator[tuple[str, Intent]]:
        """Exports, of one VM or of all, that have an intent and no manifest: under way, or dead."""
        for folder in self._exports_of(uuid) if uuid else self._all_exports():
            if self._get(f"{folder}/{MANIFEST}") is not None:
                continue
            text = self._get(f"{folder}/{INTENT}")
            if text is not None:
                intent = read_intent(text, self._shelf.object_url(f"{folder}/{INTENT}"))
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

    def _read_all(self, folders: Iterator[str]) -> tuple[list[CatalogEntry], list[BrokenEntry]]:
        whole, broken = [], []
        for folder in folders:
            key = f"{folder}/{MANIFEST}" if folder else MANIFEST
            text = self._get(key)
            if text is None:
                continue
            try:
                manifest = read_manifest(text, self._shelf.object_url(key))
                if folder and manifest.export_id != folder.rsplit("/", 1)[-1]:
                    raise VmferryError(
                        "invalid_config",
                        f"{self._shelf.object_url(key)} belongs to another export, {manifest.export_id}.",
                    )
            except VmferryError as error:
                broken.append(BrokenEntry(folder, error))
            else:
                whole.append(CatalogEntry(folder, manifest))
        return whole, broken

    def _get(self, key: str) -> bytes | None:
        try:
            return self._shelf.get(key, MANIFEST_LIMIT)
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise


def _home(folder: str) -> str:
    """The VM's folder that an export's folder lies in; empty where the URL itself is one VM's or one export."""
    return folder.rpartition("/")[0]
