# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting VMs, and having guests power themselves off."""

from __future__ import annotations

import time
from typing import Tuple

from ..._errors import VmferryError
from ..spec import PowerState, VmSpec
from .describe import describe_these
from .faults import is_fault, is_passing
from .properties import retrieve
from .session import Session
from .tasks import run_task

OPERATION_LIMIT = 600.0  # seconds for what vSphere itself does
LOOK_EVERY = 2.0  # seconds
_STATE = ("runtime.powerState", "guest.toolsRunningStatus")
ASK_EVERY = 30.0  # seconds: a guest that was just booting did not hear it


def start(session: Session, vm: VmSpec) -> None:
    _run(session, vm, f"Starting {vm.name}", "PowerOnVM_Task", "powered_on")


def shut_down(session: Session, vm: VmSpec, timeout: float, force: bool) -> None:
    if _goes_off(session, vm, timeout):
        return
    if not force:
        raise VmferryError(
            "timeout",
            f"{vm.name} did not power off within {timeout:g} s.",
            "Shut it down from within, or have its power cut with force: true. Without VMware Tools, or open-vm-tools, "
            "a guest cannot be asked.",
            retryable=True,
        )
    _run(session, vm, f"Cutting the power of {vm.name}", "PowerOffVM_Task", "powered_off")


def _goes_off(session: Session, vm: VmSpec, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    ask_at = time.monotonic()
    while True:
        now = time.monotonic()
        try:
            power_state, tools_run = _look(session, vm)
            if power_state == "poweredOff":
                return True
            if power_state != "poweredOn" or now >= deadline:  # suspended, its CPUs stand still, so it cannot hear
                return False
            if now >= ask_at and tools_run:
                _ask(session, vm)
                ask_at = now + ASK_EVERY
        except VmferryError as error:
            if not is_passing(error) or now >= deadline:
                raise
        time.sleep(max(0.0, min(LOOK_EVERY, deadline - now)))


def _look(session: Session, vm: VmSpec) -> Tuple[str, bool]:
    """Its power state as vSphere calls it, and whether VMware Tools run."""
    machine = session.managed("VirtualMachine", vm.details["moref"])
    rows = session.read(
        f"Looking at {vm.name}", lambda content: retrieve(content, [machine], (), {"VirtualMachine": _STATE})
    )
    power_state, tools = (rows[vm.details["moref"]].get(path, "") for path in _STATE)
    return power_state, tools == "guestToolsRunning"


def _ask(session: Session, vm: VmSpec) -> None:
    """It may be off by now, or its agent may be gone for a moment, as it is while the guest shuts down."""
    machine = session.managed("VirtualMachine", vm.details["moref"])
    try:
        session.once(f"Shutting {vm.name} down", lambda _content: machine.ShutdownGuest())
    except VmferryError as error:
        if not any(is_fault(error.__cause__, name) for name in ("InvalidState", "ToolsUnavailable")):
            raise


def _run(session: Session, vm: VmSpec, doing: str, method: str, wanted: PowerState) -> None:
    machine = session.managed("VirtualMachine", vm.details["moref"])
    try:
        run_task(session, doing, lambda _content: getattr(machine, method)(), OPERATION_LIMIT)
    except VmferryError:
        if _now(session, vm).power_state != wanted:  # it may have gone there by itself meanwhile
            raise


def _now(session: Session, vm: VmSpec) -> VmSpec:
    return describe_these(session, [vm.details["moref"]], f"Looking at {vm.name}")[0]
