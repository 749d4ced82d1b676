# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each limit and each protection does what its name says, and says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention import decide, unmet
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import (
    DAY,
    Candidate,
    Decision,
    Limits,
    Protections,
)

NOW = 1_795_242_600.0  # 2026-11-21T06:30:00Z, a Saturday
NONE = Protections(keep_last=0)


def export(export_id: str, age: float, parent: str = "", vm: str = "web01", /, **rest: object) -> Candidate:
    """`age` in days."""
    key, below = f"{vm}/{export_id}", f"{vm}/{parent}" if parent else ""
    return Candidate(key, export_id, vm, vm, NOW - age * DAY, 10, parent=below, **rest)  # type: ignore[arg-type]


def daily(count: int, vm: str = "web01") -> list[Candidate]:
    """`e0` is the newest, taken this moment."""
    return [export(f"e{age}", age, "", vm) for age in reversed(range(count))]


def deleted(decisions: tuple[Decision, ...]) -> list[str]:
    return sorted(one.candidate.export_id for one in decisions if one.action == "delete")


def rules(decisions: tuple[Decision, ...]) -> dict[str, str]:
    return {one.candidate.export_id: one.rule for one in decisions}


def test_nothing_goes_without_a_limit() -> None:
    assert deleted(decide(daily(3), Limits(), NONE, NOW)) == []


@pytest.mark.parametrize(
    ("limits", "free", "gone"),
    [
        (Limits(max_age=2 * DAY), 0, ["e3", "e4"]),
        (Limits(max_count=2), 0, ["e2", "e3", "e4"]),
        (Limits(max_total_size=35), 0, ["e3", "e4"]),
        (Limits(max_total_size=9), 0, ["e0", "e1", "e2", "e3", "e4"]),
        (Limits(min_free=25), 10, ["e3", "e4"]),
        (Limits(min_free=25), 25, []),
    ],
)
def test_a_limit_deletes_the_oldest_and_no_more_than_it_has_to(limits: Limits, free: int, gone: list[str]) -> None:
    decisions = decide(daily(5), limits, NONE, NOW, free)
    assert deleted(decisions) == gone
    (name,) = (name for name, value in vars(limits).items() if value is not None)
    assert {one.rule for one in decisions} <= {name, "within_limits"}


def test_max_count_counts_each_vm_and_the_limits_of_size_count_all() -> None:
    both = [*daily(3), *daily(3, "db01")]
    assert deleted(decide(both, Limits(max_count=2), NONE, NOW)) == ["e2", "e2"]
    assert deleted(decide(both, Limits(max_total_size=40), NONE, NOW)) == ["e2", "e2"]


def test_an_export_of_one_disk_takes_no_place_of_one_of_the_whole_vm() -> None:
    both, one = frozenset({"vda", "vdb"}), frozenset({"vdb"})
    store = [export("whole", 9, disks=both), export("part", 2, disks=one), export("newest part", 1, disks=one)]
    few, daily_ones = Limits(max_count=1), Protections(keep_last=1, keep_daily=1)
    assert deleted(decide(store, few, NONE, NOW)) == ["part"]
    assert deleted(decide(store, Limits(max_age=DAY / 2), daily_ones, NOW)) == ["part"]


def test_an_export_of_the_whole_vm_takes_the_place_of_one_of_a_single_disk() -> None:
    both, one = frozenset({"vda", "vdb"}), frozenset({"vdb"})
    store = [export("part", 2, disks=one), export("whole", 1, disks=both)]
    assert deleted(decide(store, Limits(max_count=1), Protections(keep_last=1), NOW)) == ["part"]


BOTH, FIRST, SECOND = frozenset({"vda", "vdb"}), frozenset({"vda"}), frozenset({"vdb"})


def days_of(decisions: tuple[Decision, ...]) -> list[int]:
    return [int(one.candidate.export_id[1:]) for one in decisions if one.action == "keep"]


def test_exports_of_a_disk_that_the_vm_has_no_more_go_as_others_take_their_place() -> None:
    before = [replace(one, disks=BOTH, whole=True) for one in daily(399)[:29]]
    after = [replace(one, disks=FIRST, whole=True) for one in daily(370)]
    kept = Protections(keep_last=1, keep_daily=7, keep_weekly=4)
    staying = days_of(decide([*before, *after], Limits(max_age=1.0), kept, NOW))
    assert len(staying) > 7
    assert max(staying) < 30
    removed = export("e3", 3, disks=SECOND)
    assert deleted(decide([removed, *after[-2:]], Limits(max_age=1.0), NONE, NOW)) == ["e1", "e3"]


