# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images hold the disks as a snapshot has them, and what would make reading them there unsafe.

An external snapshot is the image below the overlay that was made then. Nothing writes to it as long as that very
overlay stands on it: somebody who merged it by hand has changed the image, and the snapshot's description has not. An
internal snapshot lies in an image to which the VM may go on writing; what it consists of is never written to, but what
the image stands on may have been exchanged since.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from typing import Iterator, Sequence

from ..._errors import VmferryError
from ..._images.qcow2.snapshots import InternalSnapshot, internal_snapshots
from ..finding import Finding
from ..snapshots import Snapshot, SnapshotDisk
from ..spec import DiskSpec, VmSpec
from . import domain_xml
from .connection import Connection
from .image_chain import ImageChain, read_chain
from .offline_disks import read_chains
from .snapshot_chain import OFF, Layers, place_of, read_layers, same
from .snapshot_xml import described, read_all


@dataclass(frozen=True)
class SnapshotImage:
    """`chain`: the image that holds it, and what that stands on. `entry`: of an internal snapshot."""

    disk: DiskSpec
    chain: ImageChain
    in_use: bool  # the VM writes to the first image, or may begin to
    entry: InternalSnapshot | None = None

    @property
    def path(self) -> str:
        return self.chain.layers[0].path

    @property
    def frozen_paths(self) -> list[str]:
        """Images to which nobody may write while they are read."""
        return [layer.path for layer in self.chain.layers[1 if self.in_use else 0 :]]


def find_snapshot(vm: VmSpec, snapshots: Sequence[Snapshot], name: str) -> Snapshot:
    for snapshot in snapshots:
        if snapshot.name == name:
            return snapshot
    raise VmferryError("not_found", f"{vm.name} has no snapshot {name}.", "List them with disk_snapshot_info.")


def snapshot_findings(connection: Connection, vm: VmSpec, disks: Sequence[DiskSpec], name: str) -> list[Finding]:
    try:
        images_of(connection, vm, disks, find_snapshot(vm, read_all(connection, vm.id), name))
    except VmferryError as error:
        return [Finding("error", error.message, error.hint, error.kind)]
    return []


def images_of(connection: Connection, vm: VmSpec, disks: Sequence[DiskSpec], snapshot: Snapshot) -> list[SnapshotImage]:
    """In the order of `disks`. Raises `conflict` or `unsupported` where what the snapshot was is not surely there."""
    if not snapshot.whole:
        text = f"The snapshot {snapshot.name} is not whole: its removal has begun, or it was never done."
        raise VmferryError("conflict", text, "Remove it with disk_snapshot, state: absent.")
    layers = _layers(connection, vm, disks)
    then = described(connection, vm.id, snapshot.name).find("domain")
    return [_image(vm, disk, snapshot, layers, then) for disk in disks]


def _layers(connection: Connection, vm: VmSpec, disks: Sequence[DiskSpec]) -> Layers:
    if vm.power_state not in OFF:
        return read_layers(connection, vm)
    return {disk.name: chain.layers for disk, chain in zip(disks, read_chains(connection, vm.id, disks))}


def _image(vm: VmSpec, disk: DiskSpec, snapshot: Snapshot, layers: Layers, then: ET.Element | None) -> SnapshotImage:
    held = next((one for one in snapshot.disks if one.name == disk.name), None)
    opened = layers.get(disk.name, ())
    if held is None and disk.read_only and opened:  # snapshots leave out what nobody writes to
        return SnapshotImage(disk, _chain(opened[0].path, opened[0].format, opened), in_use=False)
    if held is None:
        hint = "Choose the disks that it holds with the option disks."
        raise VmferryError("conflict", f"The snapshot {snapshot.name} does not hold {disk.name} of {vm.name}.", hint)
    element = None if then is None else then.find(f"devices/disk/target[@dev='{disk.name}']/..")
    if element is not None and element.find(".//slices") is not None:
        text = f"{disk.name} of {vm.name} is a slice of its image."
        raise VmferryError("unsupported", text, "Export the VM as it is now, while it runs.")
    place = place_of(held.image, opened)
    if place is None:
        text = f"{disk.name} of {vm.name} does not stand on {held.image} any more, where {snapshot.name} has it."
        raise VmferryError("conflict", text, "It may be on another branch, or its images were merged by hand.")
    chain = _chain(opened[place].path, opened[place].format, opened[place:])
    if held.overlay:
        _insist_on_overlay(held, snapshot, [layer.path for layer in opened[:place]])
        return SnapshotImage(disk, chain, in_use=False)
    _insist_on_same_base(snapshot, chain, element)
    return SnapshotImage(disk, chain, place == 0, _entry(held.image, snapshot.name, chain.size))


