# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One disk into a store, as `vm_export` moves it, in a process of its own, so that the system accounts for it.

`export_once.py nbd:SOCKET|file:IMAGE:FORMAT STORE_URL STATE_DIR [--count-overhead FILE]`; S3 settings come from the
environment, as boto3 reads them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".build"))

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import BlockSource
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_disk import export_disk
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.requests import StoreSpec, TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import ExportDisk
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress, Progress
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import JobRecord


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


def main(source_text: str, url: str, state_dir: str, overhead: str = "") -> None:
    stopwatch = Stopwatch() if overhead else None
    options = TransferOptions(state_dir=state_dir)
    started = time.perf_counter()
    with RunningJob.start("export", options, "bench", url, {"exporting": 1.0}, check_mode=False) as job:
        source, store = source_of(source_text), job.open_store(StoreSpec(url, {"addressing_style": "path"}))
        job.capabilities = store.probe("probe")
        spec = DiskSpec("disk-0", "vda", source.size, "raw", "virtio", "bench")
        job.phase("exporting", [("disk-0", source.size)])
        job.supervise(
            lambda: export_disk(
                job, store, lambda file: file, ExportDisk(spec, source), "qcow2", "bench", job.progress.disk(0)
            )
        )
        source.close()
        store.close()
    if stopwatch is not None:
        Path(overhead).write_text(json.dumps({"counting": stopwatch.seconds, "whole": time.perf_counter() - started}))


if __name__ == "__main__":
    main(*sys.argv[1:])
