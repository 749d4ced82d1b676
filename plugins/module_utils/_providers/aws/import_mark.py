# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an import writes into the tags of all that it makes: whose work it is, of what it is made, and that it is not
whole yet.

The tags are part of the very calls that make something, so that there is never anything of ours without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional

from ..._errors import VmferryError
from ..._transfer.owner import current_owner, is_owner_alive
from ..job import Job
from .snapshot_owner import OWNER, owner_words, read_owner
from .tags import ATTEMPT, EXPORT, JOB, NAME, PREFIX, STATE, of_job

IMPORT = f"{PREFIX}import"  # the name of the VM that is made; nothing else of ours has this tag
UNFINISHED = "unfinished"  # the state; what is whole has none


@dataclass(frozen=True)
class ImportMark:
    name: str
    export: str
    job: str
    attempt: str
    owner: Mapping[str, Any]
    unfinished: bool = True

    @classmethod
    def of(cls, job: Job, export: str, name: str) -> ImportMark:
        return cls(name, export, job.job_id, job.attempt, current_owner())

    @property
    def alive(self) -> Optional[bool]:
        """None where this process cannot tell: the owner is in another container or on another host."""
        return is_owner_alive(self.owner)

    def describe(self) -> str:
        return f"import job {self.job} (process {self.owner.get('pid', '?')} on {self.owner.get('hostname', '?')})"

    def tags(self) -> Dict[str, str]:
        """As long as it is not whole."""
        return {
            NAME: self.name,
            IMPORT: self.name,
            EXPORT: self.export,
            **of_job(Job(self.job, self.attempt)),
            STATE: UNFINISHED,
            OWNER: owner_words(),
        }


def mark_in(tags: Mapping[str, str]) -> Optional[ImportMark]:
    """None where no import of ours made it."""
    if IMPORT not in tags:
        return None
    owner = read_owner(tags.get(OWNER, ""))
    unfinished = tags.get(STATE) == UNFINISHED
    return ImportMark(tags[IMPORT], tags.get(EXPORT, ""), tags.get(JOB, ""), tags.get(ATTEMPT, ""), owner, unfinished)


def insist_on_dead(mark: ImportMark) -> None:
    """Raises `busy` where the job lives, as far as this host can tell."""
    if mark.unfinished and mark.alive:
        hint = "Wait for it, or cancel it with vmferry.migrate.job."
        raise VmferryError("busy", f"{mark.name} is being made by {mark.describe()}.", hint, retryable=True)
