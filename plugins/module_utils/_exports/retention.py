# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which exports go and which stay: a pure function of what is known about them.

Limits mark, protections spare what is marked. The marks do not depend on the protections, so that to protect an export
never costs another one its life: what a protection keeps beyond a limit stays in addition. And each mark is one by age,
the oldest first, so that a chain is never taken apart from its newest end.

`max_age` and `max_count` look at every export; the two limits of size look at what those leave, and count an export
together with all it stands on. An export from the future (a clock was wrong) stays, and counts for no limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any, Callable, Dict, Iterable, Literal, Mapping, Sequence, Tuple

Action = Literal["keep", "delete"]
DAY = 86400.0  # seconds


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
    parent: str = ""
    pin: str | None = None  # why it is pinned, may be ''; None: it is not
    in_use: str = ""  # why it must stay although no manifest stands on it; a sentence
    looked_at: bool = True  # False: nobody asks whether it should go, and it still needs what it stands on


@dataclass(frozen=True)
class Limits:
    """None: no limit. Seconds, a number for each VM, bytes, bytes."""

    max_age: float | None = None
    max_count: int | None = None
    max_total_size: int | None = None
    min_free: int | None = None


@dataclass(frozen=True)
class Protections:
    """Numbers are for each VM. A period that has no export is not counted; of one that has, the newest stays."""

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


_Verdicts = Dict[str, Tuple[str, str]]  # a rule and a reason, by key


def decide(
    candidates: Sequence[Candidate], limits: Limits, protections: Protections, now: float, free: int = 0
) -> tuple[Decision, ...]:
    """One for each candidate that is looked at, in their order. `free`: bytes, looked at for `min_free` only."""
    asked = [one for one in candidates if one.looked_at]
    newest_first = sorted((one for one in asked if one.taken_at <= now), key=_age, reverse=True)
    parents = {one.key: one.parent for one in candidates}
    marked = _marked(newest_first, parents, limits, now, free)
    spared = _spared(asked, newest_first, protections, now)
    staying = [one.key for one in candidates if one.key not in marked or one.key in spared]
    children = _children(staying, parents)
    decisions = []
    for one in asked:
        if one.key in spared:
            decisions.append(Decision(one, "keep", *spared[one.key]))
        elif one.key not in marked:
            decisions.append(Decision(one, "keep", "within_limits", "No limit is over for it."))
        elif one.key in children:
            child = children[one.key].rpartition("/")[2]
            decisions.append(Decision(one, "keep", "child", f"{child} stands on it."))
        else:
            decisions.append(Decision(one, "delete", *marked[one.key]))
    return tuple(decisions)


def unmet(decisions: Iterable[Decision], limits: Limits, free: int = 0) -> list[str]:
    """A sentence for each limit of size that protections keep from being met."""
    staying = going = 0
    for one in decisions:
        if one.action == "keep":
            staying += one.candidate.size
        else:
            going += one.candidate.size
    told = []
    if limits.max_total_size is not None and staying > limits.max_total_size:
        told.append(f"{staying} bytes stay, by protections; max_total_size is {limits.max_total_size}.")
    if limits.min_free is not None and free + going < limits.min_free:
        told.append(f"{free + going} bytes will be free; min_free is {limits.min_free}. What is left is protected.")
    return told


def _age(one: Candidate) -> tuple[float, str]:
    return one.taken_at, one.key


def _marked(
    newest_first: Sequence[Candidate], parents: Mapping[str, str], limits: Limits, now: float, free: int
) -> _Verdicts:
    marked: dict[str, tuple[str, str]] = {}
    if limits.max_age is not None:
        for one in newest_first:
            age = now - one.taken_at
            if age > limits.max_age:
                told = f"It is {age / DAY:.1f} days old; max_age is {limits.max_age / DAY:.1f}."
                marked[one.key] = ("max_age", told)
    if limits.max_count is not None:
        for mine in _by_vm(newest_first):
            for one in mine[limits.max_count :]:
                told = f"There are {limits.max_count} newer ones of its VM, which max_count allows."
                marked.setdefault(one.key, ("max_count", told))
    sizes = {one.key: one.size for one in newest_first}
    left = [one for one in newest_first if one.key not in marked]
    if limits.max_total_size is not None:
        allowed = limits.max_total_size
        fitting = _fitting(left, sizes, parents, allowed)
        for one in left[fitting:]:
            marked[one.key] = ("max_total_size", f"With all that is newer it takes more than {allowed} bytes.")
        left = left[:fitting]
    if limits.min_free is not None:
        fitting = _fitting(left, sizes, parents, sum(sizes.values()) - (limits.min_free - free))
        for one in left[fitting:]:
            marked[one.key] = ("min_free", f"{free} bytes were free; min_free is {limits.min_free}.")
    return marked


