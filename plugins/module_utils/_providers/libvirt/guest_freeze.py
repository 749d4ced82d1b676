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

AGENT_TIMEOUT = 10  # seconds; Windows itself ends a freeze that takes longer
THAW_PATIENCE = 30.0  # seconds for a libvirtd that is just then restarting
THAW_ATTEMPTS = 3


@contextmanager
def frozen(connection: Connection, uuid: str, vm_name: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Raises what the freeze failed with, or that the guest could not be thawed.

    `tell` gets `freeze` before, and `thawed` once the guest is known not to be frozen by us.
    """
    tell("freeze")
    try:
        _freeze(connection, uuid, vm_name)
    except VmferryError as error:
        # What took too long for us may still happen; a refusal is final, and may mean that it is another's freeze.
        if error.kind not in ("timeout", "network") or _thaws(connection, uuid, vm_name):
            tell("thawed")
        raise
    try:
        yield
    finally:
        _thaw(connection, uuid, vm_name)
        tell("thawed")


def _freeze(connection: Connection, uuid: str, vm_name: str) -> None:
    def work(opened: libvirt.virConnect) -> None:
        domain = opened.lookupByUUIDString(uuid)
        with _patience(domain):
            domain.fsFreeze()

    connection.once(f"Freezing the file systems of {vm_name}", work)


def _thaw(connection: Connection, uuid: str, vm_name: str) -> None:
    def work(domain: libvirt.virDomain) -> None:
        if domain.isActive():
            _thaw_once(domain)

    for left in range(THAW_ATTEMPTS - 1, -1, -1):
        try:
            connection.domain(uuid, f"Thawing the file systems of {vm_name}", work, THAW_PATIENCE)
            return
        except VmferryError as error:
            if not left:
                error.hint = "Thaw it by hand: virsh domfsthaw, or fsfreeze --unfreeze in the guest."
                raise


def _thaw_once(domain: libvirt.virDomain) -> None:
    with _patience(domain):
        domain.fsThaw()


@contextmanager
def _patience(domain: libvirt.virDomain) -> Iterator[None]:
    """Without it libvirt waits for a hung agent for ever (measured). It cannot be asked for the value before; the one
    that is put back is the one that every VM starts with.
    """
    import libvirt

    domain.agentSetResponseTimeout(AGENT_TIMEOUT)
    try:
        yield
    finally:
        domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK)


def _thaws(connection: Connection, uuid: str, vm_name: str) -> bool:
    try:
        connection.domain(uuid, f"Thawing the file systems of {vm_name}", _thaw_once)
    except VmferryError:  # the watchdog goes on trying
        return False
    return True
