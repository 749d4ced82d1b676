# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VMs a cluster has, and on which nodes.

What the cluster tells of a VM's name and state is some seconds old, and of a new one it tells none: each node that is
there is asked for its own. Of a node that is away, the cluster still knows what it had.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple, TypeVar

from ..._errors import VmferryError
from .session import Session, part

AT_ONCE = 8  # requests: a node has three workers for them, and a cluster some nodes
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Guest:
    """A VM as lists show it."""

    vmid: int
    node: str
    name: str
    status: str = "unknown"
    template: bool = False
    pool: str = ""
    lock: str = ""
    tags: Tuple[str, ...] = ()
    reachable: bool = True  # whether its node can be asked

    @property
    def path(self) -> str:
        """Of its node's API."""
        return f"nodes/{part(self.node)}/qemu/{self.vmid}"


def guests(session: Session, doing: str) -> List[Guest]:
    """All that this user may see, but for containers and for what is on its way to or from another node."""
    with session.doing(doing):
        known = [_of_cluster(one) for one in session.get("cluster/resources", type="vm") if one.get("type") == "qemu"]
        nodes = {one["node"]: one.get("status") == "online" for one in session.get("nodes")}
    asked = sorted({guest.node for guest in known} | {node for node, online in nodes.items() if online})
    told = dict(zip(asked, at_once(lambda node: _of_node(session, doing, node, nodes.get(node, True)), asked)))
    pools = {guest.vmid: guest.pool for guest in known}
    away = [guest for guest in known if told.get(guest.node) is None]
    found = {guest.vmid: replace(guest, status="unknown", reachable=False) for guest in away}
    for rows in told.values():  # one that is migrated meanwhile may be on two of them
        found.update((guest.vmid, replace(guest, pool=pools.get(guest.vmid, ""))) for guest in rows or ())
    return [found[vmid] for vmid in sorted(found)]


def containers(session: Session, doing: str) -> Dict[int, str]:
    """By their vmids, which they share with VMs."""
    with session.doing(doing):
        rows = session.get("cluster/resources", type="vm")
    return {int(row["vmid"]): str(row.get("name") or "") for row in rows if row.get("type") == "lxc"}


def at_once(work: Callable[[Item], Result], items: Iterable[Item]) -> List[Result]:
    """In their order. The first error is raised."""
    some = list(items)
    if len(some) < 2:
        return [work(one) for one in some]
    with ThreadPoolExecutor(min(AT_ONCE, len(some)), thread_name_prefix="vmferry-proxmox") as threads:
        return list(threads.map(work, some))


def tags_in(text: Any) -> Tuple[str, ...]:
    """Semicolons stand between them, and in old configurations commas or spaces."""
    return tuple(tag for tag in re.split(r"[;,\s]+", str(text or "")) if tag)


def _of_node(session: Session, doing: str, node: str, online: bool) -> Sequence[Guest] | None:
    """None where it cannot be asked."""
    if not online:
        return None
    try:
        with session.doing(doing):
            rows = session.get(f"nodes/{part(node)}/qemu")
    except VmferryError as error:
        if error.kind not in ("network", "timeout") or not _others_answer(session):
            raise
        return None
    return [_guest(row, node) for row in rows]


def _others_answer(session: Session) -> bool:
    """Whether it is that node alone, and not the way to all of them."""
    try:
        with session.doing("Asking Proxmox VE for its version"):
            session.get("version")
    except VmferryError:
        return False
    return True


def _of_cluster(row: Mapping[str, Any]) -> Guest:
    return replace(_guest(row, str(row["node"])), pool=str(row.get("pool") or ""))


def _guest(row: Mapping[str, Any], node: str) -> Guest:
    vmid = int(row["vmid"])
    return Guest(
        vmid=vmid,
        node=node,
        name=str(row.get("name") or f"VM {vmid}"),
        status=str(row.get("status") or "unknown"),
        template=bool(int(row.get("template") or 0)),
        lock=str(row.get("lock") or ""),
        tags=tags_in(row.get("tags")),
    )
