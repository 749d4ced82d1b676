# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which exports go and which stay: a pure function of what is known about them.

Limits mark, protections spare what is marked. The marks do not depend on the protections, so that to protect an export
never costs another one its life: what a protection keeps beyond a limit stays in addition. And each mark is one by age,
the oldest first, so that a chain is never taken apart from its newest end. Only what is known to be damaged may go
before older ones: all that stands on it is damaged, too.

`max_age` and `max_count` look at every export; the two limits of size look at what those leave, and count an export
together with all it stands on. An export from the future (a clock was wrong) stays, and counts for no limit.

What is known to be damaged takes no place of another one: it is not counted by `max_count`, where sizes are limited it
goes first, and where a protection keeps the newest, it keeps the newest that are not known to be damaged as well.

What is of disks that its VM has no more counts on its own as long as `max_age` lets it stay, and then with the others.

Where exports are named, no others are looked at, and neither the limits nor what there is besides decide about them.

What is marked and stays only since others stand on it can be merged into those, where that is asked for.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any, Callable, Collection, Dict, FrozenSet, Iterable, List, Mapping, Sequence, Tuple

from .retention_chains import below, children, merged
from .retention_disks import by_disks, by_vm
from .retention_rules import DAY, HOUR, Candidate, Decision, Limits, Protections

_Verdicts = Dict[str, Tuple[str, str]]  # a rule and a reason, by key
_Group = Tuple[List[Candidate], FrozenSet[str]]  # as `by_disks` tells it


def decide(
    candidates: Sequence[Candidate],
    limits: Limits,
    protections: Protections,
    now: float,
    free: int = 0,
    merge: bool = False,
) -> tuple[Decision, ...]:
    """One for each candidate that is looked at, in their order. `free`: bytes, looked at for `min_free` only."""
    asked = [one for one in candidates if one.looked_at]
    newest_first = sorted((one for one in asked if one.taken_at <= now), key=_age, reverse=True)
    parents = {one.key: one.parent for one in candidates}
    damaged = known_damaged(candidates)
    if limits.exports is not None:
        marked = {one.key: ("export", "It was named.") for one in asked}
        spared = {**_in_use(asked), **_spared_by_themselves(asked, protections, now)}
    else:
        marked = _too_old(newest_first, limits, now)
        groups = list(by_disks(newest_first, damaged, frozenset(marked)))
        _mark_surplus(marked, groups, limits, damaged)
        _mark_for_room(marked, newest_first, parents, limits, free, damaged)
        spared = _spared(asked, groups, protections, now, damaged)
    # Only of what would go it is known whether it is locked; of the rest, nothing is told.
    spared = {key: told for key, told in spared.items() if told[0] != "locked" or key in marked}
    staying = [one.key for one in candidates if one.key not in marked or one.key in spared]
    standing = children(staying, parents)
    into = merged(candidates, staying, parents) if merge else {}
    decisions = []
    for one in asked:
        if one.key in spared:
            decisions.append(Decision(one, "keep", *spared[one.key]))
        elif one.key not in marked:
            decisions.append(Decision(one, "keep", "within_limits", "No limit is over for it."))
        elif one.key in into:
            names = " and ".join(key.rpartition("/")[2] for key in into[one.key])
            rule, told = marked[one.key]
            decisions.append(Decision(one, "merge", rule, f"{told} {names} takes over what it holds.", into[one.key]))
        elif one.key in standing:
            child = standing[one.key].rpartition("/")[2]
            decisions.append(Decision(one, "keep", "child", f"{child} stands on it."))
        else:
            decisions.append(Decision(one, "delete", *marked[one.key]))
    return tuple(
        replace(one, reason=f"{one.reason} It is known to be damaged.") if one.candidate.key in damaged else one
        for one in decisions
    )


def known_damaged(candidates: Iterable[Candidate]) -> frozenset[str]:
    """Keys of those that a verification failed for, and of all that stand on them, however far above."""
    by_key = {one.key: one for one in candidates}
    parents = {one.key: one.parent for one in by_key.values()}
    return frozenset(
        key
        for key, one in by_key.items()
        if one.damaged or any(by_key[needed].damaged for needed in below(key, parents) if needed in by_key)
    )


def without_sound(decisions: Iterable[Decision], candidates: Sequence[Candidate]) -> list[str]:
    """A sentence for each VM that is looked at, and of which nothing is left that is not known to be damaged."""
    damaged, asked = known_damaged(candidates), list(decisions)
    gone = {one.candidate.key for one in asked if one.action != "keep"}
    told = []
    for mine in by_vm(one.candidate for one in asked):
        left = [one.key for one in candidates if one.vm_id == mine[0].vm_id and one.key not in gone]
        if left and damaged.issuperset(left):
            told.append(
                f"The only exports left of {mine[0].vm_name} are known to be damaged. Run vm_export with mode: full."
            )
    return told


