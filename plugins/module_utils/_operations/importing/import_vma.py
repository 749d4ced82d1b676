# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm_import` does with an archive of Proxmox VE: a VM made of it, all its disks in one pass; or one after the
other, where they are written so, and it is not packed."""

from __future__ import annotations

from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Callable, ContextManager, Iterator, Mapping, Sequence, Tuple

from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..._providers.base import ImportSession
from ..._providers.finding import Finding
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..._transfer.copy_stream import StreamedDisk, copy_stream
from ..._transfer.progress import DiskProgress
from ..jobs.fill_disks import DiskContent, Proved, fill_disks
from ..jobs.requests import ImportRequest
from ..jobs.running_job import RunningJob
from ..stored.read_vma import StoredVma, stored_vma
from .packed_import import Packed, import_packed


def import_vma(request: ImportRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`."""
    if request.networks is not None:
        raise VmferryError(
            "invalid_config",
            f"{request.store.url} is an archive of a VM, which says what network cards it has.",
            "Leave out hardware.networks, and say with network_map where they go.",
        )
    return import_packed(request, check_mode, "an archive", _found)


def _found(_job: RunningJob, store: Store, key: str) -> Packed:
    return _PackedVma(stored_vma(store, key))


class _PackedVma(Packed):
    kind = "appliance"

    def __init__(self, archive: StoredVma) -> None:
        self._archive, self.is_mixed = archive, archive.is_packed
        self.where, self.identity = archive.where, archive.identity

    def describe(self) -> Tuple[VmSpec, Sequence[Finding]]:
        return self._archive.vm(), [Finding("warning", text) for text in self._archive.machine.warnings]

    def copy(self, job: RunningJob, session: ImportSession) -> None:
        if session.takes_disks:
            fill_disks(job, session, [DiskContent(_opener(disk)) for disk in self._archive.disks(job.going_on)])
            return
        disks = [
            StreamedDisk(sink, disk.capacity, job.progress.disk(number), partial(job.progress.disk, number))
            for number, (disk, sink) in enumerate(zip(self._archive.machine.disks, session.sinks))
        ]
        copy_stream(self._archive.runs(job.going_on), disks, limits=job.limits, flow=job.flow)

    def disks(self) -> Sequence[Tuple[int, int]]:
        """All of the file is read, once; each disk is told its share."""
        sizes = [disk.capacity for disk in self._archive.machine.disks]
        whole = self._archive.file.size
        shares = [whole * size // sum(sizes) for size in sizes]
        shares[0] += whole - sum(shares)
        return list(zip(sizes, shares))

    def confirm(self) -> None:
        self._archive.file.insist_on_no_change()

    def told(self) -> Mapping[str, Any]:
        return {"name": self._archive.machine.name, "has_checksums": False, "eulas": []}


def _opener(disk: BlockSource) -> Callable[[DiskProgress], ContextManager[Proved]]:
    @contextmanager
    def opened(_progress: DiskProgress) -> Iterator[Proved]:
        with closing(disk) as source:
            yield source, None

    return opened
