# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user has to be allowed for an import, asked of Proxmox VE before anything is made.

https://pve.proxmox.com/pve-docs/chapter-pveum.html#_permission_management, and the `permissions` of each call.
"""

from __future__ import annotations

from typing import AbstractSet, Any, Iterator, List, Sequence

from ..base import Placement
from ..finding import Finding
from ..spec import VmSpec
from .session import Session

ON_STORAGE, ON_BRIDGE = "Datastore.AllocateSpace", "SDN.Use"
TO_START = "VM.PowerMgmt"
_ALWAYS = ("VM.Allocate", "VM.Audit", "VM.Config.CPU", "VM.Config.Disk", "VM.Config.HWType", "VM.Config.Memory")
_OPTIONS, _CDROM, _NETWORK = "VM.Config.Options", "VM.Config.CDROM", "VM.Config.Network"


def privileges_for(vm: VmSpec, placement: Placement) -> Sequence[str]:
    """On the VM, or on the pool that it goes into."""
    found: List[str] = [*_ALWAYS, _OPTIONS]
    if any(kind == "cdrom" for kind, _name in vm.drives):
        found.append(_CDROM)
    if vm.nics:
        found.append(_NETWORK)
    if placement.power_on:
        found.append(TO_START)
    return found


def privilege_findings(
    session: Session,
    vm: VmSpec,
    placement: Placement,
    vmid: int,
    storages: Sequence[str],
    bridges: Sequence[str],
) -> Iterator[Finding]:
    """`vmid`: that it would get. `bridges`: their paths."""
    held = held_on(session, f"/vms/{vmid}")
    if placement.resource_pool:
        held = held | held_on(session, f"/pool/{placement.resource_pool}")
    where = f"/pool/{placement.resource_pool}" if placement.resource_pool else "/vms"
    missing = [name for name in privileges_for(vm, placement) if name not in held]
    if missing:
        yield _missing(session, missing, where)
    for storage in storages:
        if ON_STORAGE not in held_on(session, f"/storage/{storage}"):
            yield _missing(session, [ON_STORAGE], f"/storage/{storage}")
    for bridge in bridges:
        if ON_BRIDGE not in held_on(session, bridge):
            yield _missing(session, [ON_BRIDGE], bridge)


def held_on(session: Session, path: str) -> AbstractSet[str]:
    with session.doing(f"Asking what {session.settings.who} may do on {path}"):
        told: Any = session.get("access/permissions", path=path)
    return {name for privileges in (told or {}).values() for name in privileges}


def _missing(session: Session, names: Sequence[str], path: str) -> Finding:
    who = session.settings.who
    text = f"{who} may not do all that an import asks for on {path}: it lacks {', '.join(names)}."
    hint = f"Give it a role with them: pveum acl modify {path} --{'tokens' if '!' in who else 'users'} '{who}' "
    return Finding("error", text, f"{hint}--roles ROLE. See docs/proxmox.md.", "permission_denied")
