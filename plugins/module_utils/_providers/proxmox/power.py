# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting VMs, and having guests power themselves off.

https://pve.proxmox.com/pve-docs/api-viewer/#/nodes/{node}/qemu/{vmid}/status
"""

from __future__ import annotations

import time
from typing import Any, Mapping

from ..._errors import VmferryError
from ..spec import PowerState, VmSpec
from .describe import power_state
from .errors import locked
from .session import Session, part
from .tasks import stop

OPERATION_LIMIT = 600.0  # seconds for what Proxmox VE itself does
LOOK_EVERY = 1.0  # seconds
# Locks under which a VM starts: it was put to disk, or is being backed up.
_MAY_START = ("suspended", "backup")
_LONGEST_SHUTDOWN = 86400  # seconds


def path_of(vm: VmSpec) -> str:
    """Of its node's API."""
    return f"nodes/{part(vm.details['node'])}/qemu/{vm.details['vmid']}"


def insist_on_unlocked(vm: VmSpec, *but: str) -> None:
    """Raises `busy`. `but`: locks that do not matter."""
    lock = vm.details["lock"]
    if lock and lock not in but:
        raise locked(f"{vm.name} ({vm.id})", lock, vm.id)


def start(session: Session, vm: VmSpec) -> None:
    insist_on_unlocked(vm, *_MAY_START)
    doing = f"Starting {vm.name}"
    if vm.details["template"]:
        raise VmferryError(
            "unsupported", f"{vm.name} is a template, which cannot run.", "Clone it, and start the clone."
        )
    _task(session, vm, doing, "start", "powered_on", OPERATION_LIMIT)


def shut_down(session: Session, vm: VmSpec, timeout: float, force: bool) -> None:
    """The guest is asked by its agent where that is switched on, else by ACPI; both by Proxmox VE."""
    insist_on_unlocked(vm, "suspended")
    doing = f"Shutting {vm.name} down"
    state = _state(session, vm, doing)
    if state == "powered_off":
        return
    if state == "suspended" and not _runs(session, vm, doing):
        raise locked(vm.name, "suspended", vm.id)
    if state == "powered_on" and _goes_off(session, vm, doing, timeout):
        return
    if not force:
        raise VmferryError(
            "timeout",
            f"{vm.name} did not power off within {timeout:g} s."
            if state == "powered_on"
            else f"{vm.name} is {state}, so its guest cannot be asked to power off.",
            "Shut it down from within, or have its power cut with force: true. Without qemu-guest-agent, a guest has "
            "to heed ACPI.",
            retryable=True,
        )
    _task(session, vm, f"Cutting the power of {vm.name}", "stop", "powered_off", OPERATION_LIMIT)


def _goes_off(session: Session, vm: VmSpec, doing: str, timeout: float) -> bool:
    """A task of Proxmox VE asks the guest once, and waits. It is ended here, where it would wait longer than we do."""
    began = time.monotonic()
    seconds = min(_LONGEST_SHUTDOWN, max(1, int(timeout)))
    upid = ""
    try:
        with session.doing(doing):
            upid = session.post(f"{path_of(vm)}/status/shutdown", timeout=seconds, forceStop=0)
        session.wait(upid, seconds + 5.0, doing)
    except VmferryError as error:
        if _state(session, vm, doing) == "powered_off":
            return True
        if error.kind in ("permission_denied", "unauthenticated", "busy"):
            raise
        if upid:
            stop(session, upid, doing)
    left = max(0.0, began + timeout - time.monotonic())
    return _reaches(session, vm, doing, "powered_off", left)  # with high availability, the task only tells its manager


def _task(session: Session, vm: VmSpec, doing: str, action: str, wanted: PowerState, seconds: float) -> None:
    try:
        session.run(doing, lambda: session.post(f"{path_of(vm)}/status/{action}"), seconds)
    except VmferryError:
        if _state(session, vm, doing) != wanted:  # it may have gone there by itself meanwhile
            raise
    if not _reaches(session, vm, doing, wanted, seconds):
        state = _state(session, vm, doing)
        raise VmferryError("timeout", f"{doing} failed: after {seconds:g} s it is {state}.", "See ha-manager status.")


def _reaches(session: Session, vm: VmSpec, doing: str, wanted: PowerState, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _state(session, vm, doing) != wanted:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(LOOK_EVERY, left))
    return True


def _state(session: Session, vm: VmSpec, doing: str) -> PowerState:
    return power_state(_current(session, vm, doing))


def _runs(session: Session, vm: VmSpec, doing: str) -> bool:
    """Whether there is a process of it."""
    return _current(session, vm, doing).get("status") == "running"


def _current(session: Session, vm: VmSpec, doing: str) -> Mapping[str, Any]:
    with session.doing(doing):
        found: Mapping[str, Any] = session.get(f"{path_of(vm)}/status/current")
    return found
