# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an import lands: the node, storages and bridges that a task names, found in the cluster."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..._errors import VmferryError
from ..base import Placement
from ..network_names import mapped_network
from ..spec import DiskSpec, NicSpec
from .drives import bridge_and_vlan
from .session import Session, part

SHOWN = 8  # names in a hint
FORMATS = ("raw", "qcow2", "vmdk")
LARGEST_VLAN = 4094
OF_NODES = "localnetwork"  # the zone of bridges that the nodes have by themselves: pveum(1), SDN.Use
_VNET = "vnet"
_ON_FILES = ("dir", "nfs", "cifs", "glusterfs")  # types of storages that older versions tell no formats of
# What is new there reads as zeros, as Proxmox VE itself takes it (pve-storage, the feature `sparseinit` of plugins). An
# LVM volume, or one of another maker's plugin, holds what was there before.
_NEW_READS_ZERO = ("dir", "nfs", "cifs", "glusterfs", "btrfs", "lvmthin", "zfspool", "rbd")
_HAVE_HEADS = ("qcow2", "vmdk")  # formats that say of themselves what was never written


@dataclass(frozen=True)
class Storage:
    """`avail`: bytes, None where the storage does not tell."""

    name: str
    kind: str
    formats: Sequence[str]
    default_format: str
    avail: Optional[int]

    def format_of(self, wanted: str) -> str:
        """Raises `invalid_config` for one that it does not take."""
        if wanted and wanted not in self.formats:
            text = f"The storage {self.name} ({self.kind}) takes no disks in the format {wanted}."
            raise VmferryError(
                "invalid_config", text, f"Set placement.disk_format to one of {', '.join(self.formats)}."
            )
        return wanted or self.default_format

    def reads_zero(self, format: str) -> bool:
        """Whether what was never written to a new volume reads as zeros."""
        return format in _HAVE_HEADS or self.kind in _NEW_READS_ZERO


