# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A provider of one VM with one small disk in memory, and whatever its session is told to do at its end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import PHASES, _Export
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import ExportDisk, Undone
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store

DATA = random.Random(7).randbytes(300_000)
DISK = DiskSpec("disk-0", "vda", len(DATA), "qcow2", "virtio", "/vda")
UUID = "1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77"
VM = VmSpec("libvirt", UUID, "web01", "web01", "powered_on", 1, 2048, "bios", (DISK,))


class Source:
    size = len(DATA)

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, "data")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for offset, buffer in pieces:
            buffer[:] = DATA[offset : offset + len(buffer)]

    def close(self) -> None:
        pass


class OneVm:
    """As much of a provider as an export needs. `leaving` runs when the point in time is left."""

    account, max_jobs = "memory", 4

    def __init__(self, leaving: Callable[[], object] = lambda: None) -> None:
        self._leaving = leaving

    def export_by(self, *_unused: object) -> None:
        """It has one way alone."""

    def describe(self, vm: str) -> VmSpec:
        return VM

    def check_export(self, *_unused: object) -> list[Any]:
        return []

    def clean_up(
        self, vm: VmSpec, *, held_by: Collection[str] | None = None, dead: Collection[str] = ()
    ) -> list[Undone]:
        return []

    def forget(self, vm: VmSpec, tokens: Sequence[str]) -> list[str]:
        return []

    @contextmanager
    def open_export(self, *_unused: object) -> Iterator[Any]:
        try:
            yield SimpleNamespace(
                vm=VM,
                taken_at=time.time(),
                consistency="crash_consistent",
                disks=[ExportDisk(DISK, Source())],
                native={"domain.xml": b"<domain/>"},
                warnings=[],
                token="",
                snapshot="",
                lost="",
                at_once=1,
                reference={},
                outlive=lambda seconds: None,
                confirm=lambda: None,
                keep_token=lambda: None,
                stay=lambda: True,
            )
        finally:
            self._leaving()


def export_one(
    store_url: Path,
    provider: OneVm,
    options: TransferOptions,
    *,
    check_mode: bool = False,
    wrap: Callable[[Store], Store] = lambda store: store,
    **asked: Any,
) -> dict[str, Any]:
    """The result of `vm_export` for this VM, which leaves nothing where it fails, unless `asked` otherwise."""
    fields: dict[str, Any] = {"mode": "full", "on_failure": "undo", "transfer": options, **asked}
    request = ExportRequest(ProviderSpec("libvirt"), StoreSpec(str(store_url)), "web01", **fields)
    with (
        RunningJob.start("export", options, "web01", request.store.url, PHASES, check_mode) as job,
        closing(wrap(job.open_store(request.store))) as store,
    ):
        return _Export(request, job, provider, store).run(check_mode)  # type: ignore[arg-type]
