# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a migration says of results that plays rarely meet."""

from __future__ import annotations

from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils._migration import (
    blank_row,
    outcome_row,
    plan_row,
    plan_table,
    summary_table,
)

WANTED: dict[str, Any] = {
    "vm": "web01",
    "name": "web01",
    "host": "web01",
    "to_host": "kvm02",
    "power_off": True,
    "power_on": True,
    "delete_source": False,
    "reachable": False,
}
NOT_FOUND = {"msg": "There is no VM web01.", "error": {"kind": "not_found", "hint": "List them."}}
SOURCE = {"vms": [{"id": "1f0c", "power_state": "powered_on"}]}
PLAN: dict[str, Any] = {"findings": [], "plan": {"bytes_to_read": 3_000_000}}
EXPORT = {"id": "20261121T063000Z-1a2b3c4d", "taken_at": "2026-11-21T06:30:00Z", "duration": 2.0}
LOOKED: dict[str, Any] = {"source": SOURCE, "destination": NOT_FOUND, "export": PLAN, "import": PLAN}
FOUND_EXPORT = {"changed": False, "export": EXPORT}
SKIPPED = {"skipped": True}


def made_from(export: str = "", vm: str = "1f0c", vm_name: str = "web01") -> dict[str, Any]:
    mark = {"export": export, "vm": vm, "vm_name": vm_name}
    return {"vms": [{"id": "9c1b", "power_state": "powered_on", "details": {"imported_from": mark}}]}


def planned(wanted: dict[str, Any] | None = None, **looked: Any) -> dict[str, Any]:
    return plan_row({**LOOKED, **looked}, {**WANTED, **(wanted or {})})


def test_a_name_that_nobody_has_at_the_destination_is_no_finding() -> None:
    row = planned()
    assert (row["state"], row["findings"], row["source_id"], row["bytes_to_move"]) == ("planned", [], "1f0c", 3_000_000)


def test_whatever_is_found_at_either_end_is_told_with_its_end() -> None:
    warning = {"severity": "warning", "message": "Little room.", "hint": "Free some.", "kind": "no_space"}
    error = {"severity": "error", "message": "There is no network lab.", "hint": "", "kind": "not_found"}
    row = planned(export={**PLAN, "findings": [warning]}, **{"import": {**PLAN, "findings": [error]}})
    assert row["findings"] == [
        "source: warning: Little room. Free some.",
        "destination: error: There is no network lab.",
    ]
    assert row["state"] == "failed"
    assert (row["error"]["kind"], row["error"]["step"]) == ("not_found", "preflight")
    assert plan_table([row])[1:3] == [
        "web01  kvm02/web01        -  source: warning: Little room. Free some.",
        "                             destination: error: There is no network lab.",
    ]


def test_a_task_that_failed_is_a_finding_although_its_failure_was_not_to_count() -> None:
    row = planned(export={"failed": False, "msg": "The module crashed."})
    assert row["findings"] == ["source: error: The module crashed."]
    unreachable = {"unreachable": True, "msg": "ssh: no route"}
    row = planned(destination=unreachable, **{"import": unreachable})
    assert (row["state"], row["error"]["kind"]) == ("failed", "network")


def test_a_source_that_is_not_there_is_told_once() -> None:
    row = planned(source=NOT_FOUND, export=SKIPPED, **{"import": SKIPPED})
    assert row["findings"] == ["source: error: There is no VM web01. List them."]


def test_what_an_earlier_run_migrated_is_done_with_its_source_or_without_it() -> None:
    assert planned(destination=made_from("20260101T000000Z-00000000"))["state"] == "done"
    row = planned(source=NOT_FOUND, destination=made_from(), export=SKIPPED, **{"import": SKIPPED})
    assert (row["state"], row["source_id"]) == ("done", "1f0c")