class ImportPlaces:
    """What is asked of it raises `not_found`, `conflict` or `invalid_config` where the task names what is not there, or
    too little. Each list is read once."""

    def __init__(self, session: Session, placement: Placement) -> None:
        self._session, self._placement = session, placement
        self._node = ""
        self._storages: Optional[Mapping[str, Storage]] = None
        self._bridges: Optional[Mapping[str, str]] = None  # their types by name

    @property
    def node(self) -> str:
        """On which the VM is made: that of the task, this very machine, the only one, or the one that answers."""
        if not self._node:
            self._node = self._chosen()
        return self._node

    @property
    def path(self) -> str:
        """Of the node's API."""
        return f"nodes/{part(self.node)}"

    def storage_of(self, disk: DiskSpec) -> Storage:
        mapped = self._placement.storage_map
        return self._storage(mapped.get(disk.id) or mapped.get(disk.name) or self._placement.storage)

    def home(self) -> Storage:
        """Of what belongs to the machine itself, such as its firmware's variables."""
        return self._storage(self._placement.storage)

    def network_of(self, nic: NicSpec) -> Tuple[str, Optional[int]]:
        """A bridge and a VLAN."""
        wanted = mapped_network(nic, self._placement) or nic.network
        there = self.bridges()
        bridge, vlan = (wanted, None) if wanted in there else bridge_and_vlan(wanted)
        if bridge not in there:
            text = f"There is no bridge {bridge or '(without a name)'} for {nic.id} on {self.node}"
            text += f", or none that {self._session.settings.who} may use."
            raise VmferryError("not_found", text, f"Map it with network_map; there are {_told(list(there))}.")
        if vlan is not None and not 1 <= vlan <= LARGEST_VLAN:
            text = f"The VLAN {vlan} of {wanted} for {nic.id} is none."
            raise VmferryError("invalid_config", text, f"VLANs are 1 to {LARGEST_VLAN}, as in {bridge}.20.")
        return bridge, vlan

    def bridges(self) -> Mapping[str, str]:
        """Their types by name: those of the node, and VNets of the cluster. A user sees those that it may use."""
        if self._bridges is None:
            with self._session.doing(f"Looking for the bridges of {self.node}"):
                rows = self._session.get(f"{self.path}/network", type="any_bridge")
            found = {str(row["iface"]): str(row.get("type", "")) for row in rows if row.get("iface")}
            self._bridges = dict(sorted(found.items()))
        return self._bridges

    def bridge_paths(self, nics: Sequence[NicSpec]) -> Sequence[str]:
        """Of access control, for what these network cards use: a VNet is in a zone that its user may see anyway."""
        used = {self.network_of(nic) for nic in nics}
        return sorted(
            f"/sdn/zones/{OF_NODES}/{bridge}" + (f"/{vlan}" if vlan is not None else "")
            for bridge, vlan in used
            if self.bridges()[bridge] != _VNET
        )

    def storages(self) -> Mapping[str, Storage]:
        """Those that take disks of VMs there, and can be reached."""
        if self._storages is None:
            with self._session.doing(f"Looking for the storages of {self.node}"):
                rows = self._session.get(f"{self.path}/storage", content="images", enabled=1, format=1)
            found = [_storage(row) for row in rows if int(row.get("active", 1))]
            self._storages = {one.name: one for one in sorted(found, key=lambda one: one.name)}
        return self._storages

    def _storage(self, wanted: str) -> Storage:
        there = self.storages()
        if wanted in there:
            return there[wanted]
        if wanted:
            text = f"There is no storage {wanted} for disks of VMs on {self.node}, or none that can be reached"
            text += f" and that {self._session.settings.who} may use."
            raise VmferryError("not_found", text, f"There are {_told(list(there))}.")
        if len(there) == 1:
            return next(iter(there.values()))
        text = f"{self.node} has {len(there)} storages for disks of VMs, and nothing says which one to use."
        hint = f"Set placement.storage to one of {_told(list(there))}." if there else "Add a storage for disk images."
        raise VmferryError("invalid_config", text, hint)

    def _chosen(self) -> str:
        with self._session.doing("Looking for a node"):
            rows = self._session.get("nodes")
        states: Dict[str, bool] = {str(row["node"]): row.get("status") == "online" for row in rows}
        wanted = self._placement.host
        if wanted and wanted not in states:
            hint = f"There are {_told(sorted(states))}."
            raise VmferryError("not_found", f"There is no node {wanted} at {self._session.address}.", hint)
        if wanted and not states[wanted]:
            raise VmferryError("conflict", f"The node {wanted} is offline.", "Choose another with placement.host.")
        online = sorted(name for name, is_online in states.items() if is_online)
        here = platform.node().partition(".")[0]
        if wanted or here in online:
            return wanted or here
        if len(online) == 1:
            return online[0]
        return self._answering(online)

    def _answering(self, online: Sequence[str]) -> str:
        """Of several nodes, the one that this session speaks with."""
        try:
            with self._session.doing("Asking which node answers"):
                rows = self._session.get("cluster/status")
        except VmferryError as error:
            if error.kind != "permission_denied":
                raise
            rows = []
        local = [str(row.get("name", "")) for row in rows if row.get("type") == "node" and int(row.get("local") or 0)]
        found = [name for name in local if name in online]
        if len(found) != 1:
            text = f"{self._session.address} has {len(online)} nodes, and nothing says on which the VM is to be."
            raise VmferryError("invalid_config", text, f"Set placement.host to one of {_told(online)}.")
        return found[0]


def _storage(row: Mapping[str, Any]) -> Storage:
    kind = str(row.get("type", ""))
    supported, default = _formats(row, kind)
    avail = row.get("avail")
    return Storage(str(row["storage"]), kind, supported, default, int(avail) if avail is not None else None)


def _formats(row: Mapping[str, Any], kind: str) -> Tuple[Sequence[str], str]:
    """Versions before 9 tell it in another form, as `[{"raw": 1, "qcow2": 1}, "raw"]`."""
    told = row.get("formats")
    older = row.get("format")
    if isinstance(told, Mapping):
        supported, default = list(told.get("supported") or ()), str(told.get("default") or "")
    elif isinstance(older, list) and len(older) == 2 and isinstance(older[0], Mapping):
        supported, default = [name for name, takes in older[0].items() if takes], str(older[1])
    else:
        supported, default = (list(FORMATS) if kind in _ON_FILES else ["raw"]), "raw"
    found = [name for name in FORMATS if name in supported] or ["raw"]
    return found, default if default in found else found[0]


def _told(names: Sequence[str]) -> str:
    shown: List[str] = list(names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(shown) + more if shown else "none"
