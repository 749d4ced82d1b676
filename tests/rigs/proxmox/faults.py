# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong on purpose: the next calls of a method meet it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rigs.proxmox.node_pve import NodePve

FOREVER = 3600.0  # seconds
KINDS = (
    "refuse",  # with `status` and `message`
    "task",  # one begins, and ends with `message`
    "slow",  # by `seconds`
    "hang",  # there is no answer, ever
    "reset",  # the line is cut before anything is done
    "lose_answer",  # and after
    "expired",  # the ticket is not known any more
)


class CutLine(Exception):
    """The connection ends without an answer."""


@dataclass
class Fault:
    method: str
    path: str  # a template of the schema
    kind: str
    match: str = ""  # what the request's path or body contains
    skip: int = 0  # calls that go well before
    times: int = 1  # -1: until it is healed
    seconds: float = 0.0
    status: int = 500
    message: str = "as the test wants it"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there is no {self.kind}, but {', '.join(KINDS)}")

    async def met_by(self, pve: NodePve, request: Any, answer: Awaitable[Any]) -> Any:
        """`answer`: what is done without it."""
        from fakepve.model import PveError, TaskError
        from fakepve.routing import ok

        from rigs.proxmox.node_pve import refused

        if self.kind == "slow":
            await asyncio.sleep(self.seconds)
            return await pve.caught_up(answer)
        if self.kind == "lose_answer":
            await pve.caught_up(answer)
            raise CutLine
        answer.close()  # type: ignore[attr-defined]
        if self.kind == "hang":
            await asyncio.sleep(FOREVER)
        if self.kind in ("hang", "reset"):
            raise CutLine
        if self.kind == "refuse":
            return refused(PveError(self.status, self.message))
        if self.kind == "expired":
            pve.revoke_tickets()
            return refused(PveError(401, "permission denied - invalid PVE ticket"))

        async def body() -> None:
            raise TaskError(self.message)

        kind = self.path.rstrip("/").rpartition("/")[2].strip("{}")
        return ok(await pve.task(pve.node, kind, request.match_info.get("vmid", ""), "root@pam", body))


class Faults:
    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._waiting.append(fault)

    def heal(self) -> None:
        self._waiting.clear()

    def met(self, method: str, path: str, said: str) -> Fault | None:
        """By a call; `said`: its path and what it asks."""
        for fault in self._waiting:
            if (fault.method, fault.path) != (method, path) or fault.match not in said:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.times > 0:
                fault.times -= 1
                if fault.times == 0:
                    self._waiting.remove(fault)
            return fault
        return None
