# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest's file systems, frozen through its agent for as short as it takes to fix a point in time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Iterator

from ..._errors import VmferryError
from .connection import Connection

if TYPE_CHECKING:
    import libvirt

FREEZE_TIMEOUT = 15  # seconds; Windows ends a freeze by itself after 10
THAW_PATIENCE = 30.0  # seconds for a libvirtd that is just then restarting
THAW_ATTEMPTS = 3


@contextmanager
def frozen(connection: Connection, uuid: str, vm_name: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Raises what the freeze failed with, nothing being frozen then, or that the guest could not be thawed.

    `tell` gets `freeze` before and `thawed` after.
    """
    tell("freeze")
    try:
        _freeze(connection, uuid, vm_name)
    except VmferryError as error:
        if error.kind != "conflict":  # not one that somebody else has frozen
            # A freeze that was too slow for us may still happen.
            _thaw(connection, uuid, vm_name, must=error.kind != "unsupported")
        tell("thawed")
        raise
    try:
        yield
    finally:
        _thaw(connection, uuid, vm_name, must=True)
        tell("thawed")


def _freeze(connection: Connection, uuid: str, vm_name: str) -> None:
    def work(opened: libvirt.virConnect) -> None:
        import libvirt

        domain = opened.lookupByUUIDString(uuid)
        # Without it libvirt waits for ever, with the VM's lock held. It cannot be asked for the value before; this is
        # the one that every VM starts with.
        domain.agentSetResponseTimeout(FREEZE_TIMEOUT)
        try:
            domain.fsFreeze()
        finally:
            domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK)

    connection.once(f"Freezing the file systems of {vm_name}", work)


def _thaw(connection: Connection, uuid: str, vm_name: str, *, must: bool) -> None:
    def work(domain: libvirt.virDomain) -> None:
        if domain.isActive():
            domain.fsThaw()

    for attempt in range(THAW_ATTEMPTS if must else 1):
        try:
            connection.domain(uuid, f"Thawing the file systems of {vm_name}", work, THAW_PATIENCE)
            return
        except VmferryError as error:
            if must and attempt == THAW_ATTEMPTS - 1:
                error.hint = "Thaw it by hand: virsh domfsthaw, or fsfreeze --unfreeze in the guest."
                raise
