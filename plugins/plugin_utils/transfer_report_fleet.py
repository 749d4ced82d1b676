# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kept a VM of a batch from being exported before its export began: no task with a transfer tells of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .transfer_report import Transfer

FACT = "export_fleet_result"  # of the playbook export_fleet: the rows of a host's VMs


def left_out(result: Mapping[str, Any], host: str, time: float) -> list[Transfer]:
    """`result`: of a task that sets facts. Where they are not those of a batch, there is none."""
    facts = result.get("ansible_facts")
    rows = facts.get(FACT) if isinstance(facts, Mapping) else None
    return [_failed(row, host, time) for row in _failures(rows) if row["error"].get("when") == "preflight"]


def _failures(rows: Any) -> Iterable[Mapping[str, Any]]:
    told = (row for row in rows if isinstance(row, Mapping)) if isinstance(rows, list) else ()
    return (row for row in told if row.get("state") == "failed" and isinstance(row.get("error"), Mapping))


def _failed(row: Mapping[str, Any], host: str, time: float) -> Transfer:
    error = {name: str(row["error"].get(name) or "") for name in ("kind", "message", "hint")}
    return Transfer(
        host,
        "export",
        "failed",
        time,
        vm=str(row.get("vm") or ""),
        error_kind=error["kind"],
        message=error["message"],
        hint=error["hint"],
    )
