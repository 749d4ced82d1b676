# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What retention is told about exports and what is wanted of it, and what it decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Action = Literal["keep", "delete", "merge"]
DAY, HOUR = 86400.0, 3600.0  # seconds


@dataclass(frozen=True)
class Candidate:
    """A committed export. `key` is its folder, `parent` that of the export it stands on, or ''."""

    key: str
    export_id: str
    vm_id: str
    vm_name: str
    taken_at: float  # seconds since the epoch
    size: int  # bytes in the store
    name: str = ""
    tags: tuple[str, ...] = ()
    disks: frozenset[str] = frozenset()  # which of its VM's
    whole: bool = False  # all that its VM had then; False also where nobody knows
    parent: str = ""
    pin: str | None = None  # why it is pinned, may be ''; None: it is not
    in_use: str = ""  # why it must stay although no manifest stands on it; a sentence
    locked: str = ""  # why the store keeps it whoever deletes it; a sentence
    damaged: bool = False  # a verification failed, and none has passed since
    looked_at: bool = True  # False: nobody asks whether it should go, and it still needs what it stands on


@dataclass(frozen=True)
class Limits:
    """None: no limit. Seconds, a number for each VM, bytes, bytes.

    `exports`: the ids of all that is to go, whatever the other limits.
    """

    max_age: float | None = None
    max_count: int | None = None
    max_total_size: int | None = None
    min_free: int | None = None
    exports: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Protections:
    """Numbers are for each VM, of exports that hold the same disks and more.

    A period that has no export is not counted; of one that has, the newest stays.
    """

    keep_last: int = 1
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    preserve: tuple[str, ...] = ()  # globs on the export's id and name, the VM's name, and tags
    min_retention: float | None = None  # seconds


@dataclass(frozen=True)
class Decision:
    """`rule` is the option or the circumstance that decides, `reason` says it in a sentence."""

    candidate: Candidate
    action: Action
    rule: str
    reason: str
    into: tuple[str, ...] = ()  # of one that is merged: keys of the exports that take over what it holds