def test_what_a_vm_was_before_it_lost_a_disk_is_history_like_any_other() -> None:
    before = [replace(one, disks=BOTH, whole=True) for one in daily(60)[:-2]]
    after = [replace(one, disks=FIRST, whole=True) for one in daily(2)]
    for kept in (Protections(keep_weekly=4), Protections(keep_daily=9), Protections(keep_monthly=2)):
        as_ever = decide([replace(one, disks=FIRST) for one in [*before, *after]], Limits(max_age=DAY), kept, NOW)
        assert rules(decide([*before, *after], Limits(max_age=DAY), kept, NOW)) == rules(as_ever)


@pytest.mark.parametrize(
    ("limits", "newest"),
    [
        (Limits(max_age=9 * DAY, max_count=1), {"whole": True}),  # it is not that old yet
        (Limits(max_count=1), {"whole": True}),
        (Limits(max_age=DAY), {}),  # nobody knows whether the VM has another disk
        (Limits(max_age=DAY), {"whole": True, "damaged": True}),
        (Limits(max_age=DAY), {"whole": True, "disks": BOTH}),
    ],
)
def test_the_last_export_of_a_disk_stays_where_the_vm_may_have_it_or_lost_it_just_now(
    limits: Limits, newest: dict[str, object]
) -> None:
    last = export("last", 3, disks=BOTH, whole=True)
    store = [last, export("newest", 2, **{"disks": FIRST, **newest}), export("part", 0.5, disks=FIRST)]
    if newest.get("disks") == BOTH:
        assert deleted(decide(store, limits, Protections(keep_last=1), NOW)) == ["last"]
    else:
        assert rules(decide(store, limits, Protections(keep_last=1), NOW))["last"] in ("keep_last", "within_limits")


@pytest.mark.parametrize("limits", [Limits(max_total_size=100), Limits(min_free=100)])
@pytest.mark.parametrize("protections", [NONE, Protections(keep_last=1)])
def test_nothing_that_can_be_restored_goes_for_what_is_known_to_be_damaged(
    limits: Limits, protections: Protections
) -> None:
    store = [
        replace(export("first", 3), size=20),
        replace(export("second", 2), size=20),
        replace(export("bad", 1, damaged=True), size=90),
    ]
    decisions = decide(store, limits, protections, NOW, free=20)
    assert deleted(decisions) == ([] if protections.keep_last else ["bad"])
    told = unmet(decisions, limits, free=20)
    assert bool(told) == bool(protections.keep_last)


def test_where_sizes_are_limited_what_stands_on_a_damaged_export_goes_before_what_is_older() -> None:
    store = [
        export("full", 4),
        export("bad", 3, "full", damaged=True),
        export("on it", 2, "bad"),
        export("alone", 1),
    ]
    assert deleted(decide(store, Limits(max_total_size=20), NONE, NOW)) == ["bad", "on it"]
    assert deleted(decide(store, Limits(max_total_size=40), NONE, NOW)) == []
    assert deleted(decide(store, Limits(max_total_size=10), NONE, NOW)) == ["bad", "full", "on it"]


def test_the_limits_of_size_look_at_what_the_others_leave() -> None:
    hourly = [export(f"h{n}", n / 24, "", "db01") for n in range(50)]
    both = [*hourly, export("old", 20)]
    assert deleted(decide(both, Limits(max_total_size=100), NONE, NOW)) != []
    survivors = decide(both, Limits(max_count=5, max_total_size=100), NONE, NOW)
    assert rules(survivors)["old"] == "within_limits"
    enough = decide(both, Limits(max_count=5, min_free=400), NONE, NOW, 0)
    assert rules(enough)["old"] == "within_limits"


def test_the_first_limit_that_is_over_is_told() -> None:
    decisions = decide(daily(5), Limits(max_age=3 * DAY, max_count=3, max_total_size=20), NONE, NOW)
    assert rules(decisions) == {
        "e0": "within_limits",
        "e1": "within_limits",
        "e2": "max_total_size",
        "e3": "max_count",
        "e4": "max_age",
    }
    assert decisions[0].reason == "It is 4.0 days old; max_age is 3.0 days."


ALL = Limits(max_age=0.5 * DAY, max_count=1, max_total_size=1, min_free=10**9)


