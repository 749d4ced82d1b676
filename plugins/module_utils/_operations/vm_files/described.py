# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM that is files, in the words of all providers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Mapping, Tuple
from uuid import NAMESPACE_URL, uuid5

from ..._appliances.appliance import Appliance
from ..._blocks import ObjectInfo
from ..._images.inspect.words import Description
from ..._providers.spec import DiskSpec, VmSpec
from ..._stores.base import Store
from ..stored.appliance_machine import vm_in
from ..stored.image_nics import OF_QEMU
from ..stored.read_appliance import stored_appliance
from .image_disk import seen_image
from .inventory import FileVm
from .place import place_of

PROVIDER = "image"
MADE_OF, MADE_AS = "made_of", "made_as"  # in an appliance's details: of an import of ours
# What images do not say, and a VM needs. `details` tell which are assumed.
CPUS, MEMORY_MB = 2, 2048
BUS_OF_OTHERS = "sata"  # that every guest knows
ASSUMED = ("cpu", "memory_mb", "firmware", "disks.bus")


def vm_id(store: Store, vm: FileVm, *, is_path: bool) -> str:
    """The same as long as the files lie where they are."""
    return str(uuid5(NAMESPACE_URL, f"vmferry:{place_of(store, vm.path, is_path=is_path)}"))


def describe(store: Store, vm: FileVm, *, is_path: bool) -> VmSpec:
    """Reads descriptors and the headers of images. Raises as `stored_appliance` and `seen_image`."""
    if vm.problem is not None:
        raise vm.problem
    if vm.is_appliance:
        appliance = stored_appliance(store, vm.path, run_through=False)
        return describe_appliance(store, vm, appliance, is_path=is_path)
    return _of_images(store, vm, is_path)


def describe_appliance(store: Store, vm: FileVm, appliance: Appliance, *, is_path: bool) -> VmSpec:
    """Of what was read of it."""
    found = vm_in(appliance)
    files: Mapping[str, Any] = {"files": [store.location(vm.path)]}
    own_id, details = vm_id(store, vm, is_path=is_path), {**found.details, PROVIDER: files}
    return replace(found, provider=PROVIDER, id=own_id, path=vm.path, details=details)


def unreadable(store: Store, vm: FileVm, problem: str, *, is_path: bool) -> VmSpec:
    """Of one among others: it is told, and does not keep these from being told."""
    return VmSpec(
        provider=PROVIDER,
        id=vm_id(store, vm, is_path=is_path),
        name=vm.name,
        path=vm.path,
        power_state="unknown",
        cpu=CPUS,
        memory_mb=MEMORY_MB,
        firmware="unknown",
        disks=(),
        details={PROVIDER: {"problem": problem}},
    )


def _of_images(store: Store, vm: FileVm, is_path: bool) -> VmSpec:
    return VmSpec(
        provider=PROVIDER,
        id=vm_id(store, vm, is_path=is_path),
        name=vm.name,
        path=vm.path,
        power_state="powered_off",
        cpu=CPUS,
        memory_mb=MEMORY_MB,
        firmware="unknown",
        disks=_disks(store, vm, is_path),
        details={PROVIDER: {"files": [store.location(info.key) for info in vm.images], "assumed": list(ASSUMED)}},
    )


def _disks(store: Store, vm: FileVm, is_path: bool) -> Tuple[DiskSpec, ...]:
    names = [info.key.rpartition("/")[2] for info in vm.images]
    if len(set(names)) != len(names):  # a pattern may go through folders
        names = [info.key for info in vm.images]
    seen = [seen_image(store, info, is_path=is_path) for info in vm.images]
    return tuple(
        DiskSpec(
            id=f"disk-{number}",
            name=name,
            size=found.size,
            format=found.format,
            bus="virtio" if found.format in OF_QEMU else BUS_OF_OTHERS,
            source=store.location(info.key),
            allocated=_allocated(store, info, found, is_path),
            boot=not number,
        )
        for number, (name, info, found) in enumerate(zip(names, vm.images, seen))
    )


def _allocated(store: Store, info: ObjectInfo, found: Description, is_path: bool) -> int:
    """Bytes that the image takes: of a raw one, without its holes."""
    if found.format != "raw" or not is_path:
        return info.size
    return sum(extent.length for extent in store.extents(info.key, info.size) if extent.kind == "data")
