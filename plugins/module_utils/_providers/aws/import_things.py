# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What imports of ours made, found by its tags: instances, images, volumes and snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence

from .asking import Filter, every, instances, literal, of
from .import_mark import IMPORT, UNFINISHED, ImportMark, by_attempt, mark_in
from .session import Session
from .tags import ATTEMPT, NAME, STATE, tags_of

Kind = str  # of `KINDS`
KINDS = ("instance", "image", "volume", "snapshot")  # in the order in which they have to go
TOPS = ("instance", "image", "snapshot")  # what an import may end with, the last step first
_ENDED = ("terminated", "deregistered", "deleting", "deleted")
_OWN: Mapping[str, Mapping[str, Any]] = {"image": {"Owners": ["self"]}, "snapshot": {"OwnerIds": ["self"]}}
Filters = Mapping[str, str]


@dataclass(frozen=True)
class Thing:
    """`state`: as AWS calls it. `mark`: None where no import of ours made it. `said`: all that AWS says of it."""

    kind: Kind
    id: str
    state: str
    mark: Optional[ImportMark]
    said: Mapping[str, Any]

    @property
    def unfinished(self) -> bool:
        return self.mark is not None and self.mark.unfinished


def things(session: Session, kind: Kind, filters: Filters) -> List[Thing]:
    """Those of the account that have all of these tags, or these things that EC2 filters by; '' is any value."""
    asked = [of("tag-key", [key]) if not value else of(key, [literal(value)]) for key, value in filters.items()]
    return [one for one in _read(session, kind, asked) if one.state not in _ENDED]


def by_id(session: Session, kind: Kind, ids: Sequence[str]) -> List[Thing]:
    return _read(session, kind, [of(f"{kind}-id", ids)])


def of_attempt(session: Session, attempt: str) -> List[Thing]:
    """All that this attempt of an import made, in the order in which it has to go."""
    wanted = {IMPORT: "", f"tag:{ATTEMPT}": attempt}
    return [thing for kind in KINDS for thing in things(session, kind, wanted)]


def unfinished_attempts(session: Session) -> Sequence[ImportMark]:
    """One mark of each import of which something is not whole, whoever's."""
    wanted = {IMPORT: "", f"tag:{STATE}": UNFINISHED}
    found = [thing.mark for kind in KINDS for thing in things(session, kind, wanted)]
    return by_attempt(mark for mark in found if mark is not None)


def called(session: Session, name: str) -> Sequence[Thing]:
    """What an import under this name would meet, the last step of imports first: any instance with that `Name`, and
    images and snapshots that imports of ours made."""
    named = things(session, "instance", {f"tag:{NAME}": name})
    living = [thing for thing in named if thing.state != "shutting-down"]
    of_ours = [thing for kind in TOPS[1:] for thing in things(session, kind, {f"tag:{IMPORT}": name})]
    return [*living, *of_ours]


def _read(session: Session, kind: Kind, asked: Sequence[Filter]) -> List[Thing]:
    doing, operation = f"Looking for the {kind}s that imports made", f"describe_{kind}s"
    if kind == "instance":
        return [_thing(kind, one) for one in instances(session, doing, asked)]
    return [_thing(kind, one) for one in every(session, operation, doing, asked, **_OWN.get(kind, {}))]


def _thing(kind: Kind, said: Mapping[str, Any]) -> Thing:
    state = said["State"]["Name"] if kind == "instance" else said.get("State", "")
    return Thing(kind, said[f"{kind.capitalize()}Id"], state, mark_in(tags_of(said)), said)
