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
    DAY,
    Candidate,
    Decision,
    Limits,
    Protections,
    decide,
)

NOW = 1_795_242_600.0
MANY = settings(max_examples=120, deadline=None, derandomize=True, database=None)
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
                parent=draw(st.sampled_from(["", *mine])),
                pin=draw(st.sampled_from([None, None, None, "why"])),
                in_use=draw(st.sampled_from(["", "", "", "A job is at it."])),
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