@pytest.mark.parametrize(
    ("protections", "kept"),
    [
        (NONE, []),
        (Protections(), ["e0"]),
        (Protections(keep_last=3), ["e0", "e1", "e2"]),
        (Protections(keep_last=0, keep_daily=2), ["e0", "e1"]),
        # e5 is a Monday: e6 is a Sunday and the newest of its week, e13 that of the week before.
        (Protections(keep_last=0, keep_weekly=3), ["e0", "e13", "e6"]),
        # e20 is the first of November: e21 is the newest of October, e52 that of September.
        (Protections(keep_last=0, keep_monthly=3), ["e0", "e21", "e52"]),
        (Protections(keep_last=0, keep_yearly=2), ["e0", "e325"]),
        (Protections(keep_last=0, min_retention=2 * DAY), ["e0", "e1"]),
        (Protections(keep_last=0, preserve=("e39?",)), [f"e39{n}" for n in range(10)]),
    ],
)
def test_a_protection_wins_over_every_limit(protections: Protections, kept: list[str]) -> None:
    decisions = decide(daily(400), ALL, protections, NOW)
    assert sorted(one.candidate.export_id for one in decisions if one.action == "keep") == kept
    named = {name for name, value in vars(protections).items() if value}
    assert {one.rule for one in decisions if one.action == "keep"} <= named


@pytest.mark.parametrize("pattern", ["before-*", "web*", "gold", "e1"])
def test_preserve_looks_at_the_id_the_name_the_vm_and_the_tags(pattern: str) -> None:
    one = export("e1", 9, name="before-upgrade", tags=("daily", "gold"))
    other = export("e2", 9, "", "db01", tags=("golden",))
    decisions = decide([one, other], ALL, replace(NONE, preserve=(pattern,)), NOW)
    assert rules(decisions) == {"e1": "preserve", "e2": "max_age"}


def test_what_is_pinned_or_in_use_stays_and_says_why() -> None:
    pinned, used = export("e1", 9, pin="for the auditors"), export("e2", 9, in_use="Job 7 is at it.")
    decisions = decide([pinned, export("e3", 9, pin=""), used], ALL, NONE, NOW)
    assert [one.reason for one in decisions] == ["It is pinned: for the auditors", "It is pinned.", "Job 7 is at it."]


def test_a_period_without_exports_is_not_counted() -> None:
    sparse = [export("e40", 40), export("e20", 20), export("e0", 0)]
    assert deleted(decide(sparse, ALL, Protections(keep_daily=2), NOW)) == ["e40"]


def chain() -> list[Candidate]:
    return [export("full", 9), export("second", 8, "full"), export("third", 7, "second"), export("last", 0, "third")]


def test_what_an_export_that_stays_stands_on_stays_however_far_below() -> None:
    decisions = decide(chain(), Limits(max_age=DAY), NONE, NOW)
    assert rules(decisions) == {"full": "child", "second": "child", "third": "child", "last": "within_limits"}
    assert decisions[0].reason == "second stands on it."
    assert deleted(decide(chain()[:3], Limits(max_age=DAY), NONE, NOW)) == ["full", "second", "third"]


def test_a_child_that_nobody_looks_at_keeps_its_parents() -> None:
    entries = chain()[:3]
    entries[2] = replace(entries[2], looked_at=False)
    decisions = decide(entries, Limits(max_age=DAY), NONE, NOW)
    assert rules(decisions) == {"full": "child", "second": "child"}


def test_a_chain_counts_as_a_whole_where_sizes_are_limited() -> None:
    decisions = decide([export("alone", 3), *chain()], Limits(max_total_size=40), NONE, NOW)
    assert deleted(decisions) == ["alone"]
    decisions = decide([export("alone", 3), *chain()], Limits(max_total_size=39), NONE, NOW)
    assert len(deleted(decisions)) == 5, "a part of a chain is no use"


def test_an_export_from_the_future_stays_and_counts_for_nothing() -> None:
    future = [export(f"f{n}", -n - 1) for n in range(3)]
    decisions = decide([*daily(3), *future], Limits(max_count=1, max_total_size=10), Protections(keep_daily=1), NOW)
    assert deleted(decisions) == ["e1", "e2"]
    assert {rules(decisions)[f"f{n}"] for n in range(3)} == {"future"}


def test_limits_that_protections_keep_from_being_met_are_told() -> None:
    limits = Limits(max_total_size=15, min_free=100)
    decisions = decide([export("e1", 9, pin=""), *daily(1)], limits, NONE, NOW, 5)
    assert rules(decisions) == {"e1": "pinned", "e0": "min_free"}
    assert unmet(decisions, limits, 5) == ["15 bytes will be free; min_free is 100. What is left is protected."]
    decisions = decide([export("e1", 9, pin=""), *daily(1)], Limits(max_total_size=15), NONE, NOW)
    told = "20 bytes stay, by protections; max_total_size is 15."
    assert unmet(decisions, Limits(max_total_size=15)) == [told]


