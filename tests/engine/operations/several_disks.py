# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A provider of one VM with four small disks in memory, which are read at once; its point in time outlives a run.

As a program, `several_disks.py STORE STATE AT_ONCE` exports it once.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[3]
    sys.path[:0] = [str(ROOT / ".build"), str(Path(__file__).parent)]

from one_vm import VM, OneVm

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, BlockSource, Extent, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import PHASES, _Export
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import ExportDisk
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.failpoints import failpoint

LEAVES = (40, 3, 21, 30)
DATA = tuple(random.Random(number).randbytes(leaves * LEAF - 512) for number, leaves in enumerate(LEAVES))
DISKS = tuple(
    DiskSpec(f"disk-{number}", f"sd{'abcd'[number]}", len(data), "raw", "scsi", "") for number, data in enumerate(DATA)
)
Reading = Callable[[int], object]  # is told a disk's number


@dataclass
class Disk:
    """Plays BlockSource. `before`: its reads; a read that waits there has to be woken by `close`."""

    number: int
    data: bytes
    before: Reading
    extents_told: Sequence[Extent] = ()
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def size(self) -> int:
        return len(self.data)

    def extents(self) -> Iterator[Extent]:
        yield from self.extents_told or [Extent(0, self.size, "data")]

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self.before(self.number)
        assert not self.closed.is_set(), f"disk-{self.number} is read although it was closed"
        for offset, buffer in pieces:
            buffer[:] = self.data[offset : offset + len(buffer)]

    def close(self) -> None:
        self.closed.set()


class SeveralDisks(OneVm):
    """`changes`: of each disk what it says has changed since the token that it gives; None where nobody can tell."""

    def __init__(
        self, at_once: int, before: Reading = lambda number: None, changes: Mapping[int, Sequence[Extent]] | None = None
    ) -> None:
        super().__init__()
        self.data = list(DATA)
        self.disks: list[Disk] = []
        self._at_once, self._before, self._changes = at_once, before, changes

    def describe(self, vm: str) -> VmSpec:
        return VM.with_disks(DISKS)

    def changed_since(self, *_unused: object) -> Mapping[str, int]:
        return {}

    @contextmanager
    def open_export(self, vm: VmSpec, disks: Sequence[DiskSpec], *_unused: object) -> Iterator[Any]:
        self.disks = [Disk(number, data, self._before) for number, data in enumerate(self.data)]
        with super().open_export() as session:
            given = {
                "vm": vm,
                "disks": [ExportDisk(spec, disk, self._since(disk)) for spec, disk in zip(disks, self.disks)],
                "at_once": self._at_once,
                "token": "a-token" if self._changes is not None else "",
                "reference": {"moment": "one"},
            }
            yield SimpleNamespace(**{**vars(session), **given})

    def reopen_export(self, vm: VmSpec, disks: Sequence[DiskSpec], *_unused: object) -> Any:
        return self.open_export(vm, disks)

    def _since(self, disk: Disk) -> BlockSource | None:
        if self._changes is None:
            return None
        told = self._changes.get(disk.number, [Extent(0, disk.size, "unchanged")])
        return replace(disk, extents_told=told)


def export(folder: Path, provider: SeveralDisks, started: Callable[[RunningJob], object] = id, **asked: Any) -> Any:
    """The result of `vm_export`; `started` is given the job."""
    transfer = TransferOptions(state_dir=str(folder / "state"), parallel=asked.pop("parallel", None))
    request = ExportRequest(ProviderSpec("libvirt"), StoreSpec(str(folder / "store")), "web01", transfer=transfer)
    request = replace(request, **asked)
    with (
        RunningJob.start("export", transfer, "web01", request.store.url, PHASES, False) as job,
        closing(job.open_store(request.store)) as store,
    ):
        started(job)
        return _Export(request, job, provider, store).run(False)  # type: ignore[arg-type]


if __name__ == "__main__":
    # Every disk's first window is passed before any second one: whoever is killed there has begun all of them.
    first = threading.Barrier(min(int(sys.argv[2]), len(DATA)))
    seen: set[int] = set()

    def meet(number: int) -> None:
        if number not in seen:
            seen.add(number)
            first.wait(60)
            failpoint("all-begun")

    export(Path(sys.argv[1]), SeveralDisks(int(sys.argv[2]), meet))
