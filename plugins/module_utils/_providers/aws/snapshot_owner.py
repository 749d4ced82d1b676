# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a snapshot of an export is, and until when it is held for whoever goes on with it, as its tags say.

An export's snapshots are `temporary` until it commits; those that the next increment asks since are a `token` then.
"""

from __future__ import annotations

import time
from typing import Any, Dict, Mapping, Optional

from ..._transfer.owner import current_owner, is_owner_alive
from ..job import Job
from .tags import STATE, VM, of_job

TEMPORARY, TOKEN = "temporary", "token"  # values of the tag STATE
OWNER = "vmferry:owner"
HELD = "vmferry:held-until"  # seconds since the epoch
RELEASED = "released"  # in the place of an owner that left everything for another to take over
_FIELDS = ("hostname", "boot_id", "pid_namespace", "pid", "pid_started")
_NUMBERS = _FIELDS[2:]


def tags_of_export(job: Job, instance: str) -> Dict[str, str]:
    """From the call on that makes them."""
    return {**of_job(job), VM: instance, STATE: TEMPORARY, OWNER: owner_words()}


def owner_words() -> str:
    """Of this process, in one line that a tag takes: letters, digits and a few signs."""
    owner = current_owner()
    return " ".join(str(owner.get(name) if owner.get(name) is not None else "") or "-" for name in _FIELDS)


def read_owner(words: str) -> Dict[str, Any]:
    """As `current_owner` told it; without what is not to be read, so that nobody knows whether it lives."""
    told = dict(zip(_FIELDS, words.split(" ")))
    found: Dict[str, Any] = {name: told[name] for name in _FIELDS[:2] if told.get(name, "-") != "-"}
    found.update({name: int(told[name]) for name in _NUMBERS if told.get(name, "").isdigit()})
    return found


def is_alive(tags: Mapping[str, str]) -> Optional[bool]:
    """None where this process cannot know."""
    words = tags.get(OWNER, "")
    return False if words == RELEASED else is_owner_alive(read_owner(words))


def is_held(tags: Mapping[str, str]) -> bool:
    until = tags.get(HELD, "")
    return until.isdigit() and int(until) > time.time()
