# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an import writes into the notes of its VM: whose work it is, of what it is made, and whether it is whole.

The notes are part of what a provider is asked to make, so that there is never a VM of ours without them.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import Any, Dict, Mapping
from urllib.parse import quote, unquote

from .._errors import VmferryError
from .._transfer.owner import current_owner, is_owner_alive
from .job import Job

UNFINISHED, WHOLE = "unfinished", "whole"
HELD_FOR = 1200.0  # seconds after the last sign of life; no two clocks of one site differ by so much
_MARK = re.compile(r"\s*(?:Made by vmferry\.migrate\. )?\[vmferry-import ([^][]*)\]")
_FIELD = re.compile(r"(\w+)=(\S*)")
_OWNER = {"hostname": str, "boot_id": str, "pid_namespace": int, "pid": int, "pid_started": int}


@dataclass(frozen=True)
class ImportMark:
    """`name`: that the VM was made with; `vm` and `vm_name`: of which it was exported, empty where nobody said. Of one
    that is whole, it does not matter any more whose work it was. `held_until`: seconds since the epoch, renewed as long
    as the process lives, so that others know some time after its end that it is dead; 0 where a provider ends what dies
    by itself."""

    state: str
    export: str
    job: str
    attempt: str
    name: str
    owner: Mapping[str, Any]
    vm: str = ""
    vm_name: str = ""
    held_until: int = 0

    @classmethod
    def of(cls, job: Job, export: str, name: str, vm: str = "", vm_name: str = "") -> ImportMark:
        return cls(UNFINISHED, export, job.job_id, job.attempt, name, current_owner(), vm, vm_name)

    @property
    def imported_from(self) -> Dict[str, str]:
        """As `vm_info` tells it, of every provider alike."""
        return {"export": self.export, "vm": self.vm, "vm_name": self.vm_name}

    @property
    def alive(self) -> bool | None:
        """None where this process cannot tell: the owner is in another container or on another host, and holds it."""
        seen = is_owner_alive(self.owner)
        return False if seen is None and 0 < self.held_until < time.time() else seen

    def held(self) -> ImportMark:
        """From now on."""
        return replace(self, held_until=int(time.time() + HELD_FOR))

    def describe(self) -> str:
        return f"import job {self.job} (process {self.owner.get('pid', '?')} on {self.owner.get('hostname', '?')})"

    def text(self, state: str) -> str:
        fields: dict[str, Any] = {"state": state, "export": self.export, "job": self.job, "attempt": self.attempt}
        fields.update({name: told for name, told in (("vm", self.vm), ("vm_name", self.vm_name)) if told})
        if state == UNFINISHED:
            known = {key: value for key, value in self.owner.items() if key in _OWNER and value is not None}
            fields.update(name=self.name, **known)
            if self.held_until:
                fields.update(held=self.held_until)
        marked = " ".join(f"{key}={quote(str(value), safe='')}" for key, value in fields.items())
        return f"Made by vmferry.migrate. [vmferry-import {marked}]"


def mark_in(notes: str) -> ImportMark | None:
    """None where no import of ours wrote one. It stands behind all that people wrote, whatever that looks like."""
    marks = _MARK.findall(notes)
    if not marks:
        return None
    fields = {key: unquote(value) for key, value in _FIELD.findall(marks[-1])}
    try:
        owner = {key: kind(fields[key]) for key, kind in _OWNER.items() if key in fields}
    except ValueError:
        owner = {}
    state, export, job, attempt, name = (fields.get(key, "") for key in ("state", "export", "job", "attempt", "name"))
    held = fields.get("held", "")
    held_until = int(held) if held.isdecimal() else 0
    return ImportMark(
        state, export, job, attempt, name, owner, fields.get("vm", ""), fields.get("vm_name", ""), held_until
    )


def notes_of(details: Mapping[str, Any]) -> str:
    """What people wrote about the VM that was read, without the mark of the import that may have made it."""
    carried = details.get("appliance", {})
    return _MARK.sub("", str(details.get("description") or carried.get("annotation") or "")).rstrip()


def with_mark(notes: str, mark: str) -> str:
    """What people wrote stays theirs, and first."""
    return f"{notes}\n{mark}" if notes else mark


def insist_on_dead(mark: ImportMark, vm: str) -> None:
    """Raises `busy` where the job lives, as far as this host can tell."""
    if mark.state == UNFINISHED and mark.alive:
        hint = "Wait for it, or cancel it with vmferry.migrate.job."
        raise VmferryError("busy", f"{vm} is being made by {mark.describe()}.", hint, retryable=True)
