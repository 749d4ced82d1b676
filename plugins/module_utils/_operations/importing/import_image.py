# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm_import` does with a disk image that others made: a VM with that disk, and hardware that the task says."""

from __future__ import annotations

from typing import Any, Callable, ContextManager, List, Mapping, Sequence, Tuple

from ..._blocks import BlockSource
from ..._images.partition_table import boots_by
from ..._providers.finding import Finding
from ..._providers.spec import DiskSpec, Firmware, VmSpec
from ..._stores.base import Store
from ..jobs.requests import ImportRequest
from ..jobs.running_job import RunningJob
from ..stored.disk_image import DiskImage, insist_on_reader, open_image, stored_image
from ..stored.image_names import without_ending
from ..stored.image_nics import NETWORKS, OF_QEMU, nics_of_image
from .packed_import import Packed, PackedDisks, import_packed

CPUS, MEMORY_MB = 2, 2048
_USUAL_BUS = "sata"  # that every guest knows


def import_image(request: ImportRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`."""
    networks = NETWORKS if request.networks is None else request.networks

    def found(job: RunningJob, store: Store, key: str) -> Packed:
        return _PackedImage(job, stored_image(store, key), networks)

    return import_packed(request, check_mode, "a disk image", found)


class _PackedImage(PackedDisks):
    kind = "image"

    def __init__(self, job: RunningJob, image: DiskImage, networks: Sequence[str]) -> None:
        self._job, self._image, self._networks = job, image, networks
        self.where, self.identity = image.where, image.identity

    def describe(self) -> Tuple[VmSpec, Sequence[Finding]]:
        image = self._image
        insist_on_reader(image)
        with open_image(image, in_part=True) as disk:
            boots = boots_by(disk)
        found: List[Finding] = []
        if not boots:
            text = f"{self.where} has no boot sector: the VM may not boot from it."
            found.append(Finding("warning", text, "Is it the whole image of a system disk?"))
        if image.has_snapshots:
            text = f"{self.where} has snapshots inside, which are left behind: the disk is imported as it is now."
            found.append(Finding("warning", text))
        return self._machine(boots or "bios"), found

    def open(self, number: int, alive: Callable[[], object]) -> ContextManager[BlockSource]:
        return open_image(self._image, self._job.limited)

    def disks(self) -> Sequence[Tuple[int, int]]:
        return [(self._image.size, self._image.stored_size)]

    def told(self) -> Mapping[str, Any]:
        image = self._image
        return {"format": image.found.format, "size": image.size, "files": [file.name for file in image.files]}

    def _machine(self, firmware: Firmware) -> VmSpec:
        image = self._image
        disk = DiskSpec(
            id="disk-0",
            name="disk-0",
            size=image.size,
            format=image.found.format,
            bus="virtio" if image.found.format in OF_QEMU else _USUAL_BUS,
            source=self.where,
            allocated=min(image.size, image.stored_size),
            boot=True,
        )
        return VmSpec(
            provider="image",
            id=self.identity,
            name=without_ending(image.file.name),
            path=self.where,
            power_state="powered_off",
            cpu=CPUS,
            memory_mb=MEMORY_MB,
            firmware=firmware,
            disks=(disk,),
            nics=nics_of_image(self._networks, [image.found.format]),
        )
