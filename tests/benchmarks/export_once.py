# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module `vm_export`, whole, with a provider that has one disk and freezes nothing; a process of its own.

`export_once.py nbd:SOCKET|file:IMAGE:FORMAT ARGUMENTS [--count]`: the module's arguments lie in a file, as Ansible
hands them over. After the module's result comes a line of JSON: the peak of the process's resident memory in bytes, its
CPU-seconds, and with `--count` those of them that went into progress and record.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".build"))

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import BlockSource
from ansible_collections.vmferry.migrate.plugins.module_utils._operations import export_vm as export_operation
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import (
    ExportDisk,
    ExportSession,
    Finding,
    Provider,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress, Progress
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import JobRecord
from ansible_collections.vmferry.migrate.plugins.modules import vm_export


def source_of(text: str) -> BlockSource:
    kind, _colon, rest = text.partition(":")
    if kind == "nbd":
        from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.source import NbdSource
        from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.transport import Address

        return NbdSource(Address.unix(Path(rest)))
    from ansible_collections.vmferry.migrate.plugins.module_utils._images.local_clusters import LocalClusters
    from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.image_chain import (
        cluster_map,
        read_chain,
    )

    image, _colon, format = rest.rpartition(":")
    chain = read_chain(image, format)
    return LocalClusters(chain.size, chain.layers, cluster_map(image, format))


class OneDisk(Provider):
    name, max_jobs, account = "bench", 1, "bench"

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        self._disk = DiskSpec("disk-0", "vda", source.size, "raw", "virtio", "bench")

    def vms(self) -> Sequence[VmSpec]:
        return [self.describe("bench")]

    def describe(self, vm: str) -> VmSpec:
        return VmSpec("libvirt", "1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77", vm, vm, "off", 1, 512, "bios", (self._disk,))

    def check_export(self, *_unused: object) -> Sequence[Finding]:
        return []

    @contextmanager
    def open_export(self, vm: VmSpec, *_unused: object) -> Iterator[ExportSession]:
        yield Unfrozen(vm, ExportDisk(self._disk, self._source))
        self._source.close()

    def clean_up(self, vm: VmSpec) -> Sequence[str]:
        return []

    def undo(self, job_id: str) -> Sequence[str]:
        return []

    def imported(self, name: str) -> None:
        raise NotImplementedError

    def start(self, vm: VmSpec) -> VmSpec:
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


def peak_memory() -> int:
    """Of this program alone; `ru_maxrss` would also count what its parent held when it forked."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


def main(source: str, arguments: str, count: str = "") -> None:
    stopwatch = Stopwatch() if count else None
    vars(export_operation)["open_provider"] = lambda name, settings: OneDisk(source_of(source))
    sys.argv = ["vm_export", arguments]
    try:
        vm_export.main()
    finally:
        counting = stopwatch.seconds if stopwatch else None
        print(json.dumps({"peak_rss": peak_memory(), "cpu": time.process_time(), "counting": counting}))


if __name__ == "__main__":
    main(*sys.argv[1:])
