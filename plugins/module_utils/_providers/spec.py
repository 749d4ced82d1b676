# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM in normalised words, the same for every provider; what `vm_info` returns and `vm.json` holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Collection, Literal, Mapping

# As filters have them too: YAML reads a bare `on` as a boolean, so no value may be called by it.
PowerState = Literal["powered_on", "powered_off", "paused", "suspended", "crashed", "unknown"]
_DRIVES: Mapping[str, str] = {"cdrom": "cdroms", "floppy": "floppies"}  # in `VmSpec.details`, by kind
Firmware = Literal["bios", "uefi", "unknown"]


@dataclass(frozen=True)
class DiskSpec:
    """One disk. `id` counts in boot order, `name` is the provider's own (`vda`, `scsi0`)."""

    id: str
    name: str
    size: int  # bytes, as the guest sees it
    format: str  # of what the provider stores: qcow2, raw …
    bus: str  # virtio, scsi, sata, ide, nvme …
    source: str  # path, volume or id on the provider
    storage: str = ""  # pool, datastore …; empty where it has none
    allocated: int | None = None  # bytes it takes on the provider
    boot: bool = False
    change_tracking: bool = False
    read_only: bool = False
    serial: str = ""
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)  # facts only this provider has


@dataclass(frozen=True)
class NicSpec:
    id: str
    mac: str
    network: str
    model: str = ""
    kind: str = ""  # network, bridge, user …


@dataclass(frozen=True)
class SnapshotSpec:
    name: str
    created: str = ""  # ISO 8601, UTC
    description: str = ""
    current: bool = False


@dataclass(frozen=True)
class VmSpec:
    provider: str
    id: str  # the provider's own, unique: a UUID on libvirt
    name: str
    path: str  # where the VM lies in the provider's inventory
    power_state: PowerState
    cpu: int
    memory_mb: int
    firmware: Firmware
    disks: tuple[DiskSpec, ...]
    nics: tuple[NicSpec, ...] = ()
    snapshots: tuple[SnapshotSpec, ...] = ()
    secure_boot: bool = False
    tpm: bool = False
    architecture: str = "x86_64"
    machine: str = ""
    guest_os: str = ""
    guest_agent: bool = False  # connected right now
    tags: tuple[str, ...] = ()
    host: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)  # facts only this provider has

    @property
    def storage_bytes(self) -> int:
        return sum(disk.size for disk in self.disks)

    @property
    def drives(self) -> tuple[tuple[str, str], ...]:
        """Kind (`cdrom`, `floppy`) and the provider's name of each drive for media."""
        return tuple((kind, one.get("name", "")) for kind, key in _DRIVES.items() for one in self.details.get(key, ()))

    def without_drives(self, kinds: Collection[str]) -> VmSpec:
        gone = {key for kind, key in _DRIVES.items() if kind in kinds}
        details = {key: [] if key in gone else value for key, value in self.details.items()}
        return replace(self, details=details)

    def with_disks(self, disks: tuple[DiskSpec, ...]) -> VmSpec:
        return replace(self, disks=disks)

    def to_json(self) -> bytes:
        return json.dumps(self.as_dict(), indent=1).encode() + b"\n"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "storage_bytes": self.storage_bytes}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VmSpec:
        """Unknown keys are left out: a newer version may have written them. Missing ones raise TypeError."""
        values = _known(cls, data)
        values["disks"] = tuple(DiskSpec(**_known(DiskSpec, disk)) for disk in data["disks"])
        values["nics"] = tuple(NicSpec(**_known(NicSpec, nic)) for nic in data.get("nics", ()))
        values["snapshots"] = tuple(SnapshotSpec(**_known(SnapshotSpec, one)) for one in data.get("snapshots", ()))
        values["tags"] = tuple(data.get("tags", ()))
        return cls(**values)


def _known(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in kind.__dataclass_fields__ if name in data}  # type: ignore[attr-defined]
