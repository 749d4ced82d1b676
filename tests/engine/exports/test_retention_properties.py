# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold of any store, any limits and any protections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention import (
    decide,
    known_damaged,
    without_sound,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import (
    DAY,
    Candidate,
    Decision,
    Limits,
    Protections,
)

from ..searching import examples

NOW = 1_795_242_600.0
MANY = settings(max_examples=examples(120), deadline=None, derandomize=True, database=None)
COUNTS = st.integers(0, 3)
FREE = 20


@st.composite
def stores(draw: Any) -> list[Candidate]:
    """Exports of up to three VMs; each may stand on any older one of its VM, as an increment does."""
    made: list[Candidate] = []
    for number in range(draw(st.integers(0, 12))):
        vm = draw(st.sampled_from(["web01", "db01", "ci"]))
        mine = [one.key for one in made if one.vm_id == vm]
        age = draw(st.floats(-3, 120)) if draw(st.booleans()) else draw(st.integers(-3, 120))
        made.append(
            Candidate(
                key=f"{vm}/{number:02}",
                export_id=f"{number:02}",
                vm_id=vm,
                vm_name=vm,
                taken_at=NOW - age * DAY,
                size=draw(st.integers(0, 30)),
                name=draw(st.sampled_from(["", "gold"])),
                disks=frozenset(draw(st.sampled_from(["a", "b", "ab"]))),
                whole=draw(st.booleans()),
                parent=draw(st.sampled_from(["", *mine])),
                pin=draw(st.sampled_from([None, None, None, "why"])),
                in_use=draw(st.sampled_from(["", "", "", "A job is at it."])),
                damaged=draw(st.sampled_from([False, False, False, True])),
                looked_at=draw(st.sampled_from([True, True, True, False])),
            )
        )
    return made


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


LIMITS = st.builds(
    Limits,
    max_age=optional(st.floats(0.1, 100).map(lambda days: days * DAY)),
    max_count=optional(st.integers(1, 4)),
    max_total_size=optional(st.integers(0, 150)),
    min_free=optional(st.integers(0, 200)),
)
PROTECTIONS = st.builds(
    Protections,
    keep_last=COUNTS,
    keep_daily=COUNTS,
    keep_weekly=COUNTS,
    keep_monthly=COUNTS,
    keep_yearly=COUNTS,
    preserve=st.sampled_from([(), ("gold",), ("db*",)]),
    min_retention=optional(st.floats(0, 60).map(lambda days: days * DAY)),
)


def run(store: list[Candidate], limits: Limits, protections: Protections, free: int = FREE) -> tuple[Decision, ...]:
    return decide(store, limits, protections, NOW, free)


def gone(*arguments: Any) -> set[str]:
    return {one.candidate.key for one in run(*arguments) if one.action == "delete"}


@MANY
@given(stores(), LIMITS, PROTECTIONS)
def test_no_export_is_ever_left_without_what_it_stands_on(
    store: list[Candidate], limits: Limits, protections: Protections
) -> None:
    deleted = gone(store, limits, protections)
    for one in store:
        if one.key not in deleted:
            assert one.parent not in deleted
        if one.in_use or one.pin is not None or not one.looked_at or one.taken_at > NOW:
            assert one.key not in deleted


@MANY
@given(stores(), LIMITS, PROTECTIONS, st.data())
def test_a_stricter_limit_deletes_the_same_and_more(
    store: list[Candidate], limits: Limits, protections: Protections, data: st.DataObject
) -> None:
    """A smaller max_count makes room, which the limits of size may then leave to others: so only without those."""
    sized = limits.max_total_size is not None or limits.min_free is not None
    name = data.draw(st.sampled_from(["max_age", "max_total_size", "min_free", *(() if sized else ("max_count",))]))
    before = getattr(limits, name)
    if before is None:
        fresh: dict[str, Any] = {"max_age": 10 * DAY, "max_count": 2, "max_total_size": 50, "min_free": 60}
        stricter = fresh[name]
    elif name == "min_free":
        stricter = before + data.draw(st.integers(0, 100))
    elif name == "max_count":
        stricter = data.draw(st.integers(1, before))
    else:
        stricter = before * data.draw(st.floats(0, 1))
    assert gone(store, limits, protections) <= gone(store, replace(limits, **{name: stricter}), protections)


