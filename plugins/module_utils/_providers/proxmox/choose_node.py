# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which way the disks of a VM are reached: on the node itself, where this process runs on it, or by SSH."""

from __future__ import annotations

import platform
import shutil

from ..._errors import VmferryError
from .local_node import LocalNode
from .node import Node
from .session import Session
from .settings import ProxmoxSettings
from .ssh_node import SshAddress, SshNode


def open_node(session: Session, settings: ProxmoxSettings, node: str) -> Node:
    """`node`: its name in the cluster. Raises as `SshNode` does, and `unsupported` where settings allow no way."""
    here = is_here(node)
    if settings.transport == "api":
        text = f"The API of Proxmox VE reads no disks, and the transport api allows nothing else on {node}."
        raise VmferryError("unsupported", text, "Set proxmox.transport to auto, ssh or node.")
    if settings.transport == "node" and not here:
        text = f"The VM is on node {node}, and this task runs on {platform.node()}, which is not that node."
        raise VmferryError("invalid_config", text, "Run the task on that node, or set proxmox.transport to ssh.")
    if settings.transport != "ssh" and here:
        return LocalNode()
    address = SshAddress(
        _address_of(session, settings, node),
        settings.ssh_user,
        settings.ssh_port,
        settings.ssh_private_key_file,
        settings.ssh_known_hosts,
    )
    return SshNode(address)


def is_here(node: str) -> bool:
    """A node is called as its host is: https://pve.proxmox.com/pve-docs/chapter-pvecm.html."""
    return platform.node().partition(".")[0] == node and shutil.which("pvesm") is not None


def _address_of(session: Session, settings: ProxmoxSettings, node: str) -> str:
    """As the task says it, or as the cluster does. One that is in no cluster is where its API is."""
    if node in settings.host_map:
        return str(settings.host_map[node])
    try:
        with session.doing(f"Asking for the address of node {node}"):
            known = session.get("cluster/status")
    except VmferryError as error:
        if error.kind == "permission_denied":
            error.hint = f"Say it in proxmox.host_map, such as {node}: 192.0.2.11. Or: {error.hint}"
        raise
    for one in known:
        if one.get("type") == "node" and one.get("name") == node and one.get("ip"):
            return str(one["ip"])
    return settings.api_host
