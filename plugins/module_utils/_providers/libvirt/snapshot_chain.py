# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where snapshots stand among the images of a VM, and who else stands on the same images."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING, Collection, Iterator, Mapping, Sequence, Tuple

from ..._errors import VmferryError
from ..._images.local_clusters import Layer
from ..._nbd.qemu_img import image_info
from ..finding import Finding
from ..snapshots import Snapshot, SnapshotDisk
from ..spec import VmSpec
from . import domain_xml
from .connection import LONG_CALL_LIMIT, Connection
from .image_chain import read_chain
from .snapshot_room import access_findings, folder_of, room_findings
from .snapshot_xml import OVERLAY, image_of, volume_path

if TYPE_CHECKING:
    import libvirt

OFF = ("powered_off", "crashed")
Layers = Mapping[str, Tuple[Layer, ...]]  # by target, the newest first


@dataclass(frozen=True)
class Merge:
    """`overlay` goes into `base`, which it stands on; `above` stands on it, or the VM itself."""

    target: str
    overlay: Layer
    base: Layer
    above: Layer | None


def read_layers(connection: Connection, vm: VmSpec) -> Layers:
    """As QEMU has them open, or as the images' headers say. Raises what `read_chain` raises."""
    if vm.power_state in OFF:
        types = vm.details.get("disk_types", {})
        local = [disk for disk in vm.disks if types.get(disk.name, "file") != "network" and disk.source]
        return {disk.name: read_chain(disk.source, disk.format).layers for disk in local}

    def work(domain: libvirt.virDomain) -> Layers:
        root = domain_xml.parse(domain.XMLDesc())
        return dict(_open_layers(domain.connect(), root))

    return connection.domain(vm.id, f"Reading the disks of {vm.name}", work)


def _open_layers(opened: libvirt.virConnect, root: ET.Element) -> Iterator[tuple[str, tuple[Layer, ...]]]:
    newest = {disk.target: disk for disk in domain_xml.disks(root)}
    for element in root.iterfind("devices/disk[@device='disk']"):
        disk = newest[domain_xml.attribute(element, "target", "dev")]
        layers = [Layer(image_of(opened, disk), disk.format)]
        store = element.find("backingStore")
        while store is not None and (source := store.find("source")) is not None:
            path = source.get("file") or source.get("dev") or ""
            if source.get("volume"):
                path = volume_path(opened, source.get("pool", ""), source.get("volume", ""))
            layers.append(Layer(path, domain_xml.attribute(store, "format", "type", "raw")))
            store = store.find("backingStore")
        yield disk.target, tuple(layers)


def same(one: str, other: str) -> bool:
    return bool(one) and os.path.realpath(one) == os.path.realpath(other)


def place_of(image: str, layers: Sequence[Layer]) -> int | None:
    return next((place for place, layer in enumerate(layers) if same(layer.path, image)), None)


def merges_of(snapshot: Snapshot, layers: Layers, others: Sequence[Snapshot]) -> list[Merge]:
    """What removing an external snapshot has left to do. Raises `conflict` where the VM does not stand on it.

    The layer to merge is the one on the snapshot's image. The snapshot may call it by another name, where a revert of
    ours was interrupted. Where it belongs to the next snapshot, or to nobody whom we know, ours is merged already.
    """
    found = []
    for disk in snapshot.disks:
        chain = layers.get(disk.name, ())
        place = place_of(disk.image, chain)
        if place is None:
            raise VmferryError(
                "conflict",
                f"{disk.name} does not stand on the snapshot {snapshot.name}: {disk.image} is not among its images.",
                "It may be on another branch. Look at it with virsh snapshot-list --tree and qemu-img info.",
            )
        if place == 0 or belongs_to(chain[place - 1].path, disk.name, others) is not None:
            continue
        if not same(chain[place - 1].path, disk.overlay) and not OVERLAY.search(chain[place - 1].path):
            continue
        above = chain[place - 2] if place > 1 else None
        found.append(Merge(disk.name, overlay=chain[place - 1], base=chain[place], above=above))
    return found


def belongs_to(path: str, target: str, snapshots: Sequence[Snapshot]) -> Snapshot | None:
    """The snapshot whose overlay it is."""
    for snapshot in snapshots:
        if any(disk.name == target and same(disk.overlay, path) for disk in snapshot.disks):
            return snapshot
    return None


