# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an import writes into the tags of all that it makes: whose work it is, of what it is made, and that it is not
whole yet; and until when it is held, which is renewed as long as the process lives, so that whoever cannot see that
process knows some time after its end that it is dead.

The tags are part of the very calls that make something, so that there is never anything of ours without them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterable, List, Mapping, Optional

from ..._errors import VmferryError
from ..._transfer.owner import current_owner, is_owner_alive
from ..job import Job
from .snapshot_owner import HELD, OWNER, owner_words, read_owner
from .tags import ATTEMPT, EXPORT, JOB, NAME, PREFIX, STATE, of_job

IMPORT = f"{PREFIX}import"  # the name of the VM that is made; nothing else of ours has this tag
SOURCE, SOURCE_NAME = f"{PREFIX}source", f"{PREFIX}source-name"  # the id and the name of the VM that it is made of
UNFINISHED = "unfinished"  # the state; what is whole has none
HELD_FOR = 1200.0  # seconds; clocks that differ by minutes already are refused by AWS


@dataclass(frozen=True)
class ImportMark:
    """`vm`, `vm_name`: of which it was exported, empty where nobody said."""

    name: str
    export: str
    job: str
    attempt: str
    owner: Mapping[str, Any]
    unfinished: bool = True
    held_until: int = 0  # seconds since the epoch
    vm: str = ""
    vm_name: str = ""

    @classmethod
    def of(cls, job: Job, export: str, name: str, vm: str = "", vm_name: str = "") -> ImportMark:
        return cls(name, export, job.job_id, job.attempt, current_owner(), vm=vm, vm_name=vm_name)

    @property
    def imported_from(self) -> Dict[str, str]:
        """As `vm_info` tells it, of every provider alike."""
        return {"export": self.export, "vm": self.vm, "vm_name": self.vm_name}

    @property
    def alive(self) -> Optional[bool]:
        """None where this process cannot tell: the owner is in another container or on another host, and holds it."""
        seen = is_owner_alive(self.owner)
        return False if seen is None and 0 < self.held_until < time.time() else seen

    def describe(self) -> str:
        return f"import job {self.job} (process {self.owner.get('pid', '?')} on {self.owner.get('hostname', '?')})"

    def tags(self) -> Dict[str, str]:
        """As long as it is not whole, held from now on."""
        return {
            NAME: self.name,
            IMPORT: self.name,
            EXPORT: self.export,
            **{key: value for key, value in ((SOURCE, self.vm), (SOURCE_NAME, self.vm_name)) if value},
            **of_job(Job(self.job, self.attempt)),
            STATE: UNFINISHED,
            OWNER: owner_words(),
            HELD: str(int(time.time() + HELD_FOR)),
        }


def mark_in(tags: Mapping[str, str]) -> Optional[ImportMark]:
    """None where no import of ours made it."""
    if IMPORT not in tags:
        return None
    owner = read_owner(tags.get(OWNER, ""))
    held = tags.get(HELD, "")
    return ImportMark(
        name=tags[IMPORT],
        export=tags.get(EXPORT, ""),
        job=tags.get(JOB, ""),
        attempt=tags.get(ATTEMPT, ""),
        owner=owner,
        unfinished=tags.get(STATE) == UNFINISHED,
        held_until=int(held) if held.isdigit() else 0,
        vm=tags.get(SOURCE, ""),
        vm_name=tags.get(SOURCE_NAME, ""),
    )


def by_attempt(marks: Iterable[ImportMark]) -> List[ImportMark]:
    """One of each attempt, held as long as anything of it: what is made late is held longer than what was there."""
    found: Dict[str, ImportMark] = {}
    for mark in marks:
        known = found.setdefault(mark.attempt, mark)
        if known.held_until < mark.held_until:
            found[mark.attempt] = replace(known, held_until=mark.held_until)
    return list(found.values())


def insist_on_dead(mark: ImportMark) -> None:
    """Raises `busy` where the job lives, as far as this host can tell."""
    if mark.unfinished and mark.alive:
        hint = "Wait for it, or cancel it with vmferry.migrate.job."
        raise VmferryError("busy", f"{mark.name} is being made by {mark.describe()}.", hint, retryable=True)
