# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a VM as one of its snapshots holds them, and what the VM's present stands on.

The files of a snapshot's disks do not change for as long as it is there: what is written since goes into files of its
own (VirtualDiskFlatVer2BackingInfo.parent, in the vSphere Web Services API).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from .devices import Devices, Layout, leaf
from .properties import retrieve
from .session import Session
from .snapshot_tree import nodes

KIB = 1024
_DEVICES = "config.hardware.device"


@dataclass(frozen=True)
class FrozenDisk:
    """`file`: "[datastore] folder/name.vmdk". `base`: nothing is below it, and the VM's present is right above it."""

    key: int
    name: str  # as in DiskSpec
    size: int
    file: str
    uuid: str
    change_id: str  # empty where its changes are not tracked
    base: bool


@dataclass(frozen=True)
class FrozenDisks:
    """`only`: the VM has no other snapshot, and no files of snapshots that are gone. `off`: it is powered off now."""

    snapshot: str  # its MoRef
    disks: Mapping[str, FrozenDisk]  # by name; those that take no part in snapshots are not among them
    only: bool
    off: bool = False


def frozen_disks(session: Session, vm: str, snapshot: str, doing: str) -> FrozenDisks:
    """One round trip. `vm` and `snapshot` are MoRefs. Raises `not_found` where the snapshot is gone."""
    machine = session.managed("VirtualMachine", vm)
    taken = session.managed("VirtualMachineSnapshot", snapshot)
    paths = {
        "VirtualMachine": (_DEVICES, "runtime.consolidationNeeded", "runtime.powerState", "snapshot"),
        "VirtualMachineSnapshot": (_DEVICES,),
    }
    rows = session.read(doing, lambda content: retrieve(content, [machine, taken], (), paths))
    now = _disks(rows[vm].get(_DEVICES, ()))
    then = _disks(rows[snapshot].get(_DEVICES, ()))
    found = [node.moref for node in nodes(rows[vm].get("snapshot"))]
    return FrozenDisks(
        snapshot=snapshot,
        disks={name: _frozen(name, disk, now.get(name)) for name, disk in then.items() if _takes_part(disk)},
        only=found == [snapshot] and not rows[vm].get("runtime.consolidationNeeded"),
        off=rows[vm].get("runtime.powerState") == "poweredOff",
    )


def _frozen(name: str, disk: Any, now: Any) -> FrozenDisk:
    backing = disk.backing
    present = now.backing if now is not None else None
    above = getattr(present, "parent", None)
    return FrozenDisk(
        key=disk.key,
        name=name,
        size=int(disk.capacityInBytes or disk.capacityInKB * KIB),
        file=_file(backing),
        uuid=getattr(backing, "uuid", None) or "",
        change_id=getattr(backing, "changeId", None) or "",
        base=getattr(backing, "parent", None) is None
        and _file(backing) != ""
        and _file(above) == _file(backing)
        and getattr(above, "parent", None) is None
        and _file(present) != _file(backing),
    )


def _disks(devices: Sequence[Any]) -> Mapping[str, Any]:
    known = Devices(devices, (), Layout((), ()), {}, {}, False)
    return {known.name_of(one): one for one in devices if leaf(one) == "VirtualDisk"}


def _takes_part(disk: Any) -> bool:
    return not (getattr(disk.backing, "diskMode", None) or "").startswith("independent")


def _file(backing: Any) -> str:
    return getattr(backing, "fileName", None) or ""