def _chain(path: str, format: str, opened: Sequence[object]) -> ImageChain:
    chain = read_chain(path, format)
    if len(chain.layers) != len(opened) or not all(
        same(layer.path, getattr(other, "path", "")) for layer, other in zip(chain.layers, opened)
    ):
        hint = "Its header and the domain do not agree. Export the VM as it is now."
        raise VmferryError("unsupported", f"{path} stands on other images than the VM uses.", hint)
    return chain


def _insist_on_overlay(held: SnapshotDisk, snapshot: Snapshot, above: Sequence[str]) -> None:
    if not above or not same(above[-1], held.overlay):
        what = f"{above[-1]} stands on it" if above else "the VM writes to it"
        raise VmferryError(
            "conflict",
            f"{held.image} is not {held.name} as the snapshot {snapshot.name} had it: {what}, not {held.overlay}.",
            "The overlay was merged without libvirt's knowledge. Remove the snapshot, and make a new one.",
        )


def _insist_on_same_base(snapshot: Snapshot, chain: ImageChain, element: ET.Element | None) -> None:
    """What an internal snapshot does not hold itself, it has from the images below, which must still be those."""
    if len(chain.layers) == 1:
        return
    below = [] if element is None else list(_backing_paths(element))
    now = [layer.path for layer in chain.layers[1:]]
    if len(below) != len(now) or not all(same(one, other) for one, other in zip(below, now)):
        raise VmferryError(
            "unsupported",
            f"The snapshot {snapshot.name} lies in {chain.layers[0].path}, which stands on {now[0]}, and nothing tells "
            "that it did so then.",
            "Export a snapshot that was made while the VM ran, or the VM as it is now.",
        )


def _backing_paths(element: ET.Element) -> Iterator[str]:
    store = element.find("backingStore")
    while store is not None and (source := store.find("source")) is not None:
        yield source.get("file") or source.get("dev") or ""
        store = store.find("backingStore")


def _entry(image: str, name: str, size: int) -> InternalSnapshot:
    entries = [one for one in internal_snapshots(image) if one.name == name]
    if len(entries) != 1:
        text = f"{image} has {len(entries) or 'no'} internal snapshots of the name {name}."
        raise VmferryError("conflict", text, "Look at them with qemu-img snapshot -l -U.")
    if entries[0].size != size:
        text = f"{image} was resized since its snapshot {name} was made, and QEMU serves it in the size of now only."
        raise VmferryError("unsupported", text, "Export the VM as it is now.")
    return entries[0]


def domain_then(connection: Connection, vm: VmSpec, name: str) -> ET.Element | None:
    """The VM's own description at that moment: what a restart would have made of it, where that is told."""
    root = described(connection, vm.id, name)
    inactive = root.find("inactiveDomain")
    if inactive is not None:
        inactive.tag = "domain"
        return inactive
    return root.find("domain")


def hardware_then(vm: VmSpec, snapshot: Snapshot, then: ET.Element | None) -> VmSpec:
    if then is None:
        return replace(vm, power_state=snapshot.power_state)
    return replace(
        vm,
        power_state=snapshot.power_state,
        cpu=int(domain_xml.attribute(then, "vcpu", "current") or domain_xml.text_of(then, "vcpu", "1")),
        memory_mb=int(domain_xml.text_of(then, "memory", "0")) // 1024,
        nics=domain_xml.nics(then),
    )
