# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a migration knows of its VM: a row made of what was looked at, then of what became of it, and tables of rows.

A row is a dict, since it travels as a fact of the VM's host. States: `planned`; `done` where the destination has the VM
and the staging store has nothing of it any more; `failed`, with the step and the error; in the end `migrated`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ._fleet import Row, error_of, first_failed, sentence
from ._text_table import NOTHING, text_table
from .progress_lines import amount

Result = Mapping[str, Any]
OFF = ("powered_off", "crashed")
# Each look, where it looks, and what its answer has: tasks that must not stop the play do not say that they failed.
LOOKS = (
    ("source", "source", ("vms",)),
    ("destination", "destination", ("vms",)),
    ("export", "source", ("plan", "export")),
    ("import", "destination", ("plan", "vm")),
)
ENDED = {"planned": "not begun", "done": "done", "failed": "failed", "migrated": "migrated"}


def plan_row(looked: Mapping[str, Result], wanted: Mapping[str, Any]) -> Row:
    """`looked`: the results of `source` and `destination` (vm_info), `export` and `import` (both in check mode).

    `wanted`: vm, name, host, to_host, power_off, power_on, delete_source, reachable; unknown_host may be missing.
    """
    row = blank_row(wanted)
    source, there = _only_vm(looked["source"]), _only_vm(looked["destination"])
    made_from = (there or {}).get("details", {}).get("imported_from") or {}
    exported = looked["export"].get("export") if "plan" not in looked["export"] else None
    if _is_done(source, made_from, looked, wanted):
        finding = f"info: {wanted['name']} was made of {wanted['vm']} by an earlier run."
        return {**row, "state": "done", "source_id": made_from["vm"], "findings": [finding]}
    found = list(_findings(looked))
    if source is not None:
        found += _wishes(source, exported, wanted)
    row["findings"] = [f"{place}: {one['severity']}: {sentence(one)}" for place, one in found]
    errors = [one for _place, one in found if one["severity"] == "error"]
    if errors:
        return _failure(row, "preflight", errors[0])
    moves = 0 if exported else int(looked["export"]["plan"]["bytes_to_read"])
    return {**row, "state": "planned", "source_id": (source or {})["id"], "bytes_to_move": moves}


def blank_row(wanted: Mapping[str, Any]) -> Row:
    label = wanted["vm"] if wanted["vm"] == wanted["host"] else f"{wanted['host']}/{wanted['vm']}"
    to = f"{wanted['to_host']}/{wanted['name']}"
    return {"vm": wanted["vm"], "host": wanted["host"], "label": label, "to": to, "state": "planned", "findings": []}


def outcome_row(row: Row, step: str, result: Result) -> Row:
    """`step`: the one that failed, with its result; empty where none did, with the results of `export` and `import`."""
    if step:
        row = {name: value for name, value in row.items() if name != "error"}
        return _failure(row, step, _in_our_words(step, error_of(first_failed(result))))
    if "import" not in result:
        return {**row, "state": "done"}
    export, made = result["export"], result["import"]
    return {
        **row,
        "state": "migrated" if made["changed"] else "done",
        "export": export["id"],
        "bytes_moved": sum(int(disk["bytes_read"]) for disk in export["disks"]),
        "seconds": float(export["duration"]) + float((made.get("job") or {}).get("duration") or 0.0),
    }


