# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Before the first byte: which disks, whether an export is needed at all, and what it would take."""

from __future__ import annotations

import time
from typing import Any, Callable, Mapping, Sequence

from ..._blocks import LEAF
from ..._errors import VmferryError
from ..._exports.catalog import CLOCK_SKEW, CatalogEntry
from ..._exports.manifest import LARGEST_DISK, Manifest
from ..._exports.packed import ARCHIVES, NATIVE, NATIVE_FORMATS, image_format_of
from ..._providers.finding import Finding, Severity
from ..._providers.spec import DiskSpec, VmSpec
from ..._stores.base import StoreCapabilities
from ..._transfer.digest_file import digest_file_bound
from ..._transfer.limits import Limits
from ..._transfer.part_sizes import PartSizes
from ..jobs.requests import ExportRequest
from ..stored.image_formats import image_bound
from .export_base import Choice, sealed_otherwise


def chosen_disks(vm: VmSpec, wanted: Sequence[str] | None) -> tuple[DiskSpec, ...]:
    """In the VM's order. `wanted` names disks by our id, by the provider's name, or by what they are of, such as a
    volume; None: all."""
    return tuple(disk for disk in vm.disks if wanted is None or _names(disk) & set(wanted))


def insist_on_disks(vm: VmSpec, wanted: Sequence[str] | None) -> None:
    """Raises `not_found` for a disk that the VM does not have, `invalid_config` where none is left to export."""
    known = {name for disk in vm.disks for name in _names(disk)}
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        raise VmferryError(
            "not_found",
            f"{vm.name} has no disk {', '.join(unknown)}.",
            f"It has {', '.join(f'{disk.id} ({disk.name})' for disk in vm.disks) or 'no disks at all'}.",
        )
    if not chosen_disks(vm, wanted):
        raise VmferryError("invalid_config", f"{vm.name} has no disk to export.", "Name at least one of its disks.")


def _names(disk: DiskSpec) -> set[str]:
    return {name for name in (disk.id, disk.name, disk.source) if name}


def satisfying_export(
    request: ExportRequest,
    vm: VmSpec,
    disks: Sequence[DiskSpec],
    existing: Sequence[CatalogEntry],
    damage: Callable[[CatalogEntry], str],
) -> CatalogEntry | None:
    """The committed export that makes a new one needless; `conflict` where one of that name is something else.

    `damage`: what is known of it, or ''. Of two exports by one name nobody could tell which is meant.
    """
    for entry in existing:
        if request.name and entry.manifest.name == request.name:
            _insist_on_sameness(request, vm, disks, entry)
            return entry
    if request.max_age is not None:
        # One from the future was taken while the clock was wrong. It would satisfy every age until then.
        latest = time.time() + CLOCK_SKEW
        fitting = [entry for entry in existing if entry.manifest.taken_at <= latest and _covers(request, disks, entry)]
        newest = max(fitting, key=lambda entry: entry.manifest.taken_at, default=None)
        if newest is not None and time.time() - newest.manifest.taken_at <= request.max_age and not damage(newest):
            return newest
    return None


def is_as_asked(request: ExportRequest, disks: Sequence[DiskSpec], entry: CatalogEntry) -> bool:
    """Of an export that another run made just now."""
    made = entry.manifest
    return (
        _covers(request, disks, entry)
        and request.name in ("", made.name)
        and set(request.tags) <= set(made.tags)
        and request.purpose in ("", made.purpose)
        and request.mode in ("auto", made.mode)
        and _is_of_such_a_snapshot(request, made.snapshot)
    )


def _is_of_such_a_snapshot(request: ExportRequest, snapshot: str) -> bool:
    if request.snapshot is None:
        return not snapshot
    return snapshot == request.snapshot.source if request.snapshot.source else bool(snapshot)


def _covers(request: ExportRequest, disks: Sequence[DiskSpec], entry: CatalogEntry) -> bool:
    made = entry.manifest
    has = {disk.name for disk in made.disks}
    return (
        {disk.name for disk in disks} <= has
        and made.format == request.format
        and not sealed_otherwise(request, made)
        and request.consistency in ("auto", made.consistency)
    )


def sealed_how(made: Manifest) -> str:
    return "encryption" if made.encryption is not None else "no encryption"


