# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Before the first byte: which disks, whether an export is needed at all, and what it would take."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Any, Iterator, Mapping, Sequence

from .._errors import VmferryError
from .._exports.catalog import CatalogEntry
from .._exports.manifest import LARGEST_DISK
from .._providers.base import Finding
from .._providers.spec import DiskSpec, VmSpec
from .requests import ExportRequest

CLOCK_SKEW = 300.0  # seconds between two hosts' clocks that are not worth a word


def chosen_disks(vm: VmSpec, wanted: Sequence[str] | None) -> tuple[DiskSpec, ...]:
    """In the VM's order. `wanted` names disks by our id or by the provider's name; None: all."""
    return tuple(disk for disk in vm.disks if wanted is None or disk.id in wanted or disk.name in wanted)


def insist_on_disks(vm: VmSpec, wanted: Sequence[str] | None) -> None:
    """Raises `not_found` for a disk that the VM does not have, `invalid_config` where none is left to export."""
    known = {name for disk in vm.disks for name in (disk.id, disk.name)}
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        raise VmferryError(
            "not_found",
            f"{vm.name} has no disk {', '.join(unknown)}.",
            f"It has {', '.join(f'{disk.id} ({disk.name})' for disk in vm.disks) or 'no disks at all'}.",
        )
    if not chosen_disks(vm, wanted):
        raise VmferryError("invalid_config", f"{vm.name} has no disk to export.", "Name at least one of its disks.")


def satisfying_export(
    request: ExportRequest, vm: VmSpec, disks: Sequence[DiskSpec], existing: Sequence[CatalogEntry]
) -> CatalogEntry | None:
    """The committed export that makes a new one needless; `conflict` where one of that name is something else."""
    for entry in existing:
        if request.name and entry.manifest.name == request.name:
            _insist_on_sameness(request, vm, disks, entry)
            return entry
    if request.max_age is not None:
        # One from the future was taken while the clock was wrong. It would satisfy every age until then.
        latest = time.time() + CLOCK_SKEW
        fitting = [entry for entry in existing if entry.manifest.taken_at <= latest and _covers(request, disks, entry)]
        newest = max(fitting, key=lambda entry: entry.manifest.taken_at, default=None)
        if newest is not None and time.time() - newest.manifest.taken_at <= request.max_age:
            return newest
    return None


def _covers(request: ExportRequest, disks: Sequence[DiskSpec], entry: CatalogEntry) -> bool:
    made = entry.manifest
    has = {disk.name for disk in made.disks}
    return (
        {disk.name for disk in disks} <= has
        and made.format == request.format
        and request.consistency in ("auto", made.consistency)
    )


def _insist_on_sameness(request: ExportRequest, vm: VmSpec, disks: Sequence[DiskSpec], entry: CatalogEntry) -> None:
    made, differences = entry.manifest, []
    if [disk.name for disk in made.disks] != [disk.name for disk in disks]:
        differences.append(f"disks {', '.join(disk.name for disk in made.disks)}")
    if made.format != request.format:
        differences.append(f"format {made.format}")
    if request.consistency not in ("auto", made.consistency):
        differences.append(f"consistency {made.consistency}")
    if differences:
        raise VmferryError(
            "conflict",
            f"The export {request.name!r} of {vm.name} exists with {' and '.join(differences)}.",
            "Give this one another name, or ask for the same again.",
        )


def plan(disks: Sequence[DiskSpec], reason: str) -> dict[str, Any]:
    """What a run would do. Bytes are upper bounds: what is allocated is read, and zeros are not sent."""
    each: list[dict[str, Any]] = [
        {
            "id": disk.id,
            "name": disk.name,
            "size": disk.size,
            "bytes_to_read": disk.size if disk.allocated is None else min(disk.size, disk.allocated),
        }
        for disk in disks
    ]
    to_read = sum(disk["bytes_to_read"] for disk in each)
    return {
        "mode": "full",
        "reason": reason,
        "disks": each,
        "bytes_to_read": to_read,
        "bytes_to_send": to_read,
        "bytes_saved": sum(disk["size"] for disk in each) - to_read,
    }


def too_large(disks: Sequence[DiskSpec]) -> list[Finding]:
    limit = f"No format can describe a disk of more than {LARGEST_DISK >> 40} TiB."
    return [
        Finding("error", f"{disk.id} has {disk.size} bytes.", limit, "unsupported")
        for disk in disks
        if disk.size > LARGEST_DISK
    ]


def raise_first_error(findings: Sequence[Finding]) -> None:
    for finding in findings:
        if finding.severity == "error":
            raise VmferryError(finding.kind or "invalid_config", finding.message, finding.hint)  # type: ignore[arg-type]


def checked(
    findings: Sequence[Finding], planned: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Any]:
    """Check mode's result. A run that would fail changes nothing, and a play shows warnings, but no findings."""
    errors = [finding for finding in findings if finding.severity == "error"]
    return {
        "changed": not errors,
        "findings": [vars(finding) for finding in findings],
        "plan": planned,
        "diff": {"before": before, "after": before if errors else after},
        "warnings": [f"{finding.message} {finding.hint}".rstrip() for finding in errors],
    }


@contextmanager
def told_in(findings: list[Finding]) -> Iterator[None]:
    """What the body fails with is one more finding, so that a check tells the next ones as well."""
    try:
        yield
    except VmferryError as error:
        findings.append(finding_of(error))


def finding_of(error: VmferryError) -> Finding:
    return Finding("error", error.message, error.hint, error.kind)
