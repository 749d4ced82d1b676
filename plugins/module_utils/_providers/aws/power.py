# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting instances, and stopping them: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Stop_Start.html"""

from __future__ import annotations

import time
from typing import Any, Callable, Optional, Sequence

from ..._errors import VmferryError
from ..spec import VmSpec
from .asking import instances_of
from .session import Session

OPERATION_LIMIT = 600.0  # seconds for what AWS itself does
LOOK_EVERY = 3.0  # seconds
_ON_ITS_WAY = ("pending", "stopping")
_OFF, _ON = "stopped", "running"
_GONE = ("shutting-down", "terminated")


def settle(session: Session, vm: VmSpec) -> None:
    """Wait while it starts or stops."""
    _wait(session, vm, f"Looking at {vm.name}", lambda state: state not in _ON_ITS_WAY, OPERATION_LIMIT)


def start(session: Session, vm: VmSpec) -> None:
    doing = f"Starting {vm.name}"
    settle(session, vm)
    with session.doing(doing):
        session.client("ec2").start_instances(InstanceIds=[vm.id])
    _wait(session, vm, doing, lambda state: state == _ON, OPERATION_LIMIT, falls_back_to=_OFF)


def shut_down(session: Session, vm: VmSpec, timeout: float, force: bool) -> None:
    """AWS asks the guest by ACPI, and cuts the power by itself where the guest takes longer than some minutes."""
    doing = f"Shutting {vm.name} down"
    deadline = time.monotonic() + timeout
    _wait(session, vm, doing, lambda state: state != "pending", OPERATION_LIMIT)
    with session.doing(doing):
        session.client("ec2").stop_instances(InstanceIds=[vm.id])
    try:
        _wait(session, vm, doing, lambda state: state == _OFF, max(0.0, deadline - time.monotonic()))
    except VmferryError as error:
        if error.kind != "timeout":
            raise
        if not force:
            raise VmferryError(
                "timeout",
                f"{vm.name} did not stop within {timeout:g} s; AWS is still stopping it.",
                "Run it again to wait longer, or have its power cut with force: true.",
                retryable=True,
            ) from error
        with session.doing(f"Cutting the power of {vm.name}"):
            session.client("ec2").stop_instances(InstanceIds=[vm.id], Force=True)
        _wait(session, vm, f"Cutting the power of {vm.name}", lambda state: state == _OFF, OPERATION_LIMIT)


def wait_until_gone(session: Session, vm: VmSpec) -> None:
    doing = f"Removing {vm.name}"
    _wait(session, vm, doing, lambda state: state in ("terminated", ""), OPERATION_LIMIT, may_go=True)


def _wait(
    session: Session,
    vm: VmSpec,
    doing: str,
    done: Callable[[str], bool],
    seconds: float,
    falls_back_to: str = "",
    may_go: bool = False,
) -> None:
    """`falls_back_to`: a state that means that it did not work, once it has left it."""
    deadline = time.monotonic() + seconds
    left_it = False
    while True:
        instance = _look(session, vm, doing)
        state = instance["State"]["Name"] if instance is not None else ""
        if done(state):
            return
        if not may_go and (instance is None or state in _GONE):
            raise VmferryError("not_found", f"{doing} failed: {vm.id} is gone.", "Somebody terminated it.")
        left_it = left_it or state != falls_back_to
        if instance is not None and falls_back_to and left_it and state == falls_back_to:
            why = instance.get("StateReason", {}).get("Message") or instance.get("StateTransitionReason") or state
            hint = "Look at it in AWS: a key of KMS that may not be used is a common reason."
            raise VmferryError("conflict", f"{doing} failed: AWS stopped it again ({why}).", hint)
        left = deadline - time.monotonic()
        if left <= 0:
            raise VmferryError("timeout", f"{doing} was not done within {seconds:.0f} s: {vm.id} is {state}.")
        time.sleep(min(LOOK_EVERY, left))


def _look(session: Session, vm: VmSpec, doing: str) -> Optional[Any]:
    found: Sequence[Any] = instances_of(session, doing, "instance-id", [vm.id])
    return found[0] if found else None
