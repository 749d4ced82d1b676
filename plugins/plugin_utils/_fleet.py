# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a batch knows of its VMs: rows made of the results of tasks, one for each VM, and tables made of rows.

A row is a dict, since it travels as a fact of the VM's host: vm, label, host, state and what belongs to the state.
States: `planned`, `done` (an export that is wanted exists), `failed`, and `none` for a host that got no VM. In the end
`planned` became `exported`, `done` or `failed`, unless nothing was to be begun. A row that failed has `error`: message,
hint, kind, sentence (message and hint), and when (preflight or export).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._text_table import NOTHING, text_table
from .progress_lines import amount

Row = dict[str, Any]
MASKS = ("********", "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER")
MB = 1_000_000
ENDED = {"planned": "not begun", "done": "done", "failed": "failed", "none": NOTHING}


def chosen_vms(found: Mapping[str, Any]) -> list[str]:
    """The VMs in the results of looped `vm_info`, once each: by name, or by id where names are not unique."""
    vms = {vm["id"]: vm["name"] for result in found.get("results", ()) for vm in result.get("vms", ())}
    names = list(vms.values())
    return sorted(name if names.count(name) == 1 else identity for identity, name in vms.items())


_SEVERITIES = ("error", "warning", "info")  # the worst is told first


def plan_rows(result: Mapping[str, Any], host: str, vms: Sequence[str]) -> list[Row]:
    """One row for each VM, of the result of the role's task in check mode; one for the host if it got no VM."""
    if not vms:
        row = {"host": host, "vm": "", "label": host}
        if has_failed(result):
            return [_plan_row(first_failed(result), row)]
        return [{**row, "state": "none", "findings": ["warning: No VM of this host fits its filters."], "hints": []}]
    return [_plan_row(one, _named(host, vm)) for vm, one in _each(result, vms)]


def outcome_rows(rows: Sequence[Row], exported: Mapping[str, Any]) -> list[Row]:
    """The rows of a plan, each that was planned with what came of it, by the result of the role's task."""
    outcomes = dict(_each(exported, [row["vm"] for row in rows if row["state"] == "planned"]))
    return [_outcome_row(outcomes[row["vm"]], row) if row["state"] == "planned" else row for row in rows]


def fleet_table(rows: Sequence[Row], kind: str) -> list[str]:
    """`kind`: plan or summary."""
    return {"plan": plan_table, "summary": summary_table}[kind](rows)


