# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the disks of a snapshot are read: over NBD, out of the datastore, or as the stream of a lease.

The first two read any part at any time, so only they can read what changed and leave the rest; the last one is what
always works, and reads everything. What does not work here is found out before it is relied on, and falls to the next.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Callable, Iterator, Sequence

from ..._blocks import BlockSource, Extent, Piece
from ..._errors import VmferryError
from ..base import ExportDisk
from ..spec import DiskSpec, VmSpec
from . import tracking
from .changed_areas import ChangedAreas
from .disk_servers import DiskServers
from .flat_disk import FlatDisk, flat_url
from .frozen_disks import FrozenDisk, FrozenDisks, frozen_disks
from .session import Session
from .settings import VsphereSettings

NBD, DATASTORE, LEASE = "nbd", "datastore", "lease"
# Of datastores that keep a disk as a file; vSAN and vVols keep objects.
_WITH_FILES = ("VMFS", "NFS", "NFS41")


def may_be_read_at_random(settings: VsphereSettings, vm: VmSpec, disk: DiskSpec) -> bool:
    """As far as can be told before there is a snapshot: whether anything but a lease is worth trying."""
    configured = bool(settings.vddk_libdir or settings.nbd_uri)
    return tracking.can_be_tracked(disk) and (configured or may_have_flat_file(vm, disk))


def is_worth_a_snapshot(settings: VsphereSettings, vm: VmSpec, disks: Sequence[DiskSpec], tracked: bool) -> bool:
    """Of a VM that is off, and can be read as it is. `tracked`: what changes is to be known, now or later."""
    held = all(tracking.can_be_tracked(disk) for disk in disks)
    possible = not any(disk.details["shared"] or disk.details["rdm_mode"] == "physical" for disk in vm.disks)
    if not held or not possible or vm.details["template"]:
        return False
    if settings.vddk_libdir or settings.nbd_uri:
        return True
    flat = [disk for disk in disks if may_have_flat_file(vm, disk)]
    return not vm.snapshots and any(tracked or _is_mostly_allocated(disk) for disk in flat)


def may_have_flat_file(vm: VmSpec, disk: DiskSpec) -> bool:
    """The bytes of a disk that is encrypted are others there."""
    details = disk.details
    encrypted = details["encrypted"] or vm.details["encrypted"]
    return details["backing"] == "flat" and details["datastore_kind"] in _WITH_FILES and not encrypted


class Readers:
    """Of the disks of one VM at one snapshot; all that it opens is closed by `stack`."""

    def __init__(
        self,
        settings: VsphereSettings,
        session: Session,
        servers: DiskServers,
        vm: VmSpec,
        frozen: FrozenDisks,
        stack: ExitStack,
    ) -> None:
        self._settings, self._session, self._servers = settings, session, servers
        self._vm, self._frozen, self._stack = vm, frozen, stack
        self._relied_on: list[FrozenDisk] = []
        self.lost = ""  # why a token tells nothing any more
        self.warnings: list[str] = []

    def open(
        self, disks: Sequence[DiskSpec], token: str, streamed: Callable[[DiskSpec], BlockSource]
    ) -> Sequence[ExportDisk]:
        """In their order. `token`: of the export to stand on, or ''; `streamed`: opens what a lease sends."""
        asked = [disk.name for disk in disks if may_be_read_at_random(self._settings, self._vm, disk)] if token else ()
        since = tracking.changes_since(self._session, self._vm, self._frozen, asked, token)
        self.lost = since.lost
        opened = [self._open(disk, since.areas.get(disk.name), streamed) for disk in disks]
        if all(one.method != LEASE for one in opened):
            return opened
        # While a lease holds the disks of a VM, their files may be locked: one for all, then.
        return [_by_lease(disk, streamed) if one.method == DATASTORE else one for disk, one in zip(disks, opened)]

    def confirm(self) -> None:
        """After the last read: that what was read at random was the snapshot's all the time.

        Its files are the snapshot's until it is removed; then they go on as the VM's own.
        """
        if not self._relied_on:
            return
        doing = f"Looking whether the snapshot of {self._vm.name} is still there"
        try:
            now = frozen_disks(self._session, self._vm.details["moref"], self._frozen.snapshot, doing)
        except VmferryError as error:
            if error.kind != "not_found":
                raise
            raise self._not_as_it_was("somebody removed it") from error
        for disk in self._relied_on:
            seen = now.disks.get(disk.name)
            if seen is None or (seen.file, seen.size) != (disk.file, disk.size):
                raise self._not_as_it_was(f"{disk.name} is in another file")

    def _not_as_it_was(self, why: str) -> VmferryError:
        text = f"The snapshot of {self._vm.name} that was read is not as it was: {why}."
        hint = "Run the task again, and keep other tools from removing snapshots meanwhile."
        return VmferryError("conflict", text, hint, retryable=True)

    def _open(
        self, disk: DiskSpec, areas: ChangedAreas | None, streamed: Callable[[DiskSpec], BlockSource]
    ) -> ExportDisk:
        frozen = self._frozen.disks.get(disk.name)
        found = self._at_random(disk, frozen, everything=areas is None) if frozen is not None else None
        if frozen is not None and found is not None:
            method, source = found
            self._relied_on.append(frozen)
            changes = TrackedDisk(source, areas) if areas is not None else None
            return ExportDisk(replace(disk, size=source.size), source, changes, method)
        return _by_lease(disk, streamed)

    def _at_random(self, disk: DiskSpec, frozen: FrozenDisk, everything: bool) -> tuple[str, BlockSource] | None:
        """The first way that works."""
        if self._settings.vddk_libdir or self._settings.nbd_uri:
            source = self._over_nbd(frozen)
            if source is not None:
                return NBD, source
        # A lease leaves out what is not allocated; of a flat file all has to be read.
        pays = not everything or _is_mostly_allocated(disk)
        if pays and self._frozen.only and frozen.base and may_have_flat_file(self._vm, disk):
            source = self._flat(frozen)
            if source is not None:
                return DATASTORE, source
        return None

    def _over_nbd(self, frozen: FrozenDisk) -> BlockSource | None:
        from .nbd_disk import nbd_disk  # which few have

        opened = nbd_disk(self._settings, self._servers, self._vm, self._frozen.snapshot, frozen)
        try:
            return self._stack.enter_context(opened)
        except VmferryError as error:
            if error.kind == "cancelled":
                raise
            self.warnings.append(f"{frozen.name} of {self._vm.name} is not read over NBD: {error.message}")
            return None

    def _flat(self, frozen: FrozenDisk) -> BlockSource | None:
        url = flat_url(self._vm, frozen.file)
        if not url:
            return None
        source = FlatDisk(self._servers, self._session, url, frozen.size, f"{frozen.name} of {self._vm.name}")
        self._stack.callback(source.close)
        return source if not source.probe() else None


class TrackedDisk:
    """Plays BlockSource: a disk of which only what changed is wanted. Closed with `source`, which has all of it."""

    def __init__(self, source: BlockSource, areas: ChangedAreas) -> None:
        self._source, self._areas = source, areas
        self.size = source.size

    def extents(self) -> Iterator[Extent]:
        return self._areas.extents()

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._source.read_into(pieces)

    def close(self) -> None:
        self._source.close()


def _by_lease(disk: DiskSpec, streamed: Callable[[DiskSpec], BlockSource]) -> ExportDisk:
    source = streamed(disk)
    return ExportDisk(replace(disk, size=source.size), source, None, LEASE)


def _is_mostly_allocated(disk: DiskSpec) -> bool:
    return disk.allocated is not None and 2 * disk.allocated >= disk.size
