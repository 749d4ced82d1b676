# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `job_info` does: reads records, changes nothing."""

from __future__ import annotations

from typing import Any

from .._transfer.record import default_state_dir, job_ids, read_job


def list_jobs(state_dir: str, job: str, vm: str, state: str, log_lines: int) -> dict[str, Any]:
    """One job or all, newest first. `state`: running, ready, failed or cancelled; a job that died counts as failed."""
    folder = state_dir or default_state_dir()
    found = [read_job(folder, one, log_lines) for one in ([job] if job else job_ids(folder))]
    jobs = [record for record in found if record is not None and vm in ("", record["vm"])]
    for record in jobs:
        record["state"] = _state(record)
    jobs = [record for record in jobs if state in ("", record["state"])]
    return {"changed": False, "jobs": sorted(jobs, key=lambda record: -record["started"]), "state_dir": folder}


def _state(record: dict[str, Any]) -> str:
    if record["finished"]:
        return str(record["phase"])
    return "failed" if record["alive"] is False else "running"
