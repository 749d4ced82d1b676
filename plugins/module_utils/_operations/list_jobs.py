# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `job_info` does: reads records, changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._errors import VmferryError
from .._transfer import record

PENDING: dict[str, Any] = dict.fromkeys(
    ("bytes_total", "bytes_read", "bytes_sent", "percent", "rate", "average_rate", "retries"), 0
)
PENDING["eta"] = None


def list_jobs(state_dir: str, job: str, vm: str, state: str, log_lines: int) -> dict[str, Any]:
    """One job or all, newest first. `state`: running, ready, failed or cancelled; a job that died counts as failed.

    A job that is not there (yet) is an empty list, so that a play may wait for it.
    """
    folder = Path(state_dir) if state_dir else record.default_state_dir()
    found = [_described(folder, one, log_lines) for one in _records(folder, job) if vm in ("", one["vm"])]
    jobs = [one for one in found if state in ("", one["state"])]
    return {"changed": False, "jobs": jobs, "state_dir": str(folder)}


def _records(folder: Path, job: str) -> list[dict[str, Any]]:
    if not job:
        return record.list_jobs(folder)
    try:
        return [record.read_job(folder, job)]
    except VmferryError as error:
        if error.kind == "not_found":
            return []
        raise


def _described(folder: Path, found: dict[str, Any], log_lines: int) -> dict[str, Any]:
    job, ended = found.pop("id"), found.pop("finished")
    died = ended is None and found["alive"] is False
    return {
        **{**PENDING, **found},
        "disk": found.get("disk_number", 0),
        "disks": found.get("disk_count", 0),
        "disk_name": found.get("disk", ""),
        "job": job,
        "finished": ended is not None or died,
        "ended": ended,
        "state": found["phase"] if ended is not None else "failed" if died else "running",
        "duration": round((found["heartbeat"] if ended is None else ended) - found["started"], 1),
        "log": record.read_log(folder, job, log_lines),
    }
