# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing a snapshot: what was written since stays, and goes into what the snapshot held."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Collection, Iterator, Sequence

from ..._errors import VmferryError
from ..._images.local_clusters import Layer
from ..._transfer.failpoints import failpoint
from ..finding import Finding
from ..image_lock import ImageLock
from ..snapshots import Snapshot
from ..spec import VmSpec
from . import domain_xml
from .connection import Connection
from .describe import describe
from .snapshot_chain import Layers, Merge, internal_findings, merge_findings, merges_of, place_of, read_layers
from .snapshot_merge import merge
from .snapshot_xml import described, forget_metadata, mark_unfinished, read_all, redefine
from .work_folder import WorkFolder

if TYPE_CHECKING:
    import libvirt

UNANSWERED = ("network", "timeout")  # kinds of failure after which libvirt may still do what it was asked


def removal_findings(
    connection: Connection, vm: VmSpec, snapshot: Snapshot, snapshots: Sequence[Snapshot], gone: Collection[str]
) -> Iterator[Finding]:
    """`gone`: names of snapshots that will be removed before."""
    try:
        if snapshot.method == "internal":
            yield from internal_findings(snapshot, read_layers(connection, vm), snapshots, gone)
        elif snapshot.method == "external":
            yield from merge_findings(connection, vm, snapshot, snapshots, gone)
    except VmferryError as error:
        yield Finding("error", error.message, error.hint, error.kind)


def remove(connection: Connection, vm: VmSpec, snapshot: Snapshot, seconds: float) -> None:
    if snapshot.method != "internal":
        _remove_external(connection, vm, snapshot, time.monotonic() + seconds)
        return

    def work(opened: libvirt.virConnect) -> None:
        opened.lookupByUUIDString(vm.id).snapshotLookupByName(snapshot.name).delete()

    connection.once(f"Removing the snapshot {snapshot.name} of {vm.name}", work, seconds)


def _remove_external(connection: Connection, vm: VmSpec, snapshot: Snapshot, deadline: float) -> None:
    others = _others(connection, vm, snapshot)
    origin = described(connection, vm.id, snapshot.name)
    merges = merges_of(snapshot, read_layers(connection, vm), others)
    if merges:
        mark_unfinished(connection, vm.id, snapshot.name)  # its image is about to change
        failpoint("marked_unfinished")
    merge(connection, vm, merges, origin, deadline)
    failpoint("all_merged")
    _repoint(connection, vm, _merged(snapshot, merges, read_layers(connection, describe(connection, vm.id))), others)
    _remove_files(connection, vm, snapshot, merges, origin)
    failpoint("files_removed")
    forget_metadata(connection, vm.id, snapshot.name)


def _merged(snapshot: Snapshot, merges: Sequence[Merge], layers: Layers) -> list[Merge]:
    """By this run, or by one that died after it."""
    found = list(merges)
    for disk in snapshot.disks:
        chain = layers.get(disk.name, ())
        place = place_of(disk.image, chain)
        if place is not None and disk.overlay and place_of(disk.overlay, chain) is None:
            found.append(Merge(disk.name, Layer(disk.overlay, "qcow2"), chain[place], None))
    return found


def _repoint(connection: Connection, vm: VmSpec, merges: Sequence[Merge], others: Sequence[Snapshot]) -> None:
    """Snapshots whose image was merged into the one below have that one now."""
    for other in others:
        affected = [one for one in merges for disk in other.disks if _is_image(disk.name, disk.image, one)]
        if not affected:
            continue

        def change(root: ET.Element, affected: Sequence[Merge] = tuple(affected)) -> None:
            for disk in root.iterfind("domain/devices/disk"):
                for one in affected:
                    if domain_xml.attribute(disk, "target", "dev") == one.target:
                        put_path(disk, one.base.path, one.base.format)

        redefine(connection, vm.id, other.name, change)


def _is_image(target: str, image: str, one: Merge) -> bool:
    return target == one.target and place_of(image, (one.overlay,)) is not None


def put_path(disk: ET.Element, path: str, format: str) -> None:
    """Of a `<disk>` in a snapshot's description of the VM."""
    disk.set("type", "file")
    for name in ("backingStore", "source"):
        for element in disk.findall(name):
            disk.remove(element)
    ET.SubElement(disk, "source", file=path)
    driver = disk.find("driver")
    if driver is not None:
        driver.set("type", format)


def _remove_files(
    connection: Connection, vm: VmSpec, snapshot: Snapshot, merges: Sequence[Merge], origin: ET.Element
) -> None:
    paths = {disk.overlay for disk in snapshot.disks if disk.overlay} | {one.overlay.path for one in merges}
    remove_unused(connection, vm, paths, _others(connection, vm, snapshot))
    memory = domain_xml.attribute(origin, "memory", "file")
    if memory:
        _unlink(Path(memory))


def _others(connection: Connection, vm: VmSpec, snapshot: Snapshot) -> list[Snapshot]:
    return [other for other in read_all(connection, vm.id) if other.name != snapshot.name]


def remove_unused(
    connection: Connection, vm: VmSpec, paths: Collection[str], snapshots: Sequence[Snapshot]
) -> list[str]:
    """Those of the images that neither the VM nor one of its snapshots has; returns which."""
    layers = read_layers(connection, describe(connection, vm.id))
    used = [layer for chain in layers.values() for layer in chain]
    named = [path for snapshot in snapshots for disk in snapshot.disks for path in (disk.image, disk.overlay)]
    removed = []
    for path in sorted(paths):
        if place_of(path, used) is None and path not in named and Path(path).exists():
            with closing(ImageLock([path])):  # a QEMU that is about to use it after all has it open, or cannot open it
                _unlink(Path(path))
            removed.append(path)
    return removed


def undo_overlays(connection: Connection, vm: VmSpec, folder: WorkFolder) -> list[str]:
    """Those that a run wrote down and that became part of nothing; returns which."""
    made = {one["overlay"] for one in folder.record.made if "overlay" in one}
    return remove_unused(connection, vm, made, read_all(connection, vm.id)) if made else []


def give_up(connection: Connection, vm: VmSpec, folder: WorkFolder, error: BaseException) -> None:
    """After a failure: undo, unless libvirt may still do what it was asked. Then what is written down stays, and the
    next run sees what became of it.
    """
    unanswered = isinstance(error, VmferryError) and error.kind in UNANSWERED
    if unanswered and folder.record.made:
        return
    with suppress(VmferryError):  # why it failed is what matters
        undo_overlays(connection, vm, folder)
        folder.remove()


def _unlink(path: Path) -> None:
    try:
        with suppress(FileNotFoundError):
            path.unlink()
    except OSError as error:
        hint = "Nothing uses it any more. Remove it by hand, or run the task again as root."
        raise VmferryError("permission_denied", f"{path} cannot be removed: {error.strerror}.", hint) from error
