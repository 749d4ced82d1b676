# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two imports under one name that began at the same time, when both found it free: one of them makes the VM.

Names of AWS are tags, of which it has as many alike as are asked for. What imports make is seen by all others, so the
one whose first snapshot EC2 began first goes on, as both can tell. One that has an image or an instance already had its
turn: snapshots that tasks make are marked when they are done, in whatever order they were begun.
"""

from __future__ import annotations

from typing import Any, Dict, Sequence, Set, Tuple

from ..._errors import VmferryError
from .import_mark import by_attempt
from .import_things import Thing, called
from .session import Session

_Turn = Tuple[bool, Any, str]  # whether nothing of it is seen, since when, and its attempt


def insist_on_turn(session: Session, name: str, attempt: str) -> None:
    """Before an import makes what cannot be shared: raises `busy` where another one goes first, and `conflict` where
    somebody made something of that name meanwhile."""
    met = called(session, name)
    for thing in met:
        if not thing.unfinished and (thing.mark is None or thing.mark.attempt != attempt):
            text = f"An {thing.kind} named {name}, {thing.id}, came to be while this import wrote its disks."
            hint = "Import under another name, or remove it first."
            raise VmferryError("conflict", text.replace("An snapshot", "A snapshot"), hint)
    turns, ahead = _turns(met), _had_their_turn(met)
    own = turns.get(attempt, (True, 0, attempt))
    for rival in by_attempt(thing.mark for thing in met if thing.mark is not None and thing.unfinished):
        if rival.attempt == attempt or rival.alive is False:
            continue
        if rival.attempt in ahead or turns.get(rival.attempt, own) < own:
            text = f"{name} is being made by {rival.describe()}, which began before this import."
            raise VmferryError("busy", text, "Wait for it; the next run finds what it made.", retryable=True)


def _turns(met: Sequence[Thing]) -> Dict[str, _Turn]:
    """By attempt, of those of which a snapshot is there."""
    found: Dict[str, _Turn] = {}
    for thing in met:
        if thing.kind == "snapshot" and thing.mark is not None and thing.unfinished:
            turn = (False, thing.said["StartTime"], thing.mark.attempt)
            found[thing.mark.attempt] = min(turn, found.get(thing.mark.attempt, turn))
    return found


def _had_their_turn(met: Sequence[Thing]) -> Set[str]:
    """Attempts."""
    return {one.mark.attempt for one in met if one.kind != "snapshot" and one.mark is not None and one.unfinished}
