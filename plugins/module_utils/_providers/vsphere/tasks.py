# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of vSphere: begun, waited for, and cancelled where they take too long."""

from __future__ import annotations

import time
from typing import Any, Callable, Optional

from ..._errors import VmferryError
from .faults import explained, is_fault, is_passing, may_have_happened
from .properties import retrieve, watching
from .session import Session

WAIT = 20  # seconds that the server may keep a call open while nothing changes; well below the limit of a call
RESTART = 2.0  # seconds between two looks while the server does not answer, as while vCenter restarts
AWAY_LIMIT = 3600.0  # seconds without any answer, after which nobody waits for the end of a task any more
CANCEL_LIMIT = 10.0  # seconds that a cancelled task is given to end
HEARING = 2  # seconds in which a job that is stopped is heard
STOPPED_LIMIT = 240.0  # seconds for the end of a task that a stopped job began, and that cannot be cancelled
LOOK = "Look at the VM, and at its recent tasks in the vSphere Client, before it is run again."
_STATE = ("info.state", "info.error", "info.result")


def run_task(
    session: Session,
    doing: str,
    begin: Callable[[Any], Any],
    seconds: float,
    stopped: Optional[Callable[[], bool]] = None,
) -> Any:
    """What the task that `begin` begins results in.

    Raises what it failed with; `timeout` after so many seconds, when it was cancelled, or goes on where it cannot be.
    Where nobody can tell whether it was done, the error says so, and is not retryable. One whose job is `stopped` is
    cancelled, too; its end is waited for, so that its job can undo it.
    """
    deadline = time.monotonic() + seconds
    try:
        task = session.once(doing, begin)
    except VmferryError as error:
        if not may_have_happened(error):
            raise
        text = f"{error.message} vSphere may have done it nevertheless."
        raise VmferryError(error.kind, text, LOOK, retryable=False) from error
    info = _ended(session, doing, task, deadline, stopped)
    if info is None:
        info = _cancelled(session, doing, task)
    if info is None and stopped is not None and stopped():
        info = _ended(session, doing, task, min(deadline, time.monotonic() + STOPPED_LIMIT))
    if info is None:
        hint = "It cannot be cancelled, so it goes on there. Run the task again once it has ended."
        name = task._moId
        raise VmferryError("timeout", f"{doing} did not end within {seconds:.0f} s: vSphere's {name} goes on.", hint)
    if info.get("info.state") == "error":
        fault = info.get("info.error")
        raise _failed(doing, fault, seconds, time.monotonic() >= deadline) from fault
    return info.get("info.result")


def _failed(doing: str, fault: Any, seconds: float, late: bool) -> VmferryError:
    error = explained(fault, doing)
    if late and error.kind == "cancelled":
        hint = "Run the task again, with a longer timeout."
        return VmferryError("timeout", f"{doing} did not end within {seconds:.0f} s, and was cancelled.", hint)
    return error


def _ended(
    session: Session, doing: str, task: Any, deadline: float, stopped: Optional[Callable[[], bool]] = None
) -> Any:
    """The task's properties once it has ended; None if it had not until then, or until its job was stopped."""
    heard = time.monotonic()

    def answered() -> None:
        nonlocal heard
        heard = time.monotonic()

    while True:
        try:
            return _watched(session, doing, task, deadline, answered, stopped)
        except VmferryError as error:
            if is_fault(error.__cause__, "ManagedObjectNotFound"):
                text = f"{doing}: vSphere has forgotten its {task._moId}, so whether it was done is not known."
                raise VmferryError("internal", text, LOOK) from error
            if not is_passing(error) or time.monotonic() >= min(deadline, heard + AWAY_LIMIT):
                raise
        time.sleep(RESTART)


def _watched(
    session: Session,
    doing: str,
    task: Any,
    deadline: float,
    answered: Callable[[], object],
    stopped: Optional[Callable[[], bool]],
) -> Any:
    def look(content: Any) -> Any:
        with watching(content, task, "Task", "info.state") as wait:
            while True:
                values = _properties(content, task)
                answered()
                if values.get("info.state") in ("success", "error"):
                    return values
                left = deadline - time.monotonic()
                if left <= 0 or (stopped is not None and stopped()):
                    return None
                wait(min(WAIT if stopped is None else HEARING, max(1, int(left))))

    return session.read(doing, look)


def _properties(content: Any, task: Any) -> Any:
    rows = retrieve(content, [task], (), {"Task": _STATE})
    return rows[task._moId].values


def _cancelled(session: Session, doing: str, task: Any) -> Any:
    try:
        session.once(f"Cancelling: {doing}", lambda _content: task.CancelTask())
    except VmferryError as error:
        if error.kind not in ("unsupported", "conflict", "permission_denied"):
            raise
        return None
    return _ended(session, doing, task, time.monotonic() + CANCEL_LIMIT)
