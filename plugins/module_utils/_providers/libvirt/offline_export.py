# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a VM that is off: nobody may write to them meanwhile, so they are a point in time as they are."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Mapping, Sequence

from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..._images.local_clusters import LocalClusters
from ..._nbd.qemu_nbd import serve
from ..._nbd.source import NbdSource
from ..._transfer.failpoints import failpoint
from ..base import ExportDisk, Tracking
from ..image_lock import ImageLock
from ..job import Job
from ..spec import DiskSpec, VmSpec
from . import checkpoints, native_files
from .bitmaps import add_bitmap, can_hold_bitmaps
from .changed_layers import open_changes
from .connection import Connection
from .describe import describe
from .image_chain import ImageChain, cluster_map, paths
from .image_stamp import blind_warnings, image_stamp
from .leaving import Leaving
from .offline_disks import read_chains
from .opened_export import OpenedExport
from .saved_memory import crash_consistent, has_saved_memory
from .since import Since, since_of_off
from .watchdog_launcher import WatchdogProcess, is_watched
from .work_folder import WorkFolder


class OfflineExport(OpenedExport):
    def __init__(
        self,
        connection: Connection,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        job: Job,
        tracking: Tracking,
        scratch_dir: str,
        reference: Mapping[str, str] | None = None,
    ) -> None:
        self._reference = reference
        self._connection, self._chosen = connection, tuple(disks)
        self._job, self._tracking, self._scratch_dir = job, tracking, scratch_dir
        self.vm, self.consistency = vm, "powered_off"
        self.warnings: list[str] = []

    def confirm(self) -> None:
        """Raises `conflict` where somebody started the VM, also if it is off again. Locks keep QEMU away from
        files; some file systems ignore them.
        """
        state = describe(self._connection, self.vm.id).power_state
        changed = [path for path, seen in self._seen.items() if image_stamp(path, is_top=path in self._tops) != seen]
        if state in ("powered_off", "crashed") and not changed:
            return
        what = f"{changed[0]} was changed" if changed else f"{self.vm.name} was started"
        raise VmferryError("conflict", f"{what} while it was being exported.", "Export it again.", retryable=True)

    def keep_token(self) -> None:
        self._leaving.keep_token()

    @property
    def reference(self) -> Mapping[str, str]:
        stamps = json.dumps(sorted(self._seen.items()))
        return {"kind": "off", "token": self.token, "stamps": stamps}

    def outlive(self, seconds: float) -> None:
        """The images stay as they are; what would be removed from them is the token."""
        if self._leaving.watchdog is not None:
            self._leaving.watchdog.hold(seconds)

    def _open(self, stack: ExitStack) -> None:
        self.vm = describe(self._connection, self.vm.id)
        now = {disk.name: disk for disk in self.vm.disks}
        chosen = [now[disk.name] for disk in self._chosen if disk.name in now]
        if len(chosen) != len(self._chosen):
            raise VmferryError("conflict", f"{self.vm.name} lost a disk meanwhile.", "Export it again.", retryable=True)
        chains = read_chains(self._connection, self.vm.id, chosen)
        since = since_of_off(self._connection, self.vm, chosen, chains, self._tracking.since)
        self.lost = since.lost
        if since.broken:
            checkpoints.remove(self._connection, self.vm.id, since.token)
        self._insist_on_same(chains)
        folder = self._work_folder()
        self._leaving = Leaving(self._connection, self.vm.id, folder, self.warnings)
        stack.callback(lambda: self._leaving.leave(self._stays))
        tracked = [disk for disk in chosen if can_hold_bitmaps(disk)]
        if self._reference is None and self._tracking.keep:
            self._make_token(folder, tracked)
        elif self._reference is not None and (self._reference.get("token") or is_watched(folder.path)):
            self._watch_token(folder, tracked)  # who watched until now goes then
            self.token = self._reference.get("token", "")
        stack.callback(ImageLock(paths(chains)).close)
        self._tops = frozenset(chain.layers[0].path for chain in chains)
        self._seen = {path: image_stamp(path, is_top=path in self._tops) for path in paths(chains)}
        self.warnings += blind_warnings(self._seen)
        self._insist_on_same(chains)
        self.confirm()
        if has_saved_memory(self._connection, self.vm):
            self.consistency = "crash_consistent"
            self.warnings.append(crash_consistent(self.vm))
        self.taken_at = time.time()
        self.native = native_files.read(self._connection, self.vm, self.warnings)
        self.disks = tuple(_export_disk(stack, folder.path, disk, chain, since) for disk, chain in zip(chosen, chains))
        sizes = {disk.spec.id: disk.spec for disk in self.disks}
        self.vm = self.vm.with_disks(tuple(sizes.get(disk.id, disk) for disk in self.vm.disks))

    def _insist_on_same(self, chains: Sequence[ImageChain]) -> None:
        """Once before anything is taken over, and once more under the locks."""
        if self._reference is None:
            return
        if self._reference.get("token") and not WorkFolder.exists(self._scratch_dir, self._job):
            raise VmferryError(
                "not_found", "Its change token was removed from the disks, as nobody went on with it in time."
            )
        tops = frozenset(chain.layers[0].path for chain in chains)
        seen = json.dumps(sorted((path, image_stamp(path, is_top=path in tops)) for path in paths(chains)))
        if seen != self._reference.get("stamps"):
            raise VmferryError("not_found", f"A disk of {self.vm.name} was changed since.")

    def _work_folder(self) -> WorkFolder:
        if self._reference is not None and WorkFolder.exists(self._scratch_dir, self._job):
            return WorkFolder.take_over(self._scratch_dir, self.vm.id, self._job)
        return WorkFolder.create(self._scratch_dir, "export", self.vm.id, self.vm.name, self._job)

    def _watch_token(self, folder: WorkFolder, disks: Sequence[DiskSpec]) -> None:
        self._leaving.will_make(self._job.token)
        self._leaving.watchdog = WatchdogProcess.start(
            uri=self._connection.uri,
            uuid=self.vm.id,
            folder=folder.path,
            token=self._job.token,
            images=[disk.source for disk in disks],
        )

    def _make_token(self, folder: WorkFolder, disks: Sequence[DiskSpec]) -> None:
        """Before the images are locked: a bitmap that begins a little earlier than it must only tells of more."""
        if not disks:
            return
        self._watch_token(folder, disks)
        try:
            checkpoints.define(self._connection, self.vm.id, self._job.token, [disk.name for disk in disks])
            for disk in disks:
                add_bitmap(disk.source, self._job.token)
        except VmferryError as error:
            if error.kind == "busy":
                raise
            checkpoints.remove(self._connection, self.vm.id, self._job.token)
            self.warnings.append(f"No increment can stand on this export of {self.vm.name}. {error.message}")
            return
        self.token = self._job.token
        failpoint("token_made")


def _export_disk(stack: ExitStack, folder: Path, disk: DiskSpec, chain: ImageChain, since: Since) -> ExportDisk:
    source = chain_source(stack, folder, chain)
    layers = since.disks.get(disk.name, ())
    changes = open_changes(stack, folder, source, layers, since.token) if layers else None
    return ExportDisk(replace(disk, size=chain.size), source, changes)


def chain_source(stack: ExitStack, folder: Path, chain: ImageChain) -> BlockSource:
    source: BlockSource
    try:
        source = LocalClusters(chain.size, chain.layers, cluster_map(chain.layers))
    except VmferryError as error:
        if error.kind != "unsupported":
            raise
        top, *below = chain.layers  # with compressed clusters: QEMU reads them for us
        backing = [(Path(layer.path), layer.format) for layer in below]
        served = serve(Path(top.path), top.format, read_only=True, socket_dir=folder, backing=backing)
        source = NbdSource(stack.enter_context(served).address)
    stack.callback(source.close)
    return source