def test_exports_that_claim_to_stand_on_each_other_end_no_world() -> None:
    knot = [export("a", 9, "b"), export("b", 9, "a"), export("c", 9, "missing")]
    assert deleted(decide(knot, Limits(max_age=DAY, max_total_size=1), NONE, NOW)) == ["a", "b", "c"]
    knot[0] = replace(knot[0], pin="")
    assert deleted(decide(knot, Limits(max_age=DAY), NONE, NOW)) == ["c"]


def merged(decisions: tuple[Decision, ...]) -> dict[str, list[str]]:
    return {
        one.candidate.export_id: [key.rpartition("/")[2] for key in one.into]
        for one in decisions
        if one.action == "merge"
    }


def chained(count: int, /, **rest: object) -> list[Candidate]:
    """`e0` is the newest, and each stands on the next older one. `rest`: of those named, by field."""
    made = [export(f"e{age}", age, f"e{age + 1}" if age < count - 1 else "") for age in reversed(range(count))]
    return [replace(one, **rest.get(one.export_id, {})) for one in made]  # type: ignore[arg-type, attr-defined]


def test_what_stays_only_for_its_child_is_merged_into_it_where_that_is_asked_for() -> None:
    limits = Limits(max_count=2)
    assert merged(decide(chained(5), limits, NONE, NOW)) == {}
    decisions = decide(chained(5), limits, NONE, NOW, merge=True)
    assert merged(decisions) == {"e4": ["e1"], "e3": ["e1"], "e2": ["e1"]}
    (told,) = {one.reason for one in decisions if one.candidate.export_id == "e2"}
    assert told == "There are 2 newer ones of its VM, which max_count allows. e1 takes over what it holds."
    assert deleted(decisions) == []
    assert rules(decisions)["e2"] == "max_count"


def test_a_protected_parent_takes_over_what_is_below_it_and_goes_nowhere() -> None:
    decisions = decide(chained(5, e3={"pin": ""}), Limits(max_count=1), NONE, NOW, merge=True)
    assert merged(decisions) == {"e4": ["e3"], "e2": ["e0"], "e1": ["e0"]}
    assert rules(decisions)["e3"] == "pinned"


def test_what_two_stand_on_is_merged_into_both_and_what_nobody_stands_on_is_deleted() -> None:
    store = [*chained(3), export("twin", 0.5, "e2", pin=""), export("leaf", 1.5, "e2")]
    decisions = decide(store, Limits(max_count=1), NONE, NOW, merge=True)
    assert merged(decisions) == {"e2": ["e0", "twin"], "e1": ["e0"]}
    assert deleted(decisions) == ["leaf"]


@pytest.mark.parametrize(("at_work", "goes"), [("e0", {}), ("e1", {}), ("e2", {"e1": ["e0"]})])
def test_nothing_is_merged_below_what_a_job_stands_on(at_work: str, goes: dict[str, list[str]]) -> None:
    decisions = decide(chained(4, **{at_work: {"in_use": "A job."}}), Limits(max_count=1), NONE, NOW, merge=True)
    assert (merged(decisions), deleted(decisions)) == (goes, [])


def test_an_export_that_nobody_asked_about_takes_nothing_over_but_its_parent_does() -> None:
    decisions = decide(chained(4, e0={"looked_at": False}), Limits(max_age=0.5 * DAY), NONE, NOW, merge=True)
    assert merged(decisions) == {"e3": ["e1"], "e2": ["e1"]}
    assert rules(decisions)["e1"] == "child"


def test_what_is_merged_counts_as_staying() -> None:
    limits = Limits(max_count=1, max_total_size=15)
    decisions = decide(chained(2), limits, Protections(keep_last=1), NOW, merge=True)
    assert merged(decisions) == {"e1": ["e0"]}
    assert unmet(decisions, limits) == ["20 bytes stay, by protections; max_total_size is 15."]


def test_an_age_is_told_in_a_unit_that_shows_it() -> None:
    one = Candidate("web01/1", "1", "1", "web01", NOW - 720, 1)
    (young,) = decide([one], Limits(), Protections(0, min_retention=900.0), NOW)
    assert young.reason == "It is 12 min old; min_retention is 15 min."
    (old,) = decide([one], Limits(max_age=300.0), Protections(0), NOW + 5 * 3600)
    assert old.reason == "It is 5.2 h old; max_age is 5 min."
