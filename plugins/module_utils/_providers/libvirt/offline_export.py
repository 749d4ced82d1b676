# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a VM that is off: nobody may write to them meanwhile, so they are a point in time as they are."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Sequence

from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..._images.local_clusters import LocalClusters
from ..._nbd.qemu_nbd import serve
from ..._nbd.source import NbdSource
from ..base import ExportDisk, ExportSession, Job
from ..spec import DiskSpec, VmSpec
from . import native_files
from .connection import Connection
from .describe import describe
from .image_chain import ImageChain, cluster_map, paths
from .image_lock import ImageLock
from .offline_disks import read_chains
from .work_folder import DEFAULT_SCRATCH


class OfflineExport(ExportSession):
    def __init__(self, connection: Connection, vm: VmSpec, disks: Sequence[DiskSpec], job: Job) -> None:
        self._connection, self._chosen = connection, tuple(disks)
        self.vm, self.consistency = vm, "powered_off"
        self.warnings: list[str] = []
        self._cleanup = ExitStack()

    def __enter__(self) -> OfflineExport:
        with ExitStack() as stack:
            self._open(stack)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.__exit__(kind, error, traceback)

    def confirm(self) -> None:
        """Raises `conflict` where somebody started the VM, also if it is off again. Locks keep QEMU away; some file
        systems ignore them.
        """
        state = describe(self._connection, self.vm.id).power_state
        changed = [path for path, seen in self._seen.items() if _stamp(path, self._tops) != seen]
        if state in ("off", "crashed") and not changed:
            return
        what = f"{changed[0]} was changed" if changed else f"{self.vm.name} was started"
        raise VmferryError("conflict", f"{what} while it was being exported.", "Export it again.", retryable=True)

    def _open(self, stack: ExitStack) -> None:
        self.vm = describe(self._connection, self.vm.id)
        now = {disk.name: disk for disk in self.vm.disks}
        chosen = [now[disk.name] for disk in self._chosen if disk.name in now]
        if len(chosen) != len(self._chosen):
            raise VmferryError("conflict", f"{self.vm.name} lost a disk meanwhile.", "Export it again.", retryable=True)
        chains = read_chains(self._connection, self.vm.id, chosen)
        stack.callback(ImageLock(paths(chains)).close)
        self._tops = frozenset(chain.layers[0].path for chain in chains)
        self._seen = {path: _stamp(path, self._tops) for path in paths(chains)}
        self.confirm()
        self.taken_at = time.time()
        self.native = native_files.read(self._connection, self.vm, self.warnings)
        disks = []
        for disk, chain in zip(chosen, chains):
            disks.append(ExportDisk(replace(disk, size=chain.size), _source(stack, chain)))
        self.disks = tuple(disks)
        sizes = {disk.spec.id: disk.spec for disk in disks}
        self.vm = self.vm.with_disks(tuple(sizes.get(disk.id, disk) for disk in self.vm.disks))


def _stamp(path: str, tops: frozenset[str]) -> tuple[int, ...]:
    """What a VM that runs leaves on its images. libvirt changes the owner of a backing file for any VM that has it."""
    with Path(path).open("rb") as file:  # a network file system looks anew at what is opened
        seen = os.fstat(file.fileno())
    return (seen.st_size, seen.st_mtime_ns, *([seen.st_ctime_ns] if path in tops else []))


def _source(stack: ExitStack, chain: ImageChain) -> BlockSource:
    source: BlockSource | None = None
    top = chain.layers[0]
    if chain.plain:
        try:
            source = LocalClusters(chain.size, chain.layers, cluster_map(top.path, top.format))
        except VmferryError as error:
            if error.kind != "unsupported":  # compressed clusters: QEMU reads them for us
                raise
    if source is None:
        served = serve(Path(top.path), top.format, read_only=True, socket_dir=Path(DEFAULT_SCRATCH))
        source = NbdSource(stack.enter_context(served).address)
    stack.callback(source.close)
    return source
