# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Having a guest power itself off, as its own power button would."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..._errors import VmferryError
from ..spec import PowerState, VmSpec
from .connection import Connection
from .describe import STATES

if TYPE_CHECKING:
    import libvirt

OFF: tuple[PowerState, ...] = ("powered_off", "crashed")
LOOK_EVERY = 0.5  # seconds
ASK_EVERY = 30.0  # seconds: a guest that was just booting did not hear it


def shut_down(connection: Connection, vm: VmSpec, timeout: float, force: bool) -> None:
    if not vm.details.get("persistent", True):
        raise VmferryError(
            "unsupported",
            f"{vm.name} is not defined in libvirt: once it is off, nothing is left of it.",
            f"Define it first: virsh dumpxml {vm.name} | virsh define /dev/stdin",
        )
    if _goes_off(connection, vm, timeout):
        return
    if not force:
        raise VmferryError(
            "timeout",
            f"{vm.name} did not power off within {timeout:g} s.",
            "Shut it down from within, or have its power cut with force: true.",
            retryable=True,
        )
    connection.domain(vm.id, f"Cutting the power of {vm.name}", _cut)


def _goes_off(connection: Connection, vm: VmSpec, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    ask_at = time.monotonic()
    while True:
        state = connection.domain(vm.id, f"Looking at {vm.name}", _state)
        if state in OFF:
            return True
        if state != "powered_on":  # its CPUs stand still, so it cannot hear
            return False
        now = time.monotonic()
        if now >= deadline:
            return False
        if now >= ask_at:
            connection.domain(vm.id, f"Shutting {vm.name} down", _ask)
            ask_at = now + ASK_EVERY
        time.sleep(min(LOOK_EVERY, deadline - now))


def _state(domain: libvirt.virDomain) -> PowerState:
    return STATES[domain.state()[0]]


def _ask(domain: libvirt.virDomain) -> None:
    """By the guest agent where it is connected, else by ACPI. It may be off by now, or go off in this very moment."""
    import libvirt

    if not domain.isActive():
        return
    try:
        domain.shutdown()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or domain.isActive():
            raise


def _cut(domain: libvirt.virDomain) -> None:
    """Gracefully means that QEMU may write back what it holds, and is not killed."""
    import libvirt

    if domain.isActive():
        domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