def plan_table(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in _sorted(rows):
        known = row["state"] == "planned"
        said = row["findings"] or [""]
        mode = row["mode"] if known else ENDED[row["state"]]
        figures = [amount(row[name]) if known else NOTHING for name in ("bytes_to_read", "bytes_to_send")]
        lines.append([row["label"], mode, *figures, said[0]])
        lines += [["", "", "", "", more] for more in said[1:]]
    planned = [row for row in rows if row["state"] == "planned"]
    total = [
        f"{_count(rows, 'planned')} to export, {amount(_sum(planned, 'bytes_to_read'))} to read and "
        f"{amount(_sum(planned, 'bytes_to_send'))} to send at most; "
        f"{_count(rows, 'done')} done already; {_count(rows, 'failed')} cannot be exported"
    ]
    table = text_table(["VM", "MODE", ">TO READ", ">TO SEND", "FINDINGS"], lines)
    return [*table, *total, *_hints(hint for row in _sorted(rows) for hint in row["hints"])]


def summary_table(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in _sorted(rows):
        moved = row["state"] == "exported"
        lines.append(
            [
                row["label"],
                row["mode"] if moved else ENDED[row["state"]],
                amount(row["bytes_read"]) if moved else NOTHING,
                amount(row["bytes_stored"]) if moved else NOTHING,
                f"{row['seconds']:.1f}" if moved else NOTHING,
                f"{row['rate'] / MB:.1f}" if moved else NOTHING,
                row.get("url") or row.get("error", {}).get("message", NOTHING),
            ]
        )
    exported = [row for row in rows if row["state"] == "exported"]
    total = (
        f"{len(exported)} exported, {amount(_sum(exported, 'bytes_read'))} read and "
        f"{amount(_sum(exported, 'bytes_stored'))} stored; "
        f"{_count(rows, 'done')} done already; {_count(rows, 'failed')} failed"
    )
    titles = ["VM", "MODE", ">READ", ">STORED", ">SECONDS", ">MB/S", "WHERE, OR WHAT WENT WRONG"]
    return [*text_table(titles, lines), total, *_hints(row["error"]["hint"] for row in _sorted(rows) if "error" in row)]


def _hints(hints: Iterable[str]) -> list[str]:
    """Below the table and once each: what is wrong with one VM often is with many."""
    return [f"Hint: {hint}" for hint in dict.fromkeys(hints) if hint]


def _each(result: Mapping[str, Any], vms: Sequence[str]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """A task that failed before its loop began, or an earlier one, has one result for all."""
    results = result.get("results", ())
    if len(results) != len(vms):
        results = [first_failed(result)] * len(vms)
    return zip(vms, results, strict=True)


def first_failed(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a loop: the loop's own message says nothing."""
    return next(filter(has_failed, result.get("results", ())), result)


def _named(host: str, vm: str) -> Row:
    return {"host": host, "vm": vm, "label": vm if vm == host else f"{host}/{vm}"}


def _plan_row(result: Mapping[str, Any], row: Row) -> Row:
    if has_failed(result):
        failed = _failure(row, error_of(result), "preflight")
        return {**failed, "findings": [f"error: {failed['error']['message']}"], "hints": [failed["error"]["hint"]]}
    if "plan" not in result:
        url = _where(result)
        return {
            **row,
            "state": "done",
            "export": result["export"]["id"],
            "url": url,
            "findings": [f"info: {url}"],
            "hints": [],
        }
    findings = sorted(map(_as_told, result["findings"]), key=lambda finding: _SEVERITIES.index(finding["severity"]))
    errors = [finding for finding in findings if finding["severity"] == "error"]
    row = {
        **row,
        "findings": [f"{finding['severity']}: {finding['message']}" for finding in findings],
        "hints": [finding["hint"] for finding in findings if finding["hint"]],
    }
    if errors:
        return _failure(row, errors[0], "preflight")
    plan = result["plan"]
    return {**row, "state": "planned", **{name: plan[name] for name in ("mode", "bytes_to_read", "bytes_to_send")}}


def _as_told(finding: Mapping[str, Any]) -> Mapping[str, Any]:
    """What else is done to a VM passes: the export waits for it, so it keeps nothing from being planned."""
    return {**finding, "severity": "warning"} if finding.get("kind") == "busy" else finding


def _outcome_row(result: Mapping[str, Any], row: Row) -> Row:
    job = result.get("job") or {}
    row = {**row, "job": job.get("id", "")}
    if has_failed(result):
        return _failure(row, error_of(result), "export")
    export = result["export"]
    row = {**row, "export": export["id"], "url": _where(result)}
    if not result["changed"]:
        return {**row, "state": "done"}
    return {
        **row,
        "state": "exported",
        "mode": export["mode"],
        "bytes_read": _sum(export["disks"], "bytes_read"),
        "bytes_stored": _sum(export["disks"], "bytes_stored"),
        "seconds": export["duration"],  # without what it waited for a slot, unlike the job's
        "rate": export["rate"],
    }


def has_failed(result: Mapping[str, Any]) -> bool:
    return bool(result.get("failed") or result.get("unreachable"))


def error_of(result: Mapping[str, Any]) -> dict[str, Any]:
    message = " ".join(str(result.get("msg") or "The task failed without a message.").split())  # ssh's has lines
    if result.get("unreachable"):
        hint = "Run the play again once the host that exports it is back."
        return {"hint": hint, "kind": "network", **(result.get("error") or {}), "message": message}
    return {"kind": "internal", **(result.get("error") or {}), "message": message}


def _failure(row: Row, error: Mapping[str, Any], when: str) -> Row:
    told = {name: error.get(name) or "" for name in ("message", "hint", "kind")}
    return {**row, "state": "failed", "error": {**told, "sentence": sentence(error), "when": when}}


def sentence(told: Mapping[str, Any]) -> str:
    return " ".join(part for part in (told.get("message"), told.get("hint")) if part)


def _where(result: Mapping[str, Any]) -> str:
    """The export's URL; the store's where a secret that happens to occur in the URL had Ansible mask it."""
    url = str(result["export"]["url"])
    job = result.get("job") or {}
    return str(job.get("url", url)) if any(mask in url for mask in MASKS) else url


def _sorted(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: str(row["label"]))


def _count(rows: Iterable[Row], state: str) -> int:
    return sum(row["state"] == state for row in rows)


def _sum(rows: Iterable[Mapping[str, Any]], name: str) -> int:
    return sum(int(row.get(name) or 0) for row in rows)