def test_a_namesake_that_was_made_of_another_vm_is_not_what_was_migrated() -> None:
    taken = {"severity": "error", "message": "A VM named web01 exists already.", "hint": "", "kind": "conflict"}
    conflict = {**PLAN, "findings": [taken]}
    assert planned(destination=made_from(vm="other"), **{"import": conflict})["state"] == "failed"
    row = planned(source=NOT_FOUND, destination=made_from(vm_name="other"), export=SKIPPED, **{"import": SKIPPED})
    assert row["state"] == "failed"


def test_without_a_look_into_the_store_nothing_is_taken_for_done() -> None:
    row = planned(destination=made_from(), export={"msg": "Access denied.", "error": {"kind": "permission_denied"}})
    assert (row["state"], row["error"]["kind"]) == ("failed", "permission_denied")


def test_an_export_that_is_there_is_taken_and_moves_nothing() -> None:
    row = planned({"power_off": False}, export=FOUND_EXPORT)
    assert (row["state"], row["bytes_to_move"]) == ("planned", 0)
    assert "The export of 2026-11-21T06:30:00Z is taken" in row["findings"][0]
    stale = planned({"power_off": True}, export=FOUND_EXPORT)
    assert "runs again" in stale["error"]["message"]
    off = {"vms": [{"id": "1f0c", "power_state": "powered_off"}]}
    assert planned({"power_off": True}, source=off, export=FOUND_EXPORT)["state"] == "planned"


def test_that_a_source_runs_on_is_warned_of_where_it_is_to_be_neither_shut_down_nor_deleted() -> None:
    (finding,) = planned({"power_off": False})["findings"]
    assert finding.startswith("source: warning: web01 runs on, so that there will be two of it;")
    off = {"vms": [{"id": "1f0c", "power_state": "powered_off"}]}
    assert planned({"power_off": False}, source=off)["findings"] == []


def test_a_guest_that_does_not_go_off_is_told_of_with_the_variable_that_cuts_its_power() -> None:
    error = {"kind": "timeout", "hint": "Have its power cut with force: true."}
    row = outcome_row(blank_row(WANTED), "power_off", {"msg": "It did not power off.", "error": error})
    assert row["error"]["sentence"] == "It did not power off. Have its power cut with vm_migrate_power_off_force: true."


def test_a_source_is_only_deleted_when_it_is_off_and_its_successor_is_seen_to_work() -> None:
    sure = {"delete_source": True, "power_off": True, "reachable": True}
    assert planned(sure)["state"] == "planned"
    for doubt in ("power_off", "power_on", "reachable"):
        assert planned({**sure, doubt: False})["state"] == "failed"


def test_the_outcome_tells_what_was_moved_or_which_step_failed() -> None:
    row = planned()
    export = {**EXPORT, "disks": [{"bytes_read": 2_000_000}, {"bytes_read": 1_000_000}]}
    made = {"changed": True, "job": {"duration": 3.5}}
    moved = outcome_row(row, "", {"export": export, "import": made})
    assert summary_table([moved])[1:] == [
        "web01  kvm02/web01  migrated  3.00 MB      5.5  20261121T063000Z-1a2b3c4d",
        "1 migrated; 0 done already; 0 failed",
    ]
    looped = {"results": [{"failed": True, "msg": "No room.", "error": {"kind": "no_space", "hint": "Free some."}}]}
    failed = outcome_row(row, "export", looped)
    assert summary_table([failed])[1].endswith("failed      -        -  export: No room. Free some.")
    assert outcome_row(row, "", {})["state"] == "done"
    assert outcome_row(moved, "", {"export": export, "import": {"changed": False}})["state"] == "done"


def test_a_vm_of_a_host_of_another_name_is_called_by_both() -> None:
    assert blank_row({**WANTED, "host": "shop"})["label"] == "shop/web01"


def test_a_host_to_log_in_to_that_the_inventory_does_not_have_is_found_before_anything_is_done() -> None:
    row = planned({"unknown_host": "wbe01"})
    assert row["state"] == "failed"
    assert row["findings"][0].startswith(
        "destination: error: wbe01 is to be logged in to, and is no host of the inventory."
    )
    assert planned({"unknown_host": ""})["state"] == "planned"
