# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which export the next one can stand on, if any, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence, Tuple

from .._errors import VmferryError
from .._exports.catalog import CatalogEntry
from .._exports.chain import Find, chain_of
from .._exports.manifest import DiskRecord
from .._providers.spec import DiskSpec
from .requests import ExportRequest
from .stored_disk import StoredDisk, layers_of


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


@dataclass(frozen=True)
class Choice:
    """`base`: None for a full export. `fell_back`: `auto` would have taken an increment, had it been safe."""

    base: Base | None
    reason: str
    fell_back: bool = False


def choose_base(
    request: ExportRequest, disks: Sequence[DiskSpec], existing: Sequence[CatalogEntry], find: Find, now: float
) -> Choice:
    """`existing`: this VM's exports, oldest first. Raises `conflict` where only an increment will do, and none can."""
    if request.mode == "full":
        return Choice(None, "a full export was asked for")
    if request.format != "qcow2":
        return full_instead(request, f"an image of the format {request.format} cannot stand on another")
    rivals = [entry for entry in existing if entry.manifest.format == "qcow2"]
    if not rivals:
        return full_instead(request, "there is no export to stand on")
    alike = [entry for entry in rivals if has_same_disks(entry, disks)]
    if not alike:
        return full_instead(request, "disks were added or removed since the last export")
    try:
        base = Base(chain_of(max(alike, key=_age), find))
    except VmferryError as error:
        return full_instead(request, f"the chain is broken: {error.message}")
    reason = _unfit(request, base, disks, now)
    if reason:
        return full_instead(request, reason)
    return Choice(base, f"the changes since {base.parent.manifest.export_id} are known, or found by digests")


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


def _unfit(request: ExportRequest, base: Base, disks: Sequence[DiskSpec], now: float) -> str:
    age = now - base.chain[0].manifest.taken_at
    if age > request.full_after:
        return f"the full export {base.chain[0].manifest.export_id} is older than full_after"
    if base.increments >= request.max_chain:
        return f"the chain has {base.increments} increments, as many as max_chain allows"
    return resized(base, [(disk.id, disk.size) for disk in disks])


def _age(entry: CatalogEntry) -> tuple[float, str]:
    return (entry.manifest.taken_at, entry.manifest.export_id)
