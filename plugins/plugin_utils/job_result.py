# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task returns once its job ended, or cannot be watched any longer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .poll_command import Answer
from .watch_options import WatchOptions

LOOK = "See what became of it with vmferry.migrate.job_info."
_TEXTS = ("vm", "kind", "url", "phase")
_NUMBERS = ("bytes_read", "bytes_sent", "average_rate", "retries")


def of_module(action: Any, text: str, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """As core makes it of a module's output, of which async_wrapper kept a copy. `action` is an ActionBase, whose
    parsing returns a dict before ansible-core 2.21."""
    if _wrote_the_wrapper(text):
        return died(record or {})
    output = {"rc": 0, "stdout": text, "stdout_lines": text.splitlines(), "stderr": "", "stderr_lines": []}
    parsed = action._parse_returned_data(output, "legacy")
    if not isinstance(parsed, dict):
        parsed.remove_internal_keys()
        parsed = parsed.as_result_dict(for_round_trip=True)
    return {name: value for name, value in parsed.items() if name not in ("ansible_job_id", "started", "finished")}


def _wrote_the_wrapper(text: str) -> bool:
    """Its own words, where the module said none: it was killed, or it printed something else."""
    found = json.loads(text)
    return not isinstance(found, dict) or "child_pid" in found or {"cmd", "stderr"} <= found.keys()


def enriched(result: dict[str, Any], job_id: str, answer: Answer) -> dict[str, Any]:
    """With what the record tells. It holds no secrets, so none of it is masked, as a module's result may be."""
    if answer.record is None:
        return result
    given = result.get("job") or {}
    state = {"state": given["state"]} if "state" in given else {}
    return {**result, "job": {**given, **_of_record(job_id, answer, answer.record), **state}}


def _of_record(job_id: str, answer: Answer, record: Mapping[str, Any]) -> dict[str, Any]:
    ended = record.get("finished")
    return {
        "id": job_id,
        "record": f"{answer.folder}/record.json",
        "state_dir": answer.folder.rpartition("/jobs/")[0],
        **{name: record.get(name, "") for name in _TEXTS},
        **{name: record.get(name, 0) for name in _NUMBERS},
        "duration": round(float(ended or record.get("heartbeat") or 0) - float(record.get("started") or 0), 1),
        "state": record.get("phase") if ended is not None else "running",
    }


def died(record: Mapping[str, Any]) -> dict[str, Any]:
    """There will be no result: the module's process was killed, or its host went down and came back."""
    noted = record.get("error") or {}
    said = f" {noted['message']}" if noted.get("message") else ""
    where = f" while it was {record['phase']}" if record.get("phase") and not record.get("finished") else ""
    result = _failed(
        f"The job ended without a result{where}.{said}",
        str(noted.get("kind") or ("cancelled" if record else "internal")),
        str(noted.get("phase") or record.get("phase") or ""),
        "Something killed its process: the log of the host may tell. Run the task again: it goes on with what is left, "
        "or removes it.",
        retryable=bool(noted.get("retryable", bool(record))),
    )
    return {**result, "job": {"state": record["phase"] if record.get("finished") else "failed"} if record else {}}


def never_started(patience: float) -> dict[str, Any]:
    return _failed(
        f"The module was started, and for {patience:.0f} s nothing was seen of its job.",
        "internal",
        "pending",
        "See on the host whether state_dir can be written, and whether the task's user is the one whom it belongs to.",
    )


def lost(job_id: str, options: WatchOptions, answer: Answer | None) -> dict[str, Any]:
    """Not `unreachable`, which no block can rescue: one lost host must not end a play over many VMs."""
    record = answer.record if answer else None
    becomes = "goes on" if options.outlives else "stops by itself"
    result = _failed(
        f"The host has not answered for {options.silence:g} s. The job {job_id} {becomes}.",
        "network",
        str((record or {}).get("phase") or ""),
        LOOK,
        retryable=True,
    )
    return enriched(result, job_id, answer) if answer else {**result, "job": {"id": job_id}}


def _failed(message: str, kind: str, phase: str, hint: str, *, retryable: bool = False) -> dict[str, Any]:
    error = {"kind": kind, "retryable": retryable, "phase": phase, "hint": hint}
    return {"failed": True, "changed": False, "msg": message, "error": error}