def unmet(decisions: Iterable[Decision], limits: Limits, free: int = 0) -> list[str]:
    """A sentence for each limit of size that protections keep from being met. What is merged goes on taking space."""
    staying = going = 0
    for one in decisions:
        if one.action != "delete":
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


def _period_of(seconds: float) -> str:
    """In the unit that a reader would choose: 12 min, 3.5 h, 40.2 days."""
    if abs(seconds) < 2 * HOUR:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / HOUR:.1f} h" if abs(seconds) < 2 * DAY else f"{seconds / DAY:.1f} days"


def _too_old(newest_first: Sequence[Candidate], limits: Limits, now: float) -> _Verdicts:
    if limits.max_age is None:
        return {}
    ages = {one.key: now - one.taken_at for one in newest_first}
    allowed = _period_of(limits.max_age)
    return {
        key: ("max_age", f"It is {_period_of(age)} old; max_age is {allowed}.")
        for key, age in ages.items()
        if age > limits.max_age
    }


def _mark_surplus(marked: _Verdicts, groups: Iterable[_Group], limits: Limits, damaged: Collection[str]) -> None:
    if limits.max_count is None:
        return
    told = f"There are {limits.max_count} newer ones of its VM, which max_count allows."
    for mine, alike in groups:
        newer = 0
        for one in mine:
            if newer >= limits.max_count and one.key in alike:
                marked.setdefault(one.key, ("max_count", told))
            newer += one.key not in damaged


def _mark_for_room(
    marked: _Verdicts,
    newest_first: Sequence[Candidate],
    parents: Mapping[str, str],
    limits: Limits,
    free: int,
    damaged: Collection[str],
) -> None:
    sizes = {one.key: one.size for one in newest_first}
    left = [one for one in newest_first if one.key not in marked]
    left.sort(key=lambda one: one.key in damaged)  # so that nothing sound goes for the room that these take
    if limits.max_total_size is not None:
        allowed = limits.max_total_size
        fitting = _fitting(left, sizes, parents, allowed)
        for one in left[fitting:]:
            more = " and all that is not damaged" if one.key in damaged else ""
            told = f"With all that is newer{more} it takes more than {allowed} bytes."
            marked[one.key] = ("max_total_size", told)
        left = left[:fitting]
    if limits.min_free is not None:
        fitting = _fitting(left, sizes, parents, sum(sizes.values()) - (limits.min_free - free))
        for one in left[fitting:]:
            marked[one.key] = ("min_free", f"{free} bytes were free; min_free is {limits.min_free}.")


def _fitting(in_order: Sequence[Candidate], sizes: Mapping[str, int], parents: Mapping[str, str], allowed: int) -> int:
    """How many, from the first on, take no more bytes than `allowed` with all they stand on."""
    counted: set[str] = set()
    total = 0
    for number, one in enumerate(in_order):
        key = one.key
        while key and key not in counted:
            counted.add(key)
            total += sizes.get(key, 0)
            key = parents.get(key, "")
        if total > allowed:
            return number
    return len(in_order)


def _spared(
    asked: Sequence[Candidate],
    groups: Iterable[_Group],
    protections: Protections,
    now: float,
    damaged: Collection[str],
) -> _Verdicts:
    """The first protection that fits is the one that is told."""
    spared = _spared_by_themselves(asked, protections, now)
    for mine, alike in groups:
        for rule, (count, period, what) in _periods(protections).items():
            sound = [one for one in mine if one.key not in damaged]
            for one in [*_newest_of_each(mine, period, count), *_newest_of_each(sound, period, count)]:
                if one.key in alike:
                    spared.setdefault(one.key, (rule, f"It is one of the newest {count} {what} of its VM."))
    for one in asked:
        if one.taken_at > now:
            ahead = f"It was taken {one.taken_at - now:.0f} seconds from now, by a clock that is wrong."
            spared.setdefault(one.key, ("future", ahead))
    return {**_in_use(asked), **spared}


def _spared_by_themselves(asked: Sequence[Candidate], protections: Protections, now: float) -> _Verdicts:
    told = {one.key: _spared_by_itself(one, protections, now) for one in asked}
    return {key: verdict for key, verdict in told.items() if verdict is not None}


def _in_use(asked: Sequence[Candidate]) -> _Verdicts:
    return {one.key: ("in_use", one.in_use) for one in asked if one.in_use}


def _spared_by_itself(one: Candidate, protections: Protections, now: float) -> tuple[str, str] | None:
    if one.locked:
        return "locked", one.locked
    if one.pin is not None:
        return "pinned", f"It is pinned: {one.pin}" if one.pin else "It is pinned."
    texts = [text for text in (one.export_id, one.name, one.vm_name, *one.tags) if text]
    for pattern in protections.preserve:
        if any(fnmatchcase(text, pattern) for text in texts):
            return "preserve", f"{pattern} of preserve fits it."
    least = protections.min_retention
    if least is not None and now - one.taken_at < least:
        return "min_retention", f"It is {_period_of(now - one.taken_at)} old; min_retention is {_period_of(least)}."
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
