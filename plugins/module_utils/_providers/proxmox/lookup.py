# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs found by what users call them: a vmid, a name, or either behind the node's name."""

from __future__ import annotations

from typing import List, Sequence

from ..._errors import VmferryError
from .inventory import Guest, containers, guests
from .session import Session

SHOWN = 5  # of VMs that have the same name


def found(session: Session, vms: Sequence[str], doing: str) -> List[Guest]:
    """In the order asked for. Raises `not_found`, and `conflict` where several are called so: names are nobody's alone
    in Proxmox VE. A vmid is, and is no other's name, whatever others are called."""
    known = guests(session, doing)
    if not all(_fitting(vm, known) for vm in vms):
        known = guests(session, doing)  # one that was just migrated was on neither node when these were asked
    return [_one(session, vm, known, doing) for vm in vms]


def _fitting(called: str, known: Sequence[Guest]) -> List[Guest]:
    node, slash, last = called.rpartition("/")
    there = [guest for guest in known if not slash or guest.node == node]
    return [guest for guest in there if str(guest.vmid) == last] or [guest for guest in there if guest.name == last]


def _one(session: Session, called: str, known: Sequence[Guest], doing: str) -> Guest:
    fits = _fitting(called, known)
    last = called.rpartition("/")[2]
    if len(fits) == 1:
        return fits[0]
    if fits:
        shown = ", ".join(f"{guest.vmid} on {guest.node}" for guest in fits[:SHOWN])
        more = f" and {len(fits) - SHOWN} more" if len(fits) > SHOWN else ""
        raise VmferryError(
            "conflict",
            f"{len(fits)} VMs at {session.address} are called {called}: {shown}{more}.",
            "Name the one that is meant by its vmid.",
        )
    others = containers(session, doing)
    if last in others.values() or (last.isdigit() and int(last) in others):
        text = f"{called} at {session.address} is a container, and no VM."
        raise VmferryError("unsupported", text, "Containers have no disks of their own; back them up with vzdump.")
    raise VmferryError(
        "not_found",
        f"There is no VM {called} at {session.address}, or none that {session.settings.who} may see.",
        "List the VMs that are there with vmferry.migrate.vm_info. A user sees those that it has VM.Audit on.",
    )
