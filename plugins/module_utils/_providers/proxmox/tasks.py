# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of Proxmox VE: begun by a call that answers with an id (UPID), and looked at until they have ended.

https://pve.proxmox.com/pve-docs/api-viewer/#/nodes/{node}/tasks/{upid}
"""

from __future__ import annotations

import time
from typing import Any, ContextManager, List, Protocol, Tuple

from ..._errors import VmferryError
from .errors import explained
from .settings import ProxmoxSettings

FIRST_LOOK, LONGEST_PAUSE, SLOWER = 0.05, 2.0, 1.6  # seconds between looks, and by what they grow
# A node tells of a task that was begun by another one when its files have come over; so long it may know nothing of it.
UNKNOWN_FOR = 15.0  # seconds
LINES_TOLD = 5
_MOST_LINES = 5000  # of a log that is read from its beginning: nothing tells how many there are
_WARNED = "WARNINGS:"


class Api(Protocol):
    """What is needed of a session."""

    settings: ProxmoxSettings

    def doing(self, what: str) -> ContextManager[None]: ...

    def get(self, path: str, /, **params: Any) -> Any: ...

    def delete(self, path: str, /, **params: Any) -> Any: ...


def wait(session: Api, upid: str, timeout: float, doing: str) -> List[str]:
    """Its warnings. Raises what it failed with and, of a task that still runs after so many seconds, `timeout`."""
    node, began, pause = node_of(upid), time.monotonic(), FIRST_LOOK
    while True:
        status, ended_with = _look(session, node, upid, doing, began)
        if status == "stopped":
            return _ended(session, node, upid, ended_with, doing)
        left = began + timeout - time.monotonic()
        if left <= 0:
            hint = f"It goes on in Proxmox VE: see the task {upid} of node {node}."
            raise VmferryError("timeout", f"{doing} did not end within {timeout:g} s.", hint)
        time.sleep(max(0.01, min(pause, left)))
        pause = min(pause * SLOWER, LONGEST_PAUSE)


def stop(session: Api, upid: str, doing: str) -> None:
    """Have it ended. One that has ended by itself is no error."""
    try:
        with session.doing(doing):
            session.delete(f"nodes/{node_of(upid)}/tasks/{upid}")
    except VmferryError as error:
        if error.kind not in ("not_found", "conflict"):
            raise


def node_of(upid: str) -> str:
    """UPID:node:pid:pstart:starttime:type:id:user: - https://git.proxmox.com/?p=pve-common.git (PVE::Tools)"""
    parts = str(upid).split(":")
    if parts[0] != "UPID" or len(parts) < 9:
        raise VmferryError("internal", f"{str(upid)[:80]!r} is no id of a task of Proxmox VE.")
    return parts[1]


def log(session: Api, upid: str, lines: int = LINES_TOLD) -> List[str]:
    """Its last lines. Nothing where it cannot be read."""
    try:
        with session.doing("Reading the log of a task"):
            told = session.get(f"nodes/{node_of(upid)}/tasks/{upid}/log", limit=_MOST_LINES)
    except VmferryError:
        return []
    found = [str(line.get("t", "")) for line in told or () if line.get("t")]
    return found[-lines:]


def _look(session: Api, node: str, upid: str, doing: str, began: float) -> Tuple[str, str]:
    """A connection that fails for a moment ends no task."""
    try:
        with session.doing(doing):
            found = session.get(f"nodes/{node}/tasks/{upid}/status")
    except VmferryError as error:
        if error.retryable or (error.kind == "not_found" and time.monotonic() - began < UNKNOWN_FOR):
            return "unknown", ""
        raise
    return found.get("status", ""), found.get("exitstatus", "")


def _ended(session: Api, node: str, upid: str, ended_with: str, doing: str) -> List[str]:
    if ended_with == "OK":
        return []
    told = log(session, upid, _MOST_LINES)
    if ended_with.startswith(_WARNED):
        return [line for line in told if line.startswith("WARN")] or [f"{doing} ended with {ended_with}."]
    error = explained(ended_with or "it ended without saying how", doing, session.settings.who)
    tail = " | ".join(line for line in told[-LINES_TOLD:] if ended_with not in line and not line.startswith("TASK "))
    log_of_it = f" Its log ends with: {tail}." if tail else ""
    raise VmferryError(error.kind, f"{error.message}{log_of_it}", error.hint)
