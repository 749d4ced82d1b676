# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which export the next one can stand on, if any, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Sequence, Tuple

from ..._errors import VmferryError
from ..._exports.catalog import Catalog, CatalogEntry, newest
from ..._exports.chain import BROKEN
from ..._exports.manifest import DiskRecord, Manifest
from ..._exports.packed import image_format_of
from ..._exports.verifications import read_verifications
from ..._providers.spec import DiskSpec
from ..._stores.base import Store
from ..jobs.requests import ExportRequest
from ..stored.readable_chain import readable_chain
from ..stored.stored_disk import StoredDisk, layers_of
from ..stored.stored_objects import flaw_of_size


class UnfitParent(VmferryError):
    """Found while an increment was written: it must not stand on what it was to stand on."""

    def __init__(self, message: str) -> None:
        super().__init__("conflict", message)


@dataclass(frozen=True)
class Base:
    """The exports that an increment stands on, the full one first."""

    chain: Tuple[CatalogEntry, ...]

    @property
    def parent(self) -> CatalogEntry:
        return self.chain[-1]

    @property
    def increments(self) -> int:
        return len(self.chain) - 1

    def layers(self, disk_id: str) -> Tuple[StoredDisk, ...]:
        return layers_of(self.chain, disk_id)

    def flaw(self, store: Store) -> str:
        """A sentence without its end, or ''. A manifest tells what was sent, and not what is still there."""
        for entry in self.chain:
            damage = read_verifications(store, entry).damage
            if damage:
                return f"{store.object_url(entry.folder)} is known to be damaged: {damage}"
        for key, size in self._objects():
            flaw = flaw_of_size(store, key, size)
            if flaw:
                return f"{store.object_url(key)} {flaw}"
        return ""

    def _objects(self) -> Iterator[Tuple[str, int]]:
        """Keys and sizes of all that an increment relies on, the parent's machine included, which it may equal."""
        for disk in self.parent.manifest.disks:
            for layer in self.layers(disk.id):
                yield layer.key(layer.record.file), layer.record.bytes_stored
                yield layer.key(layer.record.digests.path), layer.record.digests.size
        for file in self.parent.manifest.files:
            yield self.parent.key(file.path), file.size


def sound_base(store: Store, parent: CatalogEntry) -> Tuple[Base, str]:
    """And its flaw, or ''. What a cleanup merged since the manifests were read is none."""
    find = Catalog(store, parent.trust).beside(parent)
    base = Base(readable_chain(store, parent, find))
    while True:
        flaw = base.flaw(store)
        if not flaw:
            return base, ""
        seen = Base(readable_chain(store, find(parent.manifest.export_id) or parent, find))
        if seen == base:
            return base, flaw
        base = seen


@dataclass(frozen=True)
class Choice:
    """`base`: None for a full export. `fell_back`: `auto` would have taken an increment, had it been safe."""

    base: Base | None
    reason: str
    fell_back: bool = False


def choose_base(
    request: ExportRequest,
    disks: Sequence[DiskSpec],
    existing: Sequence[CatalogEntry],
    store: Store,
    now: float,
) -> Choice:
    """`existing`: this VM's exports, oldest first. Raises `conflict` where only an increment will do, and none can."""
    if request.mode == "full":
        return Choice(None, "a full export was asked for")
    if not image_format_of(request.format).layers:
        return full_instead(request, f"an image of the format {request.format} cannot stand on another")
    rivals = images_to_stand_on(existing)
    if not rivals:
        return full_instead(request, "there is no export to stand on")
    otherwise = [sealed_otherwise(request, entry.manifest) for entry in rivals]
    if all(otherwise):
        return full_instead(request, otherwise[-1])
    rivals = [entry for entry, reason in zip(rivals, otherwise) if not reason]
    last = newest([entry for entry in rivals if has_same_disks(entry, disks)], now)
    if last is None:
        return full_instead(request, "disks were added or removed since the last export")
    try:
        base, flaw = sound_base(store, last)
    except VmferryError as error:
        if error.kind not in BROKEN:
            raise
        return full_instead(request, f"the chain is broken: {error.message}")
    reason = _unfit(request, base, disks, now)
    if reason:
        return full_instead(request, reason)
    if flaw:
        return full_instead(request, f"the chain is broken: {flaw}")
    return Choice(base, f"the changes since {base.parent.manifest.export_id} are known, or found by digests")


def images_to_stand_on(entries: Sequence[CatalogEntry]) -> list[CatalogEntry]:
    return [entry for entry in entries if image_format_of(entry.manifest.format).layers]


def full_instead(request: ExportRequest, reason: str) -> Choice:
    if request.mode == "incremental":
        raise VmferryError(
            "conflict",
            f"No increment of {request.vm} can be taken: {reason}.",
            "Use mode: auto, which takes a full export then.",
        )
    return Choice(None, reason, fell_back=True)


def has_same_disks(entry: CatalogEntry, disks: Sequence[DiskSpec]) -> bool:
    return [(disk.id, disk.name) for disk in entry.manifest.disks] == [(disk.id, disk.name) for disk in disks]


def resized(base: Base, disks: Sequence[Tuple[str, int]]) -> str:
    """A sentence, or '' where every disk (id and size) is as large as it was."""
    before = {disk.id: disk for disk in base.parent.manifest.disks}
    for disk_id, size in disks:
        was: DiskRecord = before[disk_id]
        if was.size != size:
            return f"{disk_id} was resized from {was.size} to {size} bytes"
    return ""


def sealed_otherwise(request: ExportRequest, made: Manifest) -> str:
    """A sentence, or '' where neither is encrypted, or both are, with one passphrase."""
    if (made.encryption is None) != (request.seals.keyring is None):
        return "the chain is not encrypted" if made.encryption is None else "the chain is encrypted"
    return "the chain is encrypted with another passphrase" if made.encryption is not None and made.keys is None else ""


def _unfit(request: ExportRequest, base: Base, disks: Sequence[DiskSpec], now: float) -> str:
    for layer in base.chain:
        reason = sealed_otherwise(request, layer.manifest)
        if reason:
            return reason
    age = now - base.chain[0].manifest.taken_at
    if age > request.full_after:
        return f"the full export {base.chain[0].manifest.export_id} is older than full_after"
    if base.increments >= request.max_chain:
        return f"the chain has {base.increments} increments, as many as max_chain allows"
    return resized(base, [(disk.id, disk.size) for disk in disks])