def internal_findings(
    snapshot: Snapshot, layers: Layers, snapshots: Sequence[Snapshot], gone: Collection[str]
) -> list[Finding]:
    """QEMU and libvirt find an internal snapshot only in the images that the VM writes to."""
    findings = []
    for disk in snapshot.disks:
        chain = layers.get(disk.name, ())
        place = place_of(disk.image, chain)
        if place is None:
            text = f"{disk.image}, in which the snapshot {snapshot.name} is, is not among the images of {disk.name}."
            findings.append(Finding("error", text, "It may be on another branch.", "conflict"))
            continue
        owners = [belongs_to(layer.path, disk.name, snapshots) for layer in chain[:place]]
        above = sorted({owner.name for owner in owners if owner is not None and owner.name not in gone})
        if above or None in owners:
            text = f"{disk.name} stands on an external snapshot that was made after the snapshot {snapshot.name}."
            hint = f"Remove {', '.join(above)} first." if above else "Merge its images first, with virsh blockcommit."
            findings.append(Finding("error", text, hint, "conflict"))
    return findings


def merge_findings(
    connection: Connection, vm: VmSpec, snapshot: Snapshot, snapshots: Sequence[Snapshot], gone: Collection[str]
) -> Iterator[Finding]:
    """What would be broken by merging an external snapshot's layers."""
    layers = read_layers(connection, vm)
    others = [other for other in snapshots if other.name != snapshot.name]
    merges = merges_of(snapshot, layers, others)
    for merge in merges:
        inside = [name for name in internal_names(merge.overlay) if name not in gone]
        if inside:
            text = f"{merge.overlay.path}, which is to be merged, holds the internal snapshot {', '.join(inside)}."
            yield Finding("error", text, "Remove that one first.", "conflict")
        for other in others:
            if other.name not in gone and _on_another_branch(other, merge, layers):
                text = f"The snapshot {other.name} stands on {merge.base.path} too, on another branch."
                yield Finding("error", text, f"Remove {other.name} first.", "conflict")
        yield from access_findings([folder_of(merge.overlay.path)], "an image in it has to be removed")
    needs: dict[str, int] = {}
    for merge in merges:
        folder = folder_of(merge.base.path)
        needs[folder] = needs.get(folder, 0) + os.stat(merge.overlay.path).st_blocks * 512  # noqa: PTH116
    # Where there is little room left, removing a snapshot is what gives some back.
    yield from room_findings(needs, "what is merged", demand="none")
    used = {path for merge in merges for path in (merge.overlay.path, merge.base.path)}
    for path, name in other_users(connection, vm.id, used).items():
        text = f"The VM {name} stands on {path}, which would be changed."
        yield Finding("error", text, f"Copy the disk of {name} to images of its own first.", "conflict")


def internal_names(layer: Layer) -> list[str]:
    if layer.format != "qcow2":
        return []
    return [one["name"] for one in image_info(layer.path, layer.format).get("snapshots", ())]


def _on_another_branch(other: Snapshot, merge: Merge, layers: Layers) -> bool:
    for disk in other.disks:
        if disk.name == merge.target and any(
            place_of(path, layers[disk.name]) is None and _stands_on(path, (merge.base.path, merge.overlay.path))
            for path in _images(disk)
        ):
            return True
    return False


def _images(disk: SnapshotDisk) -> list[str]:
    return [path for path in (disk.image, disk.overlay) if path.startswith("/") and os.path.exists(path)]  # noqa: PTH110


def _stands_on(path: str, images: Sequence[str]) -> bool:
    return any(same(layer.path, image) for layer in _layers_below(path, "qcow2") for image in images)


def other_users(connection: Connection, vm_id: str, images: Collection[str]) -> dict[str, str]:
    """The names of other VMs by the image that they stand on."""

    def work(opened: libvirt.virConnect) -> list[tuple[str, list[tuple[str, str]]]]:
        import libvirt

        found = []
        for domain in opened.listAllDomains():
            try:
                if domain.UUIDString() == vm_id:
                    continue
                root = domain_xml.parse(domain.XMLDesc())
                disks = [disk for disk in domain_xml.disks(root) if disk.device == "disk" and disk.kind != "network"]
                tops = [(image_of(opened, disk), disk.format) for disk in disks]
                found.append((domain.name(), tops))
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it may be gone by now
                    raise
        return found

    users: dict[str, str] = {}
    if not images:
        return users
    for name, tops in connection.call("Looking at the disks of all VMs", work, limit=LONG_CALL_LIMIT):
        for path, format in tops:
            for layer in _layers_below(path, format):
                users.update({image: name for image in images if same(layer.path, image)})
    return users


def _layers_below(path: str, format: str) -> Sequence[Layer]:
    """With itself; as far as they can be read: what cannot be opened is used by nobody."""
    try:
        return read_chain(path, format).layers
    except VmferryError:
        return (Layer(path, format),)
