# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest's file systems, frozen through its agent for as short as it takes to fix a point in time."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Callable, Iterator

from ..._errors import VmferryError
from .connection import Connection

if TYPE_CHECKING:
    import libvirt

AGENT_TIMEOUT = 10  # seconds; Windows itself ends a freeze that takes longer
THAW_PATIENCE = 30.0  # seconds for a libvirtd that is just then restarting
THAW_ATTEMPTS = 3
THAW_PAUSE = 1.0  # seconds between two attempts while nobody knows whether the guest is frozen


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
    """Whether the guest is known not to be frozen any more. An agent carries out one order after the other, so an
    answer to this one means that the freeze before it is over too.
    """

    def work(domain: libvirt.virDomain) -> None:
        if domain.isActive():
            _thaw_once(domain)

    try:
        connection.domain(uuid, f"Thawing the file systems of {vm_name}", work)
    except VmferryError as error:
        return error.kind == "not_found"
    return True


class PersistentThaw:
    """Beside an export whose freeze had no known end: thaws again and again, until it is known to be over.

    `tell` gets `thawed` then. Where that is not before `stop`, it is the watchdog that goes on.
    """

    def __init__(self, connection: Connection, uuid: str, vm_name: str, tell: Callable[[str], None]) -> None:
        self._connection, self._uuid, self._vm_name, self._tell = connection, uuid, vm_name, tell
        self._ended = Event()
        self._thread = Thread(target=self._run, name="vmferry-thaw", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(2 * AGENT_TIMEOUT)

    def _run(self) -> None:
        while not self._ended.wait(THAW_PAUSE):
            if _thaws(self._connection, self._uuid, self._vm_name):
                with suppress(VmferryError):  # without a watchdog, nobody has to hear of it
                    self._tell("thawed")
                return
