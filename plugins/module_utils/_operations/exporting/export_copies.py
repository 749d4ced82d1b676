# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows an export that is to be in further stores, too: whether it was made now or was there already."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any, Mapping

from ..._errors import VmferryError
from ..._exports.catalog import Catalog, CatalogEntry
from ..._stores.base import Store
from ..attempts.litter import probe_key
from ..jobs.findings import finding_of
from ..jobs.requests import ExportRequest, StoreSpec
from ..jobs.running_job import RunningJob
from .copy_export import ExportCopies
from .owed_copies import OwedCopies


def with_copies(request: ExportRequest, job: RunningJob, store: Store, result: Mapping[str, Any]) -> dict[str, Any]:
    """The export's result, with its copies. Raises `VmferryError` where one failed: the export itself stays, and the
    error's `done` says which copies hold."""
    export = result["export"]
    try:
        entry = job.ask(lambda: Catalog(store, request.seals).find(export["id"], export["vm"]["id"]))
    except VmferryError as error:
        rows = [_not_held(spec.url, error.message) for spec in request.copies_to]
        raise _failure(error, {**result, "copies": rows, "warnings": list(job.warnings)}) from error
    job.leave_slot()  # the hypervisor is done with
    job.keeping.is_at_stake("nothing")  # a copy that fails leaves nothing
    rows, first = job.supervise(lambda: _copied(request, job, entry))
    whole = {
        **result,
        "changed": result["changed"] or any(row["changed"] for row in rows),
        "copies": rows,
        "warnings": list(job.warnings),
    }
    if first is None:
        return whole
    raise _failure(first, whole)


def _copied(
    request: ExportRequest, job: RunningJob, entry: CatalogEntry
) -> tuple[list[dict[str, Any]], VmferryError | None]:
    """Each byte counts once against a limit, as it goes to the further store."""
    with closing(job.open_store(request.store, limited=False)) as store:
        return _copied_from(store, request, job, entry)


def _copied_from(
    store: Store, request: ExportRequest, job: RunningJob, entry: CatalogEntry
) -> tuple[list[dict[str, Any]], VmferryError | None]:
    """One after the other; those behind one that failed are tried all the same, unless the job is to end."""
    rows: list[dict[str, Any]] = []
    first: VmferryError | None = None
    for spec in request.copies_to:
        if job.flow.error is not None:
            rows.append(_not_held(_url_in(spec, entry), "It was not begun."))
            continue
        try:
            rows.append(ExportCopies(job, store, entry).copy_to(spec))
            rows[-1] = _made_up_for(rows[-1], job, store, entry, spec)
        except Exception as error:  # run_workers raises what stopped the flow
            cause = job.flow.error or error
            if not isinstance(cause, VmferryError):
                raise
            job.warn(f"The export was not copied to {spec.url}: {cause.message}")
            rows.append(_not_held(_url_in(spec, entry), cause.message))
            first = first or cause
            with job.undoing(f"That the export is not in {spec.url} yet"):
                OwedCopies(store, spec.url).note(entry)
            if not job.flow.cancel_reason and cause.kind != "timeout":
                job.begin_anew()
    return rows, first


def _made_up_for(
    row: dict[str, Any], job: RunningJob, store: Store, entry: CatalogEntry, spec: StoreSpec
) -> dict[str, Any]:
    """With what earlier runs could not copy there. This export is there in any case, so what fails again is a warning,
    unless the job is to end."""
    for older in OwedCopies(store, spec.url).beside(entry):
        try:
            more = ExportCopies(job, store, older).copy_to(spec)
        except Exception as error:  # as for the export itself
            cause = job.flow.error or error
            if not isinstance(cause, VmferryError) or job.flow.cancel_reason or cause.kind == "timeout":
                raise
            job.warn(f"The older export {older.manifest.export_id} was not copied to {spec.url}: {cause.message}")
            job.begin_anew()
            continue
        row = {
            **row,
            "changed": row["changed"] or more["changed"],
            "exports": [*row["exports"], *more["exports"]],
            "bytes_sent": row["bytes_sent"] + more["bytes_sent"],
            "duration": round(row["duration"] + more["duration"], 3),
        }
    return row


def _not_held(url: str, message: str) -> dict[str, Any]:
    return {
        "url": url,
        "holds": False,
        "changed": False,
        "exports": [],
        "bytes_sent": 0,
        "duration": 0.0,
        "msg": message,
    }


def _url_in(spec: StoreSpec, entry: CatalogEntry) -> str:
    return f"{spec.url.rstrip('/')}/{entry.folder}"


def _failure(cause: VmferryError, whole: Mapping[str, Any]) -> VmferryError:
    held = [row["url"] for row in whole["copies"] if row["holds"]]
    missing = [row["url"] for row in whole["copies"] if not row["holds"]]
    error = VmferryError(
        cause.kind,
        f"The export {whole['export']['id']} is made, but is not in {' and '.join(missing)}: {cause.message}",
        f"{cause.hint} Whole are {' and '.join([whole['export']['url'], *held])}. The next run completes the others.",
        retryable=cause.retryable,
    )
    error.done = whole
    return error


def checked_copies(request: ExportRequest, job: RunningJob, store: Store, planned: Mapping[str, Any]) -> dict[str, Any]:
    """Check mode's result, with what stops the copies among its findings."""
    findings: list[dict[str, Any]] = []
    missing = False
    found = planned.get("export")  # that makes a new one needless
    entry = job.ask(lambda: Catalog(store, request.seals).find(found["id"], found["vm"]["id"])) if found else None

    def look(spec: StoreSpec) -> bool:
        with closing(job.open_store(spec)) as target:
            target.probe(probe_key())
            if entry is None:
                return False
            return bool(ExportCopies(job, store, entry).missing_in(target) or OwedCopies(store, spec.url).beside(entry))

    for spec in request.copies_to:
        try:
            missing = job.supervise(partial(look, spec)) or missing
        except VmferryError as error:
            findings.append(vars(finding_of(error)))
            if job.flow.cancel_reason:
                raise
            job.flow.forgive()
    warnings = [f"{finding['message']} {finding['hint']}".rstrip() for finding in findings]
    return {
        **planned,
        "changed": (planned["changed"] or missing) and not findings,
        "findings": [*planned.get("findings", ()), *findings],
        "warnings": [*planned["warnings"], *warnings],
    }
