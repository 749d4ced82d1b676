# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a token still tells, of each disk, what changed since it was made."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Mapping, Sequence, Set, Tuple

from ..._images.local_clusters import Layer
from ..spec import DiskSpec, VmSpec
from . import changed_layers, checkpoints, domain_xml
from .bitmaps import can_hold_bitmaps, layers_with
from .checkpoints import Checkpoint, Source, is_whole, look_up
from .connection import Connection
from .image_chain import ImageChain
from .offline_disks import read_chains

Layers = Tuple[Layer, ...]


@dataclass(frozen=True)
class Since:
    """`lost` says why it tells nothing any more. Else `disks` are those it speaks for, by target.

    Of a VM that is off, each with the images whose bitmaps tell; while it runs, QEMU reads them for us.
    """

    token: str = ""
    disks: Mapping[str, Layers] = field(default_factory=dict)
    lost: str = ""
    broken: bool = False  # it is there, and of no use to anybody


def since_of_running(
    connection: Connection, vm: VmSpec, domain: ET.Element, disks: Sequence[DiskSpec], token: str
) -> Since:
    checkpoint = look_up(connection, vm.id, token) if token else None
    if checkpoint is None:
        return _unknown(vm, token)
    exchanged = _exchanged(checkpoint, _images_by_target(domain))
    if exchanged:
        return Since(token, lost=_exchanged_disk(vm, exchanged, token))
    if not is_whole(connection, vm.id, token):
        return Since(
            token, lost=f"A dirty bitmap of checkpoint {token} of {vm.name} is missing or broken.", broken=True
        )
    return Since(token, {disk.name: () for disk in disks if disk.name in checkpoint.tracked})


def since_of_off(
    connection: Connection, vm: VmSpec, disks: Sequence[DiskSpec], chains: Sequence[ImageChain], token: str
) -> Since:
    checkpoint = look_up(connection, vm.id, token) if token else None
    if checkpoint is None:
        return _unknown(vm, token)
    images = {disk.name: {("", layer.path) for layer in chain.layers} for disk, chain in zip(disks, chains)}
    exchanged = _exchanged(checkpoint, images)
    if exchanged:
        return Since(token, lost=_exchanged_disk(vm, exchanged, token))
    found: dict[str, Layers] = {}
    for disk, chain in zip(disks, chains):
        if disk.name in checkpoint.tracked:
            found[disk.name] = layers_with(chain, token)
            if not found[disk.name]:
                lost = f"The dirty bitmap of checkpoint {token} on {disk.name} of {vm.name} is missing or broken."
                return Since(token, lost=lost, broken=True)
    return Since(token, found)


def bytes_changed(
    connection: Connection, vm: VmSpec, disks: Sequence[DiskSpec], token: str, scratch_dir: str
) -> dict[str, int]:
    """At most, by target; without those of which it cannot be told."""
    if vm.power_state not in ("powered_off", "crashed"):
        root = domain_xml.parse(connection.domain(vm.id, f"Reading {vm.name}", lambda domain: domain.XMLDesc()))
        told = since_of_running(connection, vm, root, disks, token).disks
        sizes = checkpoints.bytes_changed(connection, vm.id, token) if told else {}
        return {target: size for target, size in sizes.items() if target in told}
    known = [disk for disk in disks if can_hold_bitmaps(disk)]
    layers = since_of_off(connection, vm, known, read_chains(connection, vm.id, known), token).disks
    folder = Path(scratch_dir)
    return {target: changed_layers.bytes_changed(folder, found, token) for target, found in layers.items()}


def _unknown(vm: VmSpec, token: str) -> Since:
    return Since(token, lost=f"{vm.name} has no checkpoint {token}." if token else "")


def _exchanged_disk(vm: VmSpec, target: str, token: str) -> str:
    return f"{target} of {vm.name} is another disk than when checkpoint {token} was made."


def _exchanged(checkpoint: Checkpoint, images: Mapping[str, Set[Source]]) -> str:
    """The target whose place another disk of the same checkpoint has taken: its bitmap is whole, and not of this disk.

    Images that the checkpoint does not know say nothing: a disk may have been moved or have got snapshots since.
    """
    for target, now in images.items():
        then = {name for name, newest in checkpoint.newest.items() if newest in now}
        if then and target not in then:
            return target
    return ""


def _images_by_target(domain: ET.Element) -> dict[str, Set[Source]]:
    """Of a VM that runs, whose description has every image of every disk."""
    return {domain_xml.attribute(disk, "target", "dev"): set(_images(disk)) for disk in domain.iterfind("devices/disk")}


def _images(disk: ET.Element) -> Iterator[Source]:
    element: ET.Element | None = disk
    while element is not None:
        source = element.find("source")
        if source is not None:
            yield source.get("pool", ""), domain_xml.source_of(element.get("type", "file"), source)
        element = element.find("backingStore")