@MANY
@given(stores(), LIMITS, PROTECTIONS, PROTECTIONS, st.data())
def test_another_protection_deletes_nothing_that_would_have_stayed(
    store: list[Candidate], limits: Limits, some: Protections, others: Protections, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(vars(some))))
    mine, its = getattr(some, name), getattr(others, name)
    more = mine + its if name == "preserve" else max(mine or 0, its or 0)
    assert gone(store, limits, replace(some, **{name: more})) <= gone(store, limits, some)
    pinned = [replace(one, pin="") if data.draw(st.booleans()) else one for one in store]
    assert gone(pinned, limits, some) <= gone(store, limits, some)


@MANY
@given(stores(), LIMITS, PROTECTIONS)
def test_a_second_run_deletes_nothing_more(store: list[Candidate], limits: Limits, protections: Protections) -> None:
    deleted = gone(store, limits, protections)
    freed = sum(one.size for one in store if one.key in deleted)
    left = [one for one in store if one.key not in deleted]
    assert gone(left, limits, protections, FREE + freed) == set()


@MANY
@given(stores(), LIMITS, PROTECTIONS, st.floats(0.1, 1000))
def test_a_clock_that_is_behind_deletes_nothing_that_the_right_one_would_keep_for_its_age(
    store: list[Candidate], limits: Limits, protections: Protections, days: float
) -> None:
    by_age = Limits(max_age=limits.max_age)
    late = {
        one.candidate.key for one in decide(store, by_age, Protections(0), NOW - days * DAY) if one.action == "delete"
    }
    assert late <= gone(store, by_age, Protections(0))


@MANY
@given(stores(), LIMITS, PROTECTIONS)
def test_an_export_from_the_future_changes_nothing_for_the_others(
    store: list[Candidate], limits: Limits, protections: Protections
) -> None:
    """It neither takes their place nor makes them older; what it stands on is all it keeps."""
    future = Candidate("web01/99", "99", "web01", "web01", NOW + 5 * DAY, 10**6)
    assert gone([*store, future], limits, protections) == gone(store, limits, protections)
    if protections.keep_last:
        kept = {one.candidate.vm_id for one in run(store, limits, protections) if one.action == "keep"}
        assert kept == {one.vm_id for one in store if one.looked_at}


@MANY
@given(stores(), LIMITS, PROTECTIONS)
def test_each_export_that_is_looked_at_is_told_once_and_why(
    store: list[Candidate], limits: Limits, protections: Protections
) -> None:
    decisions = run(store, limits, protections)
    assert [one.candidate for one in decisions] == [one for one in store if one.looked_at]
    assert all(one.rule and one.reason for one in decisions)
    over = {name for name, value in vars(limits).items() if value is not None}
    assert {one.rule for one in decisions if one.action == "delete"} <= over


def merging(store: list[Candidate], limits: Limits, protections: Protections) -> dict[str, tuple[str, ...]]:
    decisions = decide(store, limits, protections, NOW, FREE, merge=True)
    return {one.candidate.key: one.into for one in decisions if one.action == "merge"}


@MANY
@given(stores(), LIMITS, PROTECTIONS)
def test_to_merge_changes_only_what_becomes_of_those_that_stay_for_a_child(
    store: list[Candidate], limits: Limits, protections: Protections
) -> None:
    without = {one.candidate.key: one for one in run(store, limits, protections)}
    for one in decide(store, limits, protections, NOW, FREE, merge=True):
        if one.action == "merge":
            assert without[one.candidate.key].rule == "child"
            assert one.rule in {name for name, value in vars(limits).items() if value is not None}
        else:
            assert one == without[one.candidate.key]


@MANY
@given(stores(), LIMITS, PROTECTIONS)
def test_each_export_that_stays_takes_over_all_that_it_stood_on_and_that_goes(
    store: list[Candidate], limits: Limits, protections: Protections
) -> None:
    merged, deleted = merging(store, limits, protections), gone(store, limits, protections)
    parents = {one.key: one.parent for one in store}
    at_work = [one for one in store if one.in_use]
    for one in store:
        if one.key in merged or one.key in deleted:
            continue
        below, run_below = one.parent, []
        while below in merged:
            assert one.key in merged[below]
            run_below.append(below)
            below = parents[below]
        assert below not in deleted
        assert not run_below or (one.looked_at and not one.in_use)
    for into in merged.values():
        assert into
        assert not set(into) & (set(merged) | deleted)
    for one in at_work:
        below = one.key
        while below:
            assert below not in merged
            below = parents.get(below, "")


