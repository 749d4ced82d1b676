# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives and network cards in the configuration of a VM, which are lists of properties, and the volumes they name.

https://pve.proxmox.com/pve-docs/qm.conf.5.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..._appliances.qm_words import EFI_DISK, NIC_MODELS, PLACES, TPM_STATE
from ..spec import NicSpec

OWN_STATE = (EFI_DISK, TPM_STATE)  # volumes of the machine's own, which no guest sees as disks
_DRIVE = re.compile(rf"({'|'.join(PLACES)})(\d+)")
_NIC = re.compile(r"net(\d+)")
_UNUSED = re.compile(r"unused\d+")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT])?")
_UNITS = {None: 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_OWNED = re.compile(r"(?:vm|base|subvol|basevol)-(\d+)-")
_FORMATS = ("qcow2", "vmdk", "raw")
_CLOUD_INIT = re.compile(r"(?:vm|base)-\d+-cloudinit(?:\.(?:qcow2|raw))?")
_TAGGED = re.compile(r"(.+)\.(\d{1,4})")


@dataclass(frozen=True)
class Volume:
    """STORAGE:NAME, of any kind of storage; or what is not Proxmox VE's to manage, such as a device of the node.

    Names are 100/vm-100-disk-0.qcow2 in folders, vm-100-disk-0 with LVM, ZFS and Ceph, and of a linked clone
    9000/base-9000-disk-0.qcow2/100/vm-100-disk-0.qcow2 or base-9000-disk-0/vm-100-disk-0.
    """

    text: str

    @property
    def storage(self) -> str:
        return "" if self.text.startswith("/") or ":" not in self.text else self.text.partition(":")[0]

    @property
    def name(self) -> str:
        return self.text.partition(":")[2] if self.storage else self.text

    @property
    def owner(self) -> int:
        """The vmid that Proxmox VE removes it with; 0 of what is nobody's."""
        found = _OWNED.match(self._last)
        return int(found[1]) if found and self.storage else 0

    @property
    def format(self) -> str:
        """By its name: what lies on anything but files is raw, unless the name says another."""
        ending = self._last.rpartition(".")[2]
        return ending if ending in _FORMATS else "raw"

    @property
    def stands_on(self) -> str:
        """The volume of a template that a linked clone of it stands on; '' of any other."""
        parts = self.name.split("/")
        base = [number for number, one in enumerate(parts[:-1]) if one.startswith("base-")]
        return f"{self.storage}:{'/'.join(parts[: base[-1] + 1])}" if self.storage and base else ""

    @property
    def is_cloud_init(self) -> bool:
        return bool(_CLOUD_INIT.fullmatch(self._last)) or self.name == "cloudinit"

    @property
    def _last(self) -> str:
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class Drive:
    key: str  # scsi0
    volume: Volume
    options: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def bus(self) -> str:
        return self.key.rstrip("0123456789")

    @property
    def is_medium(self) -> bool:
        """A drive for CDs, which is also how cloud-init gets its settings."""
        return self.options.get("media") == "cdrom" or self.volume.text in ("none", "cdrom")

    @property
    def size(self) -> int:
        """Bytes as the configuration says, which may be older than the truth; 0 where it does not."""
        return size_in_bytes(self.options.get("size", ""))

    def is_on(self, option: str, default: bool = False) -> bool:
        given = self.options.get(option)
        return default if given is None else given in ("1", "on", "yes", "true")


def properties(text: Any, default_key: str = "") -> Dict[str, str]:
    """Of `a,b=c`: the first has the name `default_key` if it has none."""
    found: Dict[str, str] = {}
    for number, one in enumerate(str(text if text is not None else "").split(",")):
        name, equals, value = one.partition("=")
        if equals:
            found[name] = value
        elif one and not number:
            found[default_key] = one
    return found


def drive_of(key: str, text: Any) -> Drive:
    options = properties(text, "file")
    return Drive(key, Volume(options.pop("file", "none")), options)


def drives_of(config: Mapping[str, Any]) -> List[Drive]:
    """Disks and media, in the order in which Proxmox VE looks for one to boot from."""
    order = list(PLACES)
    found = [match for match in map(_DRIVE.fullmatch, config) if match]
    found.sort(key=lambda match: (order.index(match[1]), int(match[2])))
    return [drive_of(match[0], config[match[0]]) for match in found]


def disks_of(config: Mapping[str, Any]) -> List[Drive]:
    """What guests see as disks, the one that is booted from first."""
    found = [drive for drive in drives_of(config) if not drive.is_medium]
    boot = boot_disk(config, found)
    return sorted(found, key=lambda drive: drive.key != boot)


def boot_disk(config: Mapping[str, Any], disks: List[Drive]) -> str:
    """The key of the first disk of those that are booted from; the one that Proxmox VE finds, where none is said."""
    order = properties(config.get("boot"), "legacy").get("order", str(config.get("bootdisk") or ""))
    known = [drive.key for drive in disks]
    return next((key for key in [*order.split(";"), *known] if key in known), "")


def own_state(config: Mapping[str, Any]) -> Dict[str, Drive]:
    """Of `efidisk0` and `tpmstate0`, those that it has."""
    return {key: drive_of(key, config[key]) for key in OWN_STATE if config.get(key)}


def unused_volumes(config: Mapping[str, Any]) -> List[str]:
    """That are the VM's, and not in it any more. They go when it goes."""
    return [str(config[key]) for key in sorted(config) if _UNUSED.fullmatch(key)]


def size_in_bytes(text: str) -> int:
    """Of `32G`; 0 of what is no size (PVE::JSONSchema::parse_size)."""
    found = _SIZE.fullmatch(text)
    return int(float(found[1]) * _UNITS[found[2]]) if found else 0


def nics_of(config: Mapping[str, Any]) -> Tuple[NicSpec, ...]:
    """A network is the bridge, and with a VLAN it is written as Linux writes that: vmbr0.5."""
    found = sorted((match for match in map(_NIC.fullmatch, config) if match), key=lambda match: int(match[1]))
    return tuple(_nic(number, properties(config[match[0]], "model")) for number, match in enumerate(found))


def network_name(bridge: str, vlan: str = "") -> str:
    return f"{bridge}.{vlan}" if bridge and vlan else bridge


def bridge_and_vlan(network: str) -> Tuple[str, Optional[int]]:
    """What `network_name` was made of."""
    found = _TAGGED.fullmatch(network)
    return (found[1], int(found[2])) if found else (network, None)


def _nic(number: int, values: Mapping[str, str]) -> NicSpec:
    """`virtio=MAC,bridge=vmbr0` is short for `model=virtio,macaddr=MAC,bridge=vmbr0`."""
    model = next((name for name in (values.get("model", ""), *values) if name.lower() in NIC_MODELS), "")
    mac = values.get("macaddr") or values.get(model, "")
    network = network_name(values.get("bridge", ""), values.get("tag", ""))
    kind = "bridge" if values.get("bridge") else "user"
    return NicSpec(f"nic-{number}", mac.lower() if _MAC.fullmatch(mac) else "", network, model, kind)