def _fitting(
    newest_first: Sequence[Candidate], sizes: Mapping[str, int], parents: Mapping[str, str], allowed: int
) -> int:
    """How many, from the newest on, take no more bytes than `allowed` with all they stand on."""
    counted: set[str] = set()
    total = 0
    for number, one in enumerate(newest_first):
        key = one.key
        while key and key not in counted:
            counted.add(key)
            total += sizes.get(key, 0)
            key = parents.get(key, "")
        if total > allowed:
            return number
    return len(newest_first)


def _spared(
    asked: Sequence[Candidate], newest_first: Sequence[Candidate], protections: Protections, now: float
) -> _Verdicts:
    """The first protection that fits is the one that is told."""
    spared: dict[str, tuple[str, str]] = {}
    for one in asked:
        told = _spared_by_itself(one, protections, now)
        if told is not None:
            spared[one.key] = told
    for mine in _by_vm(newest_first):
        for rule, (count, period, what) in _periods(protections).items():
            for one in _newest_of_each(mine, period, count):
                spared.setdefault(one.key, (rule, f"It is one of the newest {count} {what} of its VM."))
    for one in asked:
        if one.taken_at > now:
            ahead = f"It was taken {one.taken_at - now:.0f} seconds from now, by a clock that is wrong."
            spared.setdefault(one.key, ("future", ahead))
        if one.in_use:
            spared.setdefault(one.key, ("in_use", one.in_use))
    return spared


def _spared_by_itself(one: Candidate, protections: Protections, now: float) -> tuple[str, str] | None:
    if one.pin is not None:
        return "pinned", f"It is pinned: {one.pin}" if one.pin else "It is pinned."
    texts = [text for text in (one.export_id, one.name, one.vm_name, *one.tags) if text]
    for pattern in protections.preserve:
        if any(fnmatchcase(text, pattern) for text in texts):
            return "preserve", f"{pattern} of preserve fits it."
    least = protections.min_retention
    if least is not None and now - one.taken_at < least:
        return "min_retention", f"It is {(now - one.taken_at) / DAY:.1f} days old; min_retention is {least / DAY:.1f}."
    return None


_Period = Callable[[Candidate], Any]


def _periods(protections: Protections) -> dict[str, tuple[int, _Period, str]]:
    return {
        "keep_last": (protections.keep_last, lambda one: one.key, "exports"),
        "keep_daily": (protections.keep_daily, lambda one: _utc(one).date(), "of a day each"),
        "keep_weekly": (protections.keep_weekly, lambda one: tuple(_utc(one).isocalendar())[:2], "of a week each"),
        "keep_monthly": (protections.keep_monthly, lambda one: (_utc(one).year, _utc(one).month), "of a month each"),
        "keep_yearly": (protections.keep_yearly, lambda one: _utc(one).year, "of a year each"),
    }


def _newest_of_each(newest_first: Sequence[Candidate], period: _Period, count: int) -> list[Candidate]:
    newest: dict[Any, Candidate] = {}
    for one in newest_first:
        newest.setdefault(period(one), one)
    return list(newest.values())[:count]


def _utc(one: Candidate) -> datetime:
    return datetime.fromtimestamp(one.taken_at, timezone.utc)


def _by_vm(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    by_vm: dict[str, list[Candidate]] = {}
    for one in candidates:
        by_vm.setdefault(one.vm_id, []).append(one)
    return list(by_vm.values())


def _children(staying: Iterable[str], parents: Mapping[str, str]) -> dict[str, str]:
    """Of everything that something staying stands on, however far below: what stands on it directly."""
    children: dict[str, str] = {}
    for key in staying:
        parent = parents.get(key, "")
        while parent and parent not in children:
            children[parent] = key
            key, parent = parent, parents.get(parent, "")
    return children
