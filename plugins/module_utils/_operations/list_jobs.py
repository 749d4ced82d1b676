# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `job_info` does: reads records, here and in a store, and changes nothing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, Mapping

from .._errors import VmferryError
from .._stores.open import open_store
from .._transfer import record
from .jobs_in_store import jobs_in_store
from .requests import StoreSpec

PENDING: dict[str, Any] = dict.fromkeys(
    ("bytes_total", "bytes_read", "bytes_sent", "percent", "rate", "average_rate", "retries"), 0
)
PENDING.update(eta=None, note="")


def list_jobs(
    state_dir: str, job: str, vm: str, state: str, log_lines: int, store: StoreSpec | None = None
) -> dict[str, Any]:
    """One job or all, newest first. `state`: running, ready, failed or cancelled; a job that died counts as failed.

    Of a job with a record here, the record speaks; `store` tells of those that other hosts run or ran. A job that is
    not there (yet) is an empty list, so that a play may wait for it.
    """
    folder = Path(state_dir) if state_dir else record.default_state_dir()
    found = [described(one, record.read_log(folder, one["id"], log_lines)) for one in _records(folder, job)]
    if store is not None:
        known = {one["job"] for one in found}
        found += [one for one in _stored(store) if one["job"] not in known and job in ("", one["job"])]
    jobs = [one for one in found if vm in ("", one["vm"]) and state in ("", one["state"])]
    jobs.sort(key=lambda one: -float(one["started"]))
    return {"changed": False, "jobs": jobs, "state_dir": str(folder)}


def described(found: Mapping[str, Any], log: list[dict[str, Any]]) -> dict[str, Any]:
    """A job as results show it, from its record."""
    ended = found["finished"]
    died = ended is None and found["alive"] is False
    at_rest = {"rate": 0, "eta": None} if died else {}
    return {
        **PENDING,
        **{name: value for name, value in found.items() if name not in ("id", "disk_number", "disk_count")},
        **at_rest,
        "disk": found.get("disk_number", 0),
        "disks": found.get("disk_count", 0),
        "disk_name": found.get("disk", ""),
        "job": found["id"],
        "finished": ended is not None or died,
        "ended": ended,
        "state": found["phase"] if ended is not None else "failed" if died else "running",
        "duration": round((found["heartbeat"] if ended is None else ended) - found["started"], 1),
        "log": log,
    }


def _records(folder: Path, job: str) -> list[dict[str, Any]]:
    if not job:
        return record.list_jobs(folder)
    try:
        return [record.read_job(folder, job)]
    except VmferryError as error:
        if error.kind == "not_found":
            return []
        raise


def _stored(spec: StoreSpec) -> list[dict[str, Any]]:
    with closing(open_store(spec.url, spec.settings)) as store:
        return [described(one.record, []) for one in jobs_in_store(store)]
