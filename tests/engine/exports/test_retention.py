# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each limit and each protection does what its name says, and says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention import (
    DAY,
    Candidate,
    Decision,
    Limits,
    Protections,
    decide,
    unmet,
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
    assert decisions[0].reason == "It is 4.0 days old; max_age is 3.0."


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
