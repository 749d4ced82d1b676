# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Going back to a snapshot: what was written since is lost, and with it what exports knew of changes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Iterator, Mapping, Sequence

from ..._errors import VmferryError
from ..._nbd.qemu_img import image_info
from ..._transfer.failpoints import failpoint
from ..finding import Finding
from ..job import Job
from ..snapshots import Snapshot
from ..spec import VmSpec
from .checkpoints_aside import foreign_checkpoints
from .connection import Connection
from .snapshot_chain import OFF, internal_findings, internal_names, merges_of, read_layers
from .snapshot_create_off import create_overlay, file_disk
from .snapshot_merge import define_images
from .snapshot_remove import put_path, remove_unused
from .snapshot_room import access_findings, folder_of
from .snapshot_xml import overlay_beside, read_all, redefine
from .work_folder import WorkFolder

if TYPE_CHECKING:
    import libvirt


def revert_findings(
    connection: Connection, vm: VmSpec, snapshot: Snapshot, snapshots: Sequence[Snapshot]
) -> Iterator[Finding]:
    if not snapshot.whole:
        hint = "Remove it with state: absent, which goes on where that stopped."
        text = f"The snapshot {snapshot.name} is not whole: its removal has begun, or it was never done."
        yield Finding("error", text, hint, "conflict")
    yield from _of_checkpoints(connection, vm)
    try:
        if snapshot.method == "internal":
            yield from internal_findings(snapshot, read_layers(connection, vm), snapshots, ())
            yield from _of_power(vm, snapshot)
        elif snapshot.method == "external":
            yield from _of_external(connection, vm, snapshot, snapshots)
        else:
            yield Finding("error", f"The snapshot {snapshot.name} holds no disk.", "", "unsupported")
    except VmferryError as error:
        yield Finding("error", error.message, error.hint, error.kind)


def _of_power(vm: VmSpec, snapshot: Snapshot) -> Iterator[Finding]:
    if vm.power_state not in OFF:
        then = "it goes on as it was then" if snapshot.memory else "it is powered off"
        yield Finding("info", f"{vm.name} is {vm.power_state}; {then}.")


def _of_checkpoints(connection: Connection, vm: VmSpec) -> Iterator[Finding]:
    """Measured: with a dirty bitmap in use QEMU refuses to load a snapshot, and libvirt has ended the VM by then."""
    foreign = foreign_checkpoints(connection, vm)
    if foreign:
        text = f"{vm.name} has checkpoints of another program, {', '.join(foreign)}, which a revert would make wrong."
        hint = f"Delete them, so that its next backup is a full one: virsh checkpoint-delete {vm.name} {foreign[0]}"
        yield Finding("error", text, hint, "conflict")


def _of_external(
    connection: Connection, vm: VmSpec, snapshot: Snapshot, snapshots: Sequence[Snapshot]
) -> Iterator[Finding]:
    if vm.power_state not in OFF:
        hint = "Shut it down first."
        text = f"{vm.name} is {vm.power_state}; an external snapshot can be reverted to while the VM is off."
        yield Finding("error", text, hint, "unsupported")
    if snapshot.memory:
        hint = "virsh snapshot-revert of libvirt 9.9 or newer can."
        yield Finding("error", f"{snapshot.name} has its memory in a file of its own.", hint, "unsupported")
    if snapshot.children:
        names = ", ".join(snapshot.children)
        hint = f"Remove the later ones first, or go back to {snapshot.children[-1]}."
        text = f"The snapshot {names} was made after {snapshot.name}, and would be on another branch."
        yield Finding("error", text, hint, "unsupported")
        return
    others = [other for other in snapshots if other.name != snapshot.name]
    merges = merges_of(snapshot, read_layers(connection, vm), others)
    if {one.target for one in merges} != {disk.name for disk in snapshot.disks} or any(one.above for one in merges):
        text = f"The disks of {vm.name} do not stand on the snapshot {snapshot.name} directly."
        yield Finding("error", text, "Look at them with qemu-img info --backing-chain.", "conflict")
    yield from access_findings([folder_of(one.overlay.path) for one in merges], "a fresh overlay has to lie there")
    for one in merges:
        inside = internal_names(one.overlay)
        if inside:
            text = f"{one.overlay.path}, which a revert removes, holds the internal snapshot {', '.join(inside)}."
            yield Finding("error", text, "Remove that one first.", "conflict")


def revert_internal(connection: Connection, vm: VmSpec, snapshot: Snapshot, seconds: float) -> None:
    def work(opened: libvirt.virConnect) -> None:
        domain = opened.lookupByUUIDString(vm.id)
        domain.revertToSnapshot(domain.snapshotLookupByName(snapshot.name))

    connection.once(f"Reverting {vm.name} to the snapshot {snapshot.name}", work, seconds)


def revert_external(connection: Connection, vm: VmSpec, snapshot: Snapshot, job: Job, folder: WorkFolder) -> None:
    """Fresh overlays on the images of then; all disks change to them in one step."""
    others = [other for other in read_all(connection, vm.id) if other.name != snapshot.name]
    merges = merges_of(snapshot, read_layers(connection, vm), others)
    fresh = {one.target: overlay_beside(one.overlay.path, job) for one in merges}
    for path in fresh.values():
        folder.will_make(overlay=path)
    for one in merges:
        size = image_info(one.base.path, one.base.format)["virtual-size"]
        create_overlay(one.base, size, fresh[one.target])
    failpoint("overlays_created")
    define_images(connection, vm, {target: file_disk(path) for target, path in fresh.items()})
    failpoint("reverted")
    redefine(connection, vm.id, snapshot.name, lambda root: _put_overlays(root, fresh))
    stale = {one.overlay.path for one in merges} | {disk.overlay for disk in snapshot.disks if disk.overlay}
    remove_unused(connection, vm, stale - set(fresh.values()), others)


def _put_overlays(root: ET.Element, fresh: Mapping[str, str]) -> None:
    for disk in root.iterfind("disks/disk"):
        target = disk.get("name", "")
        if target in fresh:
            put_path(disk, fresh[target], "qcow2")
