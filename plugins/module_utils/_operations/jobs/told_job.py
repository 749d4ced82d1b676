# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job as results show it, from its record."""

from __future__ import annotations

from typing import Any, Mapping

from ..._exports.naming import iso_time

PENDING: dict[str, Any] = dict.fromkeys(
    ("bytes_total", "bytes_read", "bytes_sent", "percent", "phase_percent", "rate", "average_rate", "retries"), 0
)
PENDING.update(eta=None, note="", undone=None, kept=None)
_TIMES = ("started", "heartbeat", "ended")  # seconds since the epoch, with `_at` the same in ISO 8601
OWN = frozenset(
    {
        *("disk_number", "disk_count", "elapsed", "result", "version", "watcher"),
        *("follows", "outcome", "resumed", "left_at", "staging"),
    }
)  # the record's, not a result's


def described(found: Mapping[str, Any], log: list[dict[str, Any]]) -> dict[str, Any]:
    """`found`: its record, `log`: lines of its log, the oldest first."""
    ended = found["finished"]
    died = ended is None and found["alive"] is False
    at_rest = {"rate": 0, "eta": None} if died else {}
    times = {name: found["finished" if name == "ended" else name] for name in _TIMES}
    return {
        **PENDING,
        **{name: value for name, value in found.items() if name not in OWN},
        **at_rest,
        "disk": found.get("disk_number", 0),
        "disks": found.get("disk_count", 0),
        "disk_name": found.get("disk", ""),
        "finished": ended is not None or died,
        **times,
        **{f"{name}_at": "" if when is None else iso_time(when) for name, when in times.items()},
        "state": found["phase"] if ended is not None else "failed" if died else "running",
        "duration": round((found["heartbeat"] if ended is None else ended) - found["started"], 1),
        "log": [{**line, "at": iso_time(line["time"])} for line in log],
    }