@MANY
@given(stores(), LIMITS, PROTECTIONS, PROTECTIONS, st.data())
def test_another_protection_merges_or_deletes_nothing_that_would_have_stayed(
    store: list[Candidate], limits: Limits, some: Protections, others: Protections, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([name for name in sorted(vars(some)) if name != "preserve"]))
    more = replace(some, **{name: max(getattr(some, name) or 0, getattr(others, name) or 0)})

    def goes(protections: Protections) -> set[str]:
        return {*merging(store, limits, protections), *gone(store, limits, protections)}

    assert goes(more) <= goes(some)
    stricter = replace(limits, max_age=(limits.max_age or 100 * DAY) / 2)
    assert {*merging(store, limits, some), *gone(store, limits, some)} <= {
        *merging(store, stricter, some),
        *gone(store, stricter, some),
    }


@MANY
@given(stores(), LIMITS, PROTECTIONS)
def test_what_is_known_to_be_damaged_never_costs_another_export_its_life(
    store: list[Candidate], limits: Limits, protections: Protections
) -> None:
    damaged, deleted = known_damaged(store), gone(store, limits, protections)
    for limit in ("max_age", "max_count", "max_total_size", "min_free"):
        alone = replace(Limits(), **{limit: getattr(limits, limit)})
        innocent = [replace(one, damaged=False) for one in store]
        assert gone(store, alone, protections) - damaged <= gone(innocent, alone, protections)
        without = [replace(one, size=0) if one.key in damaged else one for one in store]
        if limit != "min_free":  # by what is deleted, room is made
            assert gone(store, alone, protections) - damaged == gone(without, alone, protections) - damaged
    for vm in {one.vm_id for one in store}:
        sound = sorted(
            (
                one
                for one in store
                if one.vm_id == vm and one.looked_at and one.key not in damaged and one.taken_at <= NOW
            ),
            key=lambda one: (one.taken_at, one.key),
            reverse=True,
        )
        assert not {one.key for one in sound[: protections.keep_last]} & deleted
        counted = gone(store, Limits(max_count=limits.max_count), Protections(0)) if limits.max_count else set()
        assert not {one.key for one in sound[: limits.max_count]} & counted


@MANY
@given(stores(), LIMITS, PROTECTIONS)
def test_a_vm_of_which_only_damaged_exports_are_left_is_told(
    store: list[Candidate], limits: Limits, protections: Protections
) -> None:
    decisions, damaged = run(store, limits, protections), known_damaged(store)
    left = [one for one in store if one.key not in gone(store, limits, protections)]
    told = " ".join(without_sound(decisions, store))
    for vm in {one.vm_id for one in store if one.looked_at}:
        mine = [one.key for one in left if one.vm_id == vm]
        assert (f" {vm} " in told) == (bool(mine) and set(mine) <= damaged)


def test_what_stands_on_a_damaged_export_is_damaged_and_the_newest_sound_ones_stay_instead() -> None:
    def made(number: int, parent: str = "", damaged: bool = False) -> Candidate:
        key = f"web01/{number:02}"
        return Candidate(key, key[6:], "1", "web01", NOW - (10 - number) * DAY, 1, parent=parent, damaged=damaged)

    store = [made(1), made(2), made(3), made(4, damaged=True), made(5, "web01/04"), made(6, "web01/05")]
    assert known_damaged(store) == {"web01/04", "web01/05", "web01/06"}
    assert gone(store, Limits(max_count=2), Protections(0)) == {"web01/01"}
    assert gone(store, Limits(max_age=DAY), Protections(1)) == {"web01/01", "web01/02"}
    told = {one.candidate.key: one.reason for one in run(store, Limits(max_count=2), Protections(1))}
    assert "known to be damaged" in told["web01/06"]
    assert "known to be damaged" not in told["web01/03"]
