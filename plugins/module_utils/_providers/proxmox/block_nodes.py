# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which node of QEMU's block graph is a disk, and which dirty bitmaps it has.

The drive `scsi0` is the device `drive-scsi0` up to Proxmox VE 8; since then it is the node of that name, which limits
the guest's throughput, with the image below it (PVE::QemuServer::Blockdev). A backup that reads the image itself takes
nothing of what the guest may.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..._errors import VmferryError
from ..spec import VmSpec
from .keeper import Keeper

Command = Tuple[str, Mapping[str, Any]]
NODES: Sequence[Command] = (("query-named-block-nodes", {"flat": True}), ("query-block", {}))
_LIMITS = "throttle"
_IMAGES = ("raw", "qcow2", "vmdk", "qed", "vpc", "vdi")  # drivers of formats; those below them have the bytes


@dataclass(frozen=True)
class BlockNode:
    name: str
    size: int  # bytes
    bitmaps: Mapping[str, Mapping[str, Any]]  # as QEMU tells of them, by name

    def can_tell(self, bitmap: str) -> bool:
        """Whether it has recorded since it was made."""
        told = self.bitmaps.get(bitmap, {})
        return bool(told.get("recording")) and not told.get("inconsistent")


def block_nodes(keeper: Keeper, vm: VmSpec) -> Dict[str, BlockNode]:
    """By the drive's name. Raises `not_found` where it does not run."""
    nodes, devices = keeper.qmp(vm.id, *NODES)
    by_name = {node["node-name"]: node for node in nodes}
    found = {}
    for device in devices:
        top = device.get("inserted")
        if top is None:
            continue
        for name in (str(device.get("device", "")), str(top.get("node-name", ""))):
            if name.startswith("drive-"):
                below = _image_of(by_name.get(top["node-name"], top), nodes)
                bitmaps = {one["name"]: one for one in below.get("dirty-bitmaps", ()) if one.get("name")}
                size = int(below["image"]["virtual-size"])
                found[name[len("drive-") :]] = BlockNode(below["node-name"], size, bitmaps)
                break
    return found


def node_of(nodes: Mapping[str, BlockNode], drive: str, vm: VmSpec) -> BlockNode:
    if drive not in nodes:
        raise VmferryError(
            "conflict",
            f"The QEMU of {vm.name} has no disk {drive}: its configuration was changed, and it was not started anew.",
            "Restart the VM, or leave that disk out of disks.",
        )
    return nodes[drive]


def _image_of(top: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The image below what limits it. The top itself where that cannot be told for sure, which only is slower."""
    if top.get("drv") != _LIMITS:
        return top
    wanted = _storage_of(top)
    fitting = [node for node in nodes if node.get("drv") in _IMAGES and wanted and _storage_of(node) == wanted]
    return fitting[0] if len(fitting) == 1 else top


def _storage_of(node: Mapping[str, Any]) -> Optional[str]:
    """Where the bytes lie. QEMU calls a node by a path, or spells out what it stands on."""
    name = str(node.get("file", ""))
    if not name.startswith("json:"):
        return name or None
    try:
        told = json.loads(name[len("json:") :])
    except ValueError:
        return None
    while isinstance(told.get("file"), dict):
        told = told["file"]
    return str(told.get("filename") or json.dumps(told, sort_keys=True))


def all_bitmaps(keeper: Keeper, vm: VmSpec) -> List[Tuple[str, str, Mapping[str, Any]]]:
    """Node, name, and what QEMU tells, of every block node's."""
    (nodes,) = keeper.qmp(vm.id, NODES[0])
    return [
        (node["node-name"], one["name"], one)
        for node in nodes
        for one in node.get("dirty-bitmaps", ())
        if one.get("name")
    ]
