# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `job_info` does: reads records, here and in a store, and changes nothing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from .._errors import VmferryError
from .._stores.open import open_store
from .._transfer import record
from .attempts.jobs_in_store import is_given_up, jobs_in_store, with_store
from .jobs.requests import StoreSpec
from .jobs.told_job import described


def list_jobs(
    state_dir: str, job: str, vm: str, state: str, log_lines: int, store: StoreSpec | None = None
) -> dict[str, Any]:
    """One job or all, newest first. `state`: running, ready, failed or cancelled; a job that died counts as failed.

    Of a job with a record here, the record speaks, unless it has no end and no sign of life; `store` tells of those,
    and of the ones that other hosts run or ran. A job that is not there (yet) is an empty list, so that a play may wait
    for it.
    """
    folder = Path(state_dir) if state_dir else record.default_state_dir()
    records = _records(folder, job)
    if store is not None and (not job or not records or is_given_up(records[0])):
        records = _with_store(store, records, job)
    found = [described(one, record.read_log(folder, one["id"], log_lines)) for one in records]
    jobs = [one for one in found if vm in ("", one["vm"]) and state in ("", one["state"])]
    jobs.sort(key=lambda one: -float(one["started"]))
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


def _with_store(spec: StoreSpec, records: list[dict[str, Any]], job: str) -> list[dict[str, Any]]:
    with closing(open_store(spec.url, spec.settings)) as store:
        stored = {one.record["id"]: one for one in jobs_in_store(store) if job in ("", one.record["id"])}
    known = {one["id"] for one in records}
    own = [with_store(one, stored.get(one["id"])) if is_given_up(one) else one for one in records]
    return own + [one.record for id_, one in stored.items() if id_ not in known]
