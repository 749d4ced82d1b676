# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dirty bitmaps as they lie in qcow2 images: QEMU notes in each what was written since it was made.

They travel with the data: whoever writes to the image through QEMU adds to them, and a copy of the image that is put
back has the bitmaps of its own time.
"""

from __future__ import annotations

from typing import Any, FrozenSet, Iterator, Mapping

from ..._blocks import LEAF
from ..._errors import VmferryError
from ..._images.local_clusters import Layer
from ..._nbd.qemu_img import image_info, qemu_img
from ..spec import DiskSpec, VmSpec
from .image_chain import ImageChain, read_chain

RECORDS, NOT_STORED = "auto", "in-use"  # flags, as qemu-img names them


def can_hold_bitmaps(disk: DiskSpec) -> bool:
    """Version 3 of qcow2. Of what cannot be looked at from here, libvirt has to say."""
    if disk.format != "qcow2" or disk.read_only:
        return False
    try:
        found = image_info(disk.source, disk.format) if disk.source.startswith("/") else {}
    except VmferryError:
        return True
    return bool(_details(found).get("compat") != "0.10")


def bitmaps_of(layer: Layer) -> dict[str, FrozenSet[str]]:
    """Their flags, by name. A VM that runs on the image has others, which it stores when it ends."""
    if layer.format != "qcow2":
        return {}
    found = _details(image_info(layer.path, layer.format)).get("bitmaps", ())
    return {bitmap["name"]: frozenset(bitmap["flags"]) for bitmap in found}


def layers_with(chain: ImageChain, name: str) -> tuple[Layer, ...]:
    """The images, newest first, whose bitmaps of this name tell together all that was written since it was made.

    None where they do not. An external snapshot begins a bitmap of the same name in the new image, if libvirt makes it
    while the VM runs; so the newest image has one, and there is no gap below it. One that is still marked in use was
    lost in a crash, and one that does not record has missed something. libvirt asks the same of a running VM
    (qemuBlockBitmapChainIsValid).
    """
    found: list[Layer] = []
    ended = False
    for layer in chain.layers:
        flags = bitmaps_of(layer).get(name)
        if flags is None:
            ended = True
        elif ended or NOT_STORED in flags or RECORDS not in flags:
            return ()
        else:
            found.append(layer)
    return tuple(found)


def add_bitmap(image: str, name: str) -> None:
    """Raises `busy` where a VM runs on it."""
    qemu_img("bitmap", "--add", "-g", str(LEAF), "-f", "qcow2", image, name)


def remove_bitmaps(vm: VmSpec, name: str) -> bool:
    """From every image of a VM that is off; whether there was one. Raises `busy` where the newest image is in use.

    Images below may belong to other VMs too. One that cannot be written keeps a bitmap that nobody will ask for.
    """
    removed = False
    for layer, newest in _images(vm):
        try:
            if name in bitmaps_of(layer):
                qemu_img("bitmap", "--remove", "-f", "qcow2", layer.path, name)
                removed = True
        except VmferryError as error:
            if newest and error.kind != "not_found":
                raise
    return removed


def _images(vm: VmSpec) -> Iterator[tuple[Layer, bool]]:
    for disk in vm.disks:
        if disk.format != "qcow2" or not disk.source.startswith("/"):
            continue
        try:
            layers = read_chain(disk.source, disk.format).layers
        except VmferryError:  # what is below cannot be read, or not safely
            layers = (Layer(disk.source, disk.format),)
        for number, layer in enumerate(layers):
            yield layer, number == 0


def _details(info: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = info.get("format-specific", {}).get("data", {})
    return found
