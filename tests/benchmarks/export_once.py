# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module `vm_export`, whole, with a provider that has one disk and freezes nothing; a process of its own.

`export_once.py nbd:SOCKET[:BITMAP]|file:IMAGE:FORMAT ARGUMENTS [--count]`: the module's arguments lie in a file, as
Ansible hands them over. With BITMAP, which the server exports, the disk can tell what changed. After the module's
result comes a line of JSON: the peak of the process's resident memory in bytes, its CPU-seconds, and with `--count`
those of them that went into progress and record; `planning` and `planning_cpu`, seconds and CPU-seconds until the
disk's extents were known; `extents`, how many it was told; `read`, bytes that were asked of the disk.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".build"))

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import BlockSource, Extent, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._operations import export_vm as export_operation
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import (
    ExportDisk,
    ExportSession,
    Provider,
    Undone,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.finding import Finding
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import pipeline
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress, Progress
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import JobRecord
from ansible_collections.vmferry.migrate.plugins.modules import vm_export


def source_of(text: str) -> BlockSource:
    kind, _colon, rest = text.partition(":")
    if kind == "nbd":
        from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.source import NbdSource
        from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.transport import Address

        return NbdSource(Address.unix(Path(rest.partition(":")[0])))
    from ansible_collections.vmferry.migrate.plugins.module_utils._images.local_clusters import LocalClusters
    from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.image_chain import (
        cluster_map,
        read_chain,
    )

    image, _colon, format = rest.rpartition(":")
    chain = read_chain(image, format)
    return LocalClusters(chain.size, chain.layers, cluster_map(chain.layers))


def changes_of(text: str) -> BlockSource | None:
    kind, _colon, rest = text.partition(":")
    socket, _colon, bitmap = rest.partition(":")
    if kind != "nbd" or not bitmap:
        return None
    from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.classification import changed_since, dirty_bitmap
    from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.protocol import BASE_ALLOCATION
    from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.source import NbdSource
    from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.transport import Address

    contexts = (BASE_ALLOCATION, dirty_bitmap(bitmap))
    return NbdSource(Address.unix(Path(socket)), contexts=contexts, classify=changed_since(bitmap))


class Counted:
    """Plays BlockSource, and knows how much of it was read and told."""

    read = told = 0  # bytes and extents, of all of them
    _counting = Lock()

    def __init__(self, source: BlockSource) -> None:
        self._source, self.size = source, source.size

    def extents(self) -> Iterator[Extent]:
        for extent in self._source.extents():
            Counted.told += 1
            yield extent

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._source.read_into(pieces)
        with Counted._counting:
            Counted.read += sum(len(memory) for _unused, memory in pieces)

    def close(self) -> None:
        self._source.close()


class OneDisk(Provider):
    name, max_jobs, account = "bench", 1, "bench"

    def __init__(self, source: BlockSource, changes: BlockSource | None) -> None:
        self._source, self._changes = source, changes
        self._disk = DiskSpec("disk-0", "vda", source.size, "raw", "virtio", "bench")

    def vms(self) -> Sequence[VmSpec]:
        return [self.describe("bench")]

    def describe(self, vm: str) -> VmSpec:
        return VmSpec(
            "libvirt", "1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77", vm, vm, "powered_off", 1, 512, "bios", (self._disk,)
        )

    def check_export(self, *_unused: object) -> Sequence[Finding]:
        return []

    @contextmanager
    def open_export(self, vm: VmSpec, *_unused: object) -> Iterator[ExportSession]:
        yield Unfrozen(vm, ExportDisk(self._disk, self._source, self._changes))
        self._source.close()
        if self._changes is not None:
            self._changes.close()

    def clean_up(
        self, vm: VmSpec, *, held_by: Collection[str] | None = None, dead: Collection[str] = ()
    ) -> Sequence[Undone]:
        return []

    def clean_up_imports(self) -> Sequence[tuple[str, str]]:
        return []

    def undo(self, job_id: str) -> Sequence[str]:
        return []

    def imported(self, name: str, folder: str = "") -> None:
        raise NotImplementedError

    def start(self, vm: VmSpec) -> VmSpec:
        raise NotImplementedError

    def shut_down(self, *_unused: object) -> VmSpec:
        raise NotImplementedError

    def remove(self, *_unused: object) -> Sequence[str]:
        raise NotImplementedError

    def check_import(self, *_unused: object) -> Sequence[Finding]:
        raise NotImplementedError

    def open_import(self, *_unused: object) -> Any:
        raise NotImplementedError


class Unfrozen(ExportSession):
    def __init__(self, vm: VmSpec, disk: ExportDisk) -> None:
        self.vm, self.disks, self.taken_at, self.consistency = vm, [disk], time.time(), "powered_off"
        self.native: Mapping[str, bytes] = {}
        self.warnings: Sequence[str] = ()

    def confirm(self) -> None:
        """Nobody writes."""


class Stopwatch:
    """CPU-seconds spent inside the methods that keep count of a job and write its record.

    Not wall time: a worker that is put to sleep inside one of them would count the other worker's copying.
    """

    def __init__(self) -> None:
        self._spent: list[float] = []
        for owner, names in (
            (DiskProgress, ("read", "settled", "sent", "alive")),
            (Progress, ("snapshot", "enter")),
            (JobRecord, ("update", "log")),
        ):
            for name in names:
                setattr(owner, name, self._timed(getattr(owner, name)))

    @property
    def seconds(self) -> float:
        return sum(self._spent)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*words: Any, **options: Any) -> Any:
            started = time.thread_time()
            try:
                return method(*words, **options)
            finally:
                self._spent.append(time.thread_time() - started)

        return run


class Planning:
    """Seconds and CPU-seconds until all extents of the disk were known: nothing else goes on meanwhile."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0
        self._read_extents = pipeline.read_extents
        vars(pipeline)["read_extents"] = self._timed

    def _timed(self, *words: Any) -> Any:
        started, worked = time.monotonic(), time.thread_time()
        try:
            return self._read_extents(*words)
        finally:
            self.seconds += time.monotonic() - started
            self.cpu += time.thread_time() - worked


def peak_memory() -> int:
    """Of this program alone; `ru_maxrss` would also count what its parent held when it forked."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


def one_disk(text: str) -> OneDisk:
    changes = changes_of(text)
    return OneDisk(Counted(source_of(text)), Counted(changes) if changes is not None else None)


def main(source: str, arguments: str, count: str = "") -> None:
    stopwatch, planning = Stopwatch() if count else None, Planning()
    vars(export_operation)["open_provider"] = lambda *_unused: one_disk(source)
    sys.argv = ["vm_export", arguments]
    try:
        vm_export.main()
    finally:
        said = {
            "peak_rss": peak_memory(),
            "cpu": time.process_time(),
            "counting": stopwatch.seconds if stopwatch else None,
            "planning": planning.seconds,
            "planning_cpu": planning.cpu,
            "read": Counted.read,
            "extents": Counted.told,
        }
        print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