def plan_table(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in _sorted(rows):
        said = row["findings"] or [row["error"]["sentence"] if "error" in row else ""]
        moves = amount(row["bytes_to_move"]) if row["state"] == "planned" else NOTHING
        lines.append([row["label"], row["to"], moves, said[0]])
        lines += [["", "", "", more] for more in said[1:]]
    total = sum(int(row.get("bytes_to_move") or 0) for row in rows)
    end = (
        f"{_count(rows, 'planned')} to migrate, {amount(total)} to move at most; "
        f"{_count(rows, 'done')} done already; {_count(rows, 'failed')} cannot be migrated"
    )
    return [*text_table(["VM", "TO", ">TO MOVE", "FINDINGS"], lines), end]


def summary_table(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in _sorted(rows):
        moved = row["state"] == "migrated"
        lines.append(
            [
                row["label"],
                row["to"],
                ENDED[row["state"]],
                amount(row["bytes_moved"]) if moved else NOTHING,
                f"{row['seconds']:.1f}" if moved else NOTHING,
                f"{row['error']['step']}: {row['error']['sentence']}" if "error" in row else row.get("export", NOTHING),
            ]
        )
    end = f"{_count(rows, 'migrated')} migrated; {_count(rows, 'done')} done already; {_count(rows, 'failed')} failed"
    return [*text_table(["VM", "TO", "STATE", ">MOVED", ">SECONDS", "EXPORT, OR WHAT WENT WRONG"], lines), end]


def _is_done(
    source: Mapping[str, Any] | None,
    made_from: Mapping[str, str],
    looked: Mapping[str, Result],
    wanted: Mapping[str, Any],
) -> bool:
    """The destination has it, and the store no export of this run that it could have been made of."""
    if source is not None:
        return made_from.get("vm") == source["id"] and "plan" in looked["export"]
    gone = (looked["source"].get("error") or {}).get("kind") == "not_found"
    return gone and made_from.get("vm_name") == wanted["vm"]


def _findings(looked: Mapping[str, Result]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Place and finding. A task that failed is one, but a name that nobody has at the destination is none."""
    for name, place, answer in LOOKS:
        result = looked[name]
        if result.get("skipped"):
            continue
        if not any(key in result for key in answer):
            error = error_of(result)
            if name != "destination" or error["kind"] != "not_found":
                yield place, {"severity": "error", **error}
        for finding in result.get("findings", ()):
            yield place, finding


def _wishes(
    source: Mapping[str, Any], exported: Mapping[str, Any] | None, wanted: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What the variables ask for, and the VM is not in a state for."""
    off, vm = source["power_state"] in OFF, wanted["vm"]
    if exported and wanted["power_off"] and not off:
        message = f"{vm} was exported at {exported['taken_at']} and runs again. What it wrote since then would be lost."
        hint = "Name another run with vm_migrate_run to export it anew, or shut it down if it wrote nothing."
        yield "source", _wrong(message, hint)
    elif exported:
        message = f"The export of {exported['taken_at']} is taken, {exported['id']}."
        yield "source", {"severity": "info", "message": message}
    if not (exported or wanted["power_off"] or off or wanted["delete_source"]):
        message = f"{vm} runs on, so that there will be two of it; what it writes from now on is in the old one only."
        yield "source", {"severity": "warning", "message": message, "hint": "Set vm_migrate_power_off to move it."}
    if wanted["delete_source"] and not (wanted["power_off"] or off):
        yield "source", _wrong(f"{vm} runs, and what it writes would be lost.", "Set vm_migrate_power_off as well.")
    if wanted.get("unknown_host"):
        message = f"{wanted['unknown_host']} is to be logged in to, and is no host of the inventory."
        yield "destination", _wrong(message, "Correct inventory_host of vm_migrate_reachable, or add the host.")
    if wanted["delete_source"] and not (wanted["power_on"] and wanted["reachable"]):
        yield (
            "destination",
            _wrong(
                f"Nothing would show that {wanted['name']} works before {vm} is deleted.",
                "Set vm_migrate_reachable, and leave vm_migrate_power_on at true.",
            ),
        )


def _wrong(message: str, hint: str) -> dict[str, Any]:
    return {"severity": "error", "message": message, "hint": hint, "kind": "conflict"}


def _in_our_words(step: str, error: Mapping[str, Any]) -> Mapping[str, Any]:
    """A hint that names an option of the module names the variable, which is what can be set in a migration."""
    if step != "power_off":
        return error
    return {**error, "hint": (error.get("hint") or "").replace("force: true", "vm_migrate_power_off_force: true")}


def _failure(row: Row, step: str, error: Mapping[str, Any]) -> Row:
    told = {name: error.get(name) or "" for name in ("message", "hint", "kind")}
    return {**row, "state": "failed", "error": {**told, "sentence": sentence(error), "step": step}}


def _only_vm(result: Result) -> Mapping[str, Any] | None:
    return next(iter(result.get("vms") or ()), None)


def _sorted(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: str(row["label"]))


def _count(rows: Sequence[Row], state: str) -> int:
    return sum(row["state"] == state for row in rows)
