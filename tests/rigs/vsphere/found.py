# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a test can ask the rig about the past: calls, and what was left behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """`method`: of the API, or of HTTP with the beginning of the path ("GET /nfc/", "GET /folder/")."""

    at: float  # seconds since 1970
    method: str
    object: str  # the value of a reference, or a path
    argument: str  # a name in the request, a changeId, or a Range
    options: str  # what the request switches on, in small letters: "memory quiesce"
    ended: str  # "" is well; else the fault, the status, or how the line broke
    bytes: int  # of a body that was sent or received
    user: str  # User-Agent
    version: str  # of the API that is spoken, "vim25/6.5"


@dataclass(frozen=True)
class Leftovers:
    """`==` to another one: nothing that a user would notice came or went in between."""

    machines: tuple[str, ...]
    snapshots: Mapping[str, str]  # name by "machine/reference"
    leases: Mapping[str, str]  # of those that are open: state by reference
    sessions: int  # neither closed nor expired
    consolidation: tuple[str, ...]  # machines that need it
    running_tasks: tuple[str, ...]
    files: tuple[str, ...]  # first level of every datastore
    change_tracking: tuple[str, ...]  # machines in which it is switched on


def leftovers(answer: Mapping[str, Any]) -> Leftovers:
    def names(key: str) -> tuple[str, ...]:
        return tuple(sorted(answer[key] or ()))

    return Leftovers(
        machines=names("machines"),
        snapshots=answer["snapshots"],
        leases=answer["leases"],
        sessions=answer["sessions"],
        consolidation=names("consolidation"),
        running_tasks=names("running_tasks"),
        files=names("files"),
        change_tracking=names("change_tracking"),
    )
