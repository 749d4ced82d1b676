# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One transfer as a report tells of it, read from what its task returned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

Outcome = Literal["ready", "unchanged", "failed", "cancelled", "unreachable", "started", "checked"]
SUCCESSFUL: frozenset[Outcome] = frozenset({"ready", "unchanged"})


@dataclass(frozen=True)
class Transfer:
    """Empty and None stand for what is not known: a task that fails early tells little. Bytes, seconds."""

    host: str
    kind: str  # export, import, migrate
    outcome: Outcome
    time: float  # when its result arrived, since the epoch
    check: bool = False
    vm: str = ""
    url: str = ""
    job: str = ""
    export: str = ""
    mode: str = ""
    bytes_read: int | None = None
    bytes_stored: int | None = None
    duration: float | None = None
    taken_at: float | None = None  # the export's point in time, since the epoch
    checked_at: float | None = None  # when the VM was last seen to equal the export, which may be when it was taken
    error_kind: str = ""
    message: str = ""
    hint: str = ""

    @property
    def rate(self) -> float | None:
        """Bytes read a second."""
        return self.bytes_read / self.duration if self.bytes_read and self.duration else None

    @property
    def succeeded(self) -> bool:
        return self.outcome in SUCCESSFUL


def transfer_of(
    result: Mapping[str, Any],
    *,
    host: str,
    kind: str,
    failed: bool = False,
    unreachable: bool = False,
    check: bool = False,
    time: float,
) -> Transfer:
    """`result` is the task's, or an item's. Its invocation is never looked at: arguments may be secrets."""
    outcome = _outcome(result, failed, unreachable, check)
    if result.get("_ansible_no_log") or "censored" in result:
        return Transfer(host, kind, outcome, time, check)
    job, export, error = (_mapping(result.get(name)) for name in ("job", "export", "error"))
    found = _error_found(result) if check else {}
    made = outcome not in ("unchanged", "checked")  # else the figures in `export` are of an earlier run
    moments = [_moment(export.get(name)) for name in ("taken_at", "checked_at")]
    return Transfer(
        host,
        kind,
        outcome,
        time,
        check,
        vm=_text(job.get("vm")) or _vm_name(result, export, kind),
        url=_text(export.get("url")) or _text(job.get("url")),
        job=_text(job.get("id")),
        export=_text(export.get("id")),
        mode=_text(export.get("mode")),
        bytes_read=_bytes_read(job, export, kind) if made else _whole(_number(job.get("bytes_read"))) or 0,
        bytes_stored=_bytes_stored(job, export, kind) if made else 0,
        duration=_first(_number(job.get("duration")), _number(export.get("duration")) if made else None),
        taken_at=moments[0],
        checked_at=max((at for at in moments if at is not None), default=None),
        error_kind=_text(error.get("kind") or found.get("kind")),
        message="" if outcome in (*SUCCESSFUL, "checked") else _text(found.get("message") or result.get("msg")),
        hint=_text(error.get("hint") or found.get("hint")),
    )


def _outcome(result: Mapping[str, Any], failed: bool, unreachable: bool, check: bool) -> Outcome:
    if unreachable or result.get("unreachable"):
        return "unreachable"
    error = _mapping(result.get("error"))
    if error.get("kind") == "cancelled":
        return "cancelled"
    if failed or error:  # `failed_when: false` makes no transfer succeed
        return "failed"
    if check:
        return "failed" if _error_found(result) else "checked"
    if result.get("unchanged_since"):  # it may have read the whole VM to find that out
        return "unchanged"
    # `changed_when: false` is common on backups: what moved bytes did something nevertheless.
    moved = _number(_mapping(result.get("job")).get("bytes_read"))
    return "ready" if result.get("changed") or moved else "unchanged"


def _error_found(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first thing that check mode found to be in the way."""
    findings = result.get("findings")
    told = findings if isinstance(findings, list) else []
    return next((one for one in map(_mapping, told) if one.get("severity") == "error"), {})


def _vm_name(result: Mapping[str, Any], export: Mapping[str, Any], kind: str) -> str:
    """The VM that was exported, or made."""
    made = export if kind == "export" else result
    return _text(_mapping(made.get("vm")).get("name"))


def _bytes_read(job: Mapping[str, Any], export: Mapping[str, Any], kind: str) -> int | None:
    """An export that was made tells it itself; of one that failed, its job does."""
    of_export = _sum_of_disks(export, "bytes_read") if kind == "export" else _sum_of_disks(export, "bytes_stored")
    counted = _number(job.get("bytes_read"))
    return _whole(_first(of_export, counted) if kind == "export" else _first(counted, of_export))


def _bytes_stored(job: Mapping[str, Any], export: Mapping[str, Any], kind: str) -> int | None:
    of_export = _sum_of_disks(export, "bytes_stored") if kind == "export" else None
    return _whole(_first(of_export, _number(job.get("bytes_sent"))))


def _sum_of_disks(export: Mapping[str, Any], field: str) -> float | None:
    disks = export.get("disks")
    if not isinstance(disks, Sequence) or isinstance(disks, str):
        return None
    counts = [_number(_mapping(disk).get(field)) for disk in disks]
    return None if None in counts else sum(count for count in counts if count is not None)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    """None also for what Ansible masked because it looks like a secret."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if known else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _moment(value: Any) -> float | None:
    try:
        return datetime.strptime(_text(value), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return None
