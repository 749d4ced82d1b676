# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a batch says of results that plays rarely meet."""

from __future__ import annotations

from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils._fleet import (
    chosen_vms,
    outcome_rows,
    plan_rows,
    plan_table,
    summary_table,
)

PLAN = {"mode": "full", "bytes_to_read": 3_000_000, "bytes_to_send": 2_000_000}
LOOKED: dict[str, Any] = {"changed": True, "findings": [], "plan": PLAN}
EXPORT = {
    "id": "20261121T063000Z-1a2b3c4d",
    "url": "s3://backups/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d",
    "mode": "full",
    "disks": [{"bytes_read": 3_000_000, "bytes_stored": 2_000_000}],
    "duration": 2.0,
    "rate": 1_500_000,
}
EXPORTED: dict[str, Any] = {"changed": True, "export": EXPORT, "job": {"id": "3f1c9a2b", "url": "s3://backups/vms"}}


def looped(*results: dict[str, Any]) -> dict[str, Any]:
    return {"results": list(results)}


def ended(*results: dict[str, Any]) -> list[dict[str, Any]]:
    vms = [f"web{number:02}" for number, _result in enumerate(results, 1)]
    return outcome_rows(plan_rows(looped(*[LOOKED] * len(vms)), "kvm01", vms), looped(*results))


def test_vms_found_twice_are_one_and_those_of_one_name_go_by_their_ids() -> None:
    found = looped(
        {"vms": [{"id": "1", "name": "web01"}, {"id": "2", "name": "db01"}]},
        {"vms": [{"id": "1", "name": "web01"}, {"id": "3", "name": "db01"}]},
    )
    assert chosen_vms(found) == ["2", "3", "web01"]


def test_every_finding_has_a_line_the_worst_first_and_the_first_error_is_the_failure() -> None:
    findings = [
        {"severity": "warning", "message": "Little room.", "hint": "Free some.", "kind": "no_space"},
        {"severity": "error", "message": "The VM has no disk.", "hint": "", "kind": "invalid_config"},
    ]
    rows = plan_rows(looped({**LOOKED, "findings": findings}), "web01", ["web01"])
    assert rows[0]["error"]["kind"] == "invalid_config"
    assert plan_table(rows)[1:3] == [
        "web01  failed        -        -  error: The VM has no disk.",
        "                                 warning: Little room.",
    ]


def test_a_vm_that_is_busy_is_planned_and_told() -> None:
    busy = {"severity": "error", "message": "The VM has a job.", "hint": "Wait for it.", "kind": "busy"}
    rows = plan_rows(looped({**LOOKED, "changed": False, "findings": [busy]}), "web01", ["web01"])
    assert rows[0]["state"] == "planned"
    assert "error" not in rows[0]
    table = plan_table(rows)
    assert table[1].endswith("warning: The VM has a job.")
    assert table[-1] == "Hint: Wait for it."


def test_a_vm_that_is_busy_and_has_an_error_fails_for_the_error() -> None:
    busy = {"severity": "error", "message": "The VM has a job.", "hint": "", "kind": "busy"}
    error = {"severity": "error", "message": "It has no disk.", "hint": "", "kind": "invalid_config"}
    rows = plan_rows(looped({**LOOKED, "findings": [busy, error]}), "web01", ["web01"])
    assert rows[0]["error"]["kind"] == "invalid_config"


def test_an_error_before_the_loop_is_told_of_every_vm() -> None:
    rows = plan_rows({"failed": True, "msg": "'bucket' is undefined"}, "kvm01", ["web01", "web02"])
    assert [(row["label"], row["state"], row["error"]["message"]) for row in rows] == [
        ("kvm01/web01", "failed", "'bucket' is undefined"),
        ("kvm01/web02", "failed", "'bucket' is undefined"),
    ]


def test_a_hypervisor_without_a_vm_is_told_and_is_no_failure() -> None:
    rows = plan_rows(looped(), "kvm01", [])
    assert rows[0]["state"] == "none"
    assert "No VM of this host fits its filters." in plan_table(rows)[1]
    assert summary_table(rows)[-1].endswith("0 failed")


def test_a_message_of_several_lines_stays_one_line_of_the_table() -> None:
    (row,) = ended({"unreachable": True, "msg": "Failed to connect:\r\nConnection refused\r\n"})
    assert row["error"]["message"] == "Failed to connect: Connection refused"
    assert row["error"]["kind"] == "network"


def test_a_url_that_ansible_masked_is_the_stores_instead() -> None:
    (row,) = ended({**EXPORTED, "export": {**EXPORT, "url": "s3://********/vms/web01"}})
    assert row["url"] == "s3://backups/vms"


def test_figures_are_aligned_and_added_up() -> None:
    failed = {"failed": True, "msg": "No.", "error": {"kind": "internal", "hint": "Ask again."}}
    table = summary_table(ended(EXPORTED, {**EXPORTED, "changed": False}, failed, failed))
    assert table == [
        "VM           MODE       READ   STORED  SECONDS  MB/S  WHERE, OR WHAT WENT WRONG",
        f"kvm01/web01  full    3.00 MB  2.00 MB      2.0   1.5  {EXPORT['url']}",
        f"kvm01/web02  done          -        -        -     -  {EXPORT['url']}",
        "kvm01/web03  failed        -        -        -     -  No.",
        "kvm01/web04  failed        -        -        -     -  No.",
        "1 exported, 3.00 MB read and 2.00 MB stored; 1 done already; 2 failed",
        "Hint: Ask again.",
    ]
