# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode's look at an import before there is an export: at a VM as its provider describes it now."""

from __future__ import annotations

from typing import Any, Mapping

from ..._errors import VmferryError
from ..._exports.catalog import Catalog
from ..._providers.base import Provider
from ..._providers.finding import Finding
from ..._providers.spec import DiskSpec, VmSpec
from ..._stores.base import Store
from ..jobs.findings import checked, told_in
from ..jobs.requests import ImportRequest

NOT_EXPORTED = "00000000T000000Z-00000000"  # an id that no export has


def foreseen(request: ImportRequest, provider: Provider, store: Store) -> dict[str, Any] | None:
    """Check mode's result; None where the export exists, which says more than a description."""
    if request.source_vm is None:
        return None
    vm = _described(request.source_vm)
    findings: list[Finding] = []
    try:
        store.require_root()
    except VmferryError as error:
        if error.kind != "not_found":
            raise
        hint = "The first export makes it where it can, if that is the same place as seen from here."
        findings.append(Finding("warning", error.message, hint, error.kind))
    else:
        if _is_exported(request, store):
            return None
    with told_in(findings):
        findings += provider.check_import(vm, request.placement, NOT_EXPORTED)
    needed = {disk.id: _at_most(disk) for disk in vm.disks}
    disks = [{"id": disk.id, "size": disk.size, "bytes_to_read": needed[disk.id]} for disk in vm.disks]
    planned = {"export": "", "disks": disks, "bytes_to_read": sum(needed.values())}
    return checked(findings, planned, {}, {"vm": request.placement.name, "export": ""})


def _is_exported(request: ImportRequest, store: Store) -> bool:
    try:
        Catalog(store, request.seals).find(request.export, request.vm)
    except VmferryError as error:
        if error.kind != "not_found":
            raise
        return False
    return True


def _described(described: Mapping[str, Any]) -> VmSpec:
    try:
        return VmSpec.from_dict(described)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise VmferryError(
            "invalid_config",
            "source_vm does not describe a VM.",
            "Give it one of the vms that vmferry.migrate.vm_info returned.",
        ) from error


def _at_most(disk: DiskSpec) -> int:
    """Bytes."""
    return disk.size if disk.allocated is None else min(disk.size, disk.allocated)
