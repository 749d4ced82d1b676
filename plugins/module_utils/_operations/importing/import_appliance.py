# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm_import` does with an appliance: a VM made of an OVA or an OVF that others wrote.

Its disks are inspected, and nothing is read of them that was not compared with the appliance's checksums.
"""

from __future__ import annotations

from typing import Any, Callable, ContextManager, Mapping, Sequence, Tuple

from ..._appliances.appliance import Appliance
from ..._appliances.machine import Disk
from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..._providers.base import Provider
from ..._providers.finding import Finding
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..jobs.requests import ImportRequest
from ..jobs.running_job import RunningJob
from ..stored.appliance_machine import vm_in
from ..stored.image_file import ImageFile
from ..stored.read_appliance import inspected_disks, open_disk, stored_appliance
from .packed_import import Packed, PackedDisks, PackedImport, import_packed

ARCHIVES = (".ova", ".ova.gz")  # in which all files of an appliance are


def import_appliance(request: ImportRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`."""
    if request.networks is not None:
        raise VmferryError(
            "invalid_config",
            f"{request.store.url} is an appliance, which says what network cards its VM has.",
            "Leave out hardware.networks, and say with network_map where they go.",
        )
    return import_packed(request, check_mode, "an appliance", _found)


def import_artifacts(
    request: ImportRequest, job: RunningJob, provider: Provider, store: Store, key: str, check_mode: bool
) -> dict[str, Any]:
    """The same of a folder in which somebody found an Artifact Manifest, of that key."""
    return PackedImport(request, job, provider, lambda: _found(job, store, key)).run(check_mode)


def _found(job: RunningJob, store: Store, key: str) -> Packed:
    """What it is made of is looked at before a byte of it is read."""
    named = store.stat(key)
    appliance = stored_appliance(store, key)
    files = [] if named is None else [ImageFile(store, named)]
    if files and not key.lower().endswith(ARCHIVES):
        beside = (files[0].beside(disk.file) for disk in appliance.machine.disks if disk.file)
        files += [one for one in beside if one is not None]
    return _PackedAppliance(appliance, files)


class _PackedAppliance(PackedDisks):
    kind = "appliance"

    def __init__(self, appliance: Appliance, files: Sequence[ImageFile]) -> None:
        self._appliance, self._files = appliance, files
        self.where, self.identity = appliance.where, appliance.identity

    def describe(self) -> Tuple[VmSpec, Sequence[Finding]]:
        inspected_disks(self._appliance)
        found = [Finding("warning", text) for text in self._appliance.machine.warnings]
        if not self._appliance.proves:
            found.insert(0, Finding("warning", f"{self.where} has no checksums: damage of its disks is not found."))
        return vm_in(self._appliance), found

    def open(self, number: int, alive: Callable[[], object]) -> ContextManager[BlockSource]:
        return open_disk(self._appliance, self._appliance.machine.disks[number], alive)

    def disks(self) -> Sequence[Tuple[int, int]]:
        return [(disk.capacity, self._bytes_to_read(disk)) for disk in self._appliance.machine.disks]

    def _bytes_to_read(self, disk: Disk) -> int:
        if not disk.file:
            return 0
        times = 2 if self._appliance.checksums.algorithm(disk.file) else 1
        return times * self._appliance.member(disk).size

    def confirm(self) -> None:
        for file in self._files:
            file.insist_on_no_change()

    def told(self) -> Mapping[str, Any]:
        return {
            "name": self._appliance.machine.name,
            "has_checksums": self._appliance.proves,
            "eulas": list(self._appliance.machine.eulas),
        }
