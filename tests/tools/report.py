# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what pytest left behind (JUnit XML) and says it in plain lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True)
class CaseResult:
    group: str
    name: str
    seconds: float
    outcome: str  # passed, failed or skipped


@dataclass(frozen=True)
class GroupResult:
    name: str
    seconds: float
    budget: float
    failures: Sequence[str]
    notes: Sequence[str]


def read_junit(group: str, files: Iterable[Path]) -> list[CaseResult]:
    return [
        CaseResult(group, f"{case.get('classname')}::{case.get('name')}", float(case.get("time", 0)), _outcome(case))
        for file in files
        for case in ElementTree.parse(file).getroot().iter("testcase")
    ]


def _outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


def print_summary(groups: Sequence[GroupResult], tests: Sequence[CaseResult], slowest: int = 10) -> None:
    if tests:
        print(f"\nThe {min(slowest, len(tests))} slowest tests")
        for test in sorted(tests, key=lambda test: -test.seconds)[:slowest]:
            print(f"{test.seconds:8.1f} s  {test.group:<12} {test.name}")
    print(f"\n{'group':<12} {'result':<8} {'seconds':>8} {'budget':>8}")
    for group in groups:
        result = "failed" if group.failures else "passed"
        print(f"{group.name:<12} {result:<8} {group.seconds:8.1f} {group.budget:8.0f}")
        for line in (*group.failures, *group.notes):
            print(f"  {line}")
    if not tests:  # nothing was counted: the table says how it went
        return
    count = {outcome: sum(test.outcome == outcome for test in tests) for outcome in ("passed", "failed", "skipped")}
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    print(f"\n{count['passed']} passed, {count['failed']} failed{skipped}", flush=True)
