# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The volumes of a VM that is off, as a node's own tools open them."""

from __future__ import annotations

from contextlib import ExitStack

from ..._errors import VmferryError
from ..._nbd.source import NbdSource
from .keeper import Keeper
from .node import Node
from .node_nbd import served

NBD_TIMEOUT = 60.0  # seconds without a byte
NBD_RETRIES = 2
DEVICES = "/dev/"


def volume_path(node: Node, volume: str) -> str:
    """A file, a device, or what QEMU opens by its own drivers: `rbd:…`. Whether anything is there is not asked."""
    if volume.startswith("/"):
        return volume
    return node.run(["pvesm", "path", volume]).decode("utf-8", "surrogateescape").strip()


def activate(keeper: Keeper, path: str) -> None:
    """A logical volume of a VM that is off has no device: https://pve.proxmox.com/pve-docs/chapter-pvesm.html."""
    if path.startswith(DEVICES) and not keeper.node.exists(path):
        keeper.will(kind="active", path=path)
        keeper.node.run(["lvchange", "-ay", "-K", path])  # -K: snapshots are skipped otherwise


def open_volume(stack: ExitStack, keeper: Keeper, folder: str, volume: str, format: str) -> NbdSource:
    """Locked against VMs that would start on it, as far as its storage has locks. `folder`: the job's."""
    path = volume_path(keeper.node, volume)
    activate(keeper, path)
    if path.startswith("/"):  # others are opened by drivers of QEMU, which has locks of its own there
        keeper.lock(path)
    address = stack.enter_context(served(keeper, folder, path, format, read_only=True))
    source = NbdSource(address, idle_timeout=NBD_TIMEOUT, retries=NBD_RETRIES)
    stack.callback(source.close)
    return source


def stamp(node: Node, path: str) -> str:
    """What changes with a file; empty for what is none, or is not there."""
    if not path.startswith("/") or path.startswith(DEVICES):
        return ""
    try:
        return node.run(["stat", "--dereference", "--format=%i %s %y %z", "--", path]).decode().strip()
    except VmferryError as error:
        if error.kind != "not_found":
            raise
        return ""