def _insist_on_sameness(request: ExportRequest, vm: VmSpec, disks: Sequence[DiskSpec], entry: CatalogEntry) -> None:
    made, differences = entry.manifest, []
    if [disk.name for disk in made.disks] != [disk.name for disk in disks]:
        differences.append(f"disks {', '.join(disk.name for disk in made.disks)}")
    if made.format != request.format:
        differences.append(f"format {made.format}")
    if made.compression != request.compression:
        differences.append(f"compression {made.compression}")
    if sealed_otherwise(request, made):
        differences.append("another passphrase" if made.encryption and request.seals.keyring else sealed_how(made))
    if made.snapshot if request.snapshot is None else request.snapshot.source not in ("", made.snapshot):
        differences.append(f"the snapshot {made.snapshot}" if made.snapshot else "no snapshot")
    if request.consistency not in ("auto", made.consistency):
        differences.append(f"consistency {made.consistency}")
    if differences:
        raise VmferryError(
            "conflict",
            f"The export {request.name!r} of {vm.name} exists with {' and '.join(differences)}.",
            "Give this one another name, or ask for the same again.",
        )


def plan(
    disks: Sequence[DiskSpec], choice: Choice, changed: Mapping[str, int], format: str, encrypted: bool = False
) -> dict[str, Any]:
    """What a run would do. Bytes are upper bounds: what is allocated is read, and zeros are not sent. `changed`: bytes
    by a disk's name, where the provider can tell; a disk that nobody tracks is read, and sent where it differs.
    """
    each: list[dict[str, Any]] = []
    to_send = 0
    for disk in disks:
        to_read = disk.size if disk.allocated is None else min(disk.size, disk.allocated)
        if choice.base is not None and disk.name in changed:
            to_read = min(disk.size, changed[disk.name])
        each.append({"id": disk.id, "name": disk.name, "size": disk.size, "bytes_to_read": to_read})
        to_send += _bound_of_files(format, disk.size, to_read, encrypted)
    to_read = sum(disk["bytes_to_read"] for disk in each)
    return {
        "mode": "full" if choice.base is None else "incremental",
        "reason": choice.reason,
        "fell_back": choice.reason if choice.fell_back else "",
        "parent": "" if choice.base is None else choice.base.parent.manifest.export_id,
        "disks": each,
        "bytes_to_read": to_read,
        "bytes_to_send": to_send,
        "bytes_saved": max(0, sum(disk.size for disk in disks) - to_send),
    }


def _bound_of_files(format: str, size: int, to_read: int, encrypted: bool) -> int:
    """Of a disk's image, with its tables, and of its digests."""
    size, data = min(size, LARGEST_DISK), -(-to_read // LEAF) * LEAF
    return image_bound(format, size, data, encrypted) + digest_file_bound(data, size)


def too_large(disks: Sequence[DiskSpec], format: str) -> list[Finding]:
    largest = image_format_of(format).largest_disk
    limit = f"No {format} image of ours can describe a disk of more than {largest / (1 << 40):.4g} TiB."
    return [
        Finding("error", f"{disk.id} has {disk.size} bytes.", limit, "unsupported")
        for disk in disks
        if disk.size > largest
    ]


def not_native(vm: VmSpec, disks: Sequence[DiskSpec], format: str) -> list[Finding]:
    """What `native` cannot promise. A file is only itself if it is copied, or if it is the disk, byte for byte."""
    if format != NATIVE:
        return []
    fitting: Sequence[str] = NATIVE_FORMATS
    hint = "Use format: qcow2, or another one that is written here."
    if vm.provider == "image":
        fitting, hint = ("raw",), "Copy the file with storage_copy, or use a format that is written here."
    return [
        Finding("error", f"{disk.id} is {disk.format or 'of no known format'}, which is not kept as it is.", hint,
                "unsupported")
        for disk in disks
        if disk.format not in fitting
    ]  # fmt: skip


def objects_that_do_not_fit(
    planned: Mapping[str, Any], format: str, limits: Limits, rules: StoreCapabilities, encrypted: bool = False
) -> list[Finding]:
    """What a run refuses for certain once it knows what is to be sent: until then, what is allocated counts."""
    findings, bounds = [], {}
    for disk in planned["disks"]:
        size, data = min(disk["size"], LARGEST_DISK), -(-disk["bytes_to_read"] // LEAF) * LEAF
        bounds[disk["id"]] = image_bound(format, size, data, encrypted)
    if format in ARCHIVES:  # in which all of them lie
        bounds = {"The archive": sum(bounds.values())}
    for what, bound in bounds.items():
        try:
            PartSizes.for_object(bound, 0, limits.part, rules, limits.asked)
        except VmferryError as error:
            severity: Severity = "error" if error.kind == "invalid_config" else "warning"
            findings.append(Finding(severity, f"{what}: {error.message}", error.hint, error.kind))
    return findings
