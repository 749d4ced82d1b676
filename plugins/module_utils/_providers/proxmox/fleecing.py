# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleecing: QEMU saves what the guest overwrites to a volume of its own, and serves the disks as they were by NBD.

https://www.qemu.org/docs/master/interop/live-block-operations.html (backup with sync none). The volume is a qcow2 image
that stands on the disk, so it has only what was overwritten since. It lies on the disk's own storage, or on another.
"""

from __future__ import annotations

import posixpath
import time
from dataclasses import dataclass
from typing import Any, Collection, Dict, List, Mapping

from ..._errors import VmferryError
from ..job import Job
from ..spec import VmSpec
from .block_nodes import BlockNode, Command
from .keeper import Keeper, QemuRefused
from .node import RUN_FOLDER
from .offline_disk import DEVICES, volume_path

CLUSTER = 65536  # of the volumes' images, and the granularity of bitmaps
FILE_STORAGES = ("dir", "nfs", "cifs", "btrfs", "cephfs")
STORAGES = (*FILE_STORAGES, "lvm", "lvmthin", "zfspool")  # whose volumes have paths on the node
# Of an image on a device: tables have 8 bytes for each cluster, reference counts 2, the rest is rounding.
TABLE_SHARE, TABLES = 4096, 8 << 20
SMALLEST = 1024  # KiB of a file, which grows by itself
ALLOCATE_TIMEOUT = 300.0  # seconds
DEVICE_WAIT = 15.0  # seconds until udev has made a device known
TOO_OLD = "on-cbw-error"  # an argument that QEMU has since 10.1; without it, a full storage makes guests fail


@dataclass(frozen=True)
class Fleece:
    drive: str
    node: BlockNode
    image: str  # path of the volume
    name: str  # of its node, the job and the export

    @property
    def driver(self) -> str:
        return "host_device" if self.image.startswith(DEVICES) else "file"


class Fleecing:
    """Of one job. What is made is written down with the keeper before."""

    def __init__(self, keeper: Keeper, vm: VmSpec, job: Job, types: Mapping[str, str]) -> None:
        """`types`: of the storages, by name."""
        self._keeper, self._vm, self._job, self._types = keeper, vm, job, types
        self._prefix = f"vmferry-{job.attempt}"
        self.socket = f"{RUN_FOLDER}/{job.job_id}/q"
        self.copy = f"{self._prefix}-since"  # a bitmap: that of the token as it was at this moment
        self._fleeces: List[Fleece] = []
        self._entry = 0

    def prepare(self, drives: Mapping[str, BlockNode], storages: Mapping[str, str], token: str) -> None:
        """Volumes, and what QEMU knows them by. `storages`: of each drive's volume; `token`: what will be made."""
        images = {
            drive: self._allocate(number, storages[drive], node) for number, (drive, node) in enumerate(drives.items())
        }
        self._fleeces = [
            Fleece(drive, drives[drive], image, f"{self._prefix}-{number}")
            for number, (drive, image) in enumerate(images.items())
        ]
        folders = sorted({posixpath.dirname(one.image) for one in self._fleeces if one.driver == "file"})
        self._undo: Dict[str, Any] = {
            "kind": "qemu",
            "vmid": int(self._vm.id),
            "prefix": self._prefix,
            "socket": self.socket,
            "bitmaps": [self.copy, *([token] if token else [])],
            "watch": folders,
        }
        self._token = token
        self._entry = self._keeper.will(**self._undo)
        self._qmp(*(self._add(one) for one in self._fleeces))

    def begin(self, since: Mapping[str, str], tracked: Collection[str]) -> None:
        """All at one moment. `since`: the bitmap to copy, by drive; `tracked`: drives that get the token's."""
        try:
            self._qmp(self._transaction(since, tracked, on_full={TOO_OLD: "break-snapshot"}))
        except QemuRefused as error:
            if TOO_OLD not in error.said:
                raise
            self._qmp(self._transaction(since, tracked, on_full={}))

    def serve(self, since: Collection[str]) -> None:
        """At `socket`, each by the name of its drive. Raises `busy` where QEMU serves somebody else already."""
        listening = {"addr": {"type": "unix", "data": {"path": self.socket}}}
        try:
            self._qmp(("nbd-server-start", listening))
        except QemuRefused as error:
            text = f"The QEMU of {self._vm.name} serves disks by NBD already, as for a migration: {error.said}"
            raise VmferryError("busy", text, "Wait until that is done, and export the VM then.") from error
        self._qmp(*(self._export(one, one.drive in since) for one in self._fleeces))

    def keep_token(self) -> None:
        """It is not undone any more."""
        self._keeper.change(self._entry, **{**self._undo, "bitmaps": [self.copy]})

    def stopped(self) -> bool:
        """By the keeper, since a storage ran low: then nothing of the moment is left."""
        return self._entry in self._keeper.stopped()

    def _transaction(self, since: Mapping[str, str], tracked: Collection[str], on_full: Mapping[str, str]) -> Command:
        actions: List[Dict[str, Any]] = []
        for one in self._fleeces:
            node = one.node.name
            job = {"job-id": one.name, "device": node, "target": one.name, "sync": "none", **on_full}
            actions.append({"type": "blockdev-backup", "data": job})
            if one.drive in tracked:
                fresh = {"node": node, "name": self._token, "granularity": CLUSTER}
                actions.append({"type": "block-dirty-bitmap-add", "data": fresh})
            if one.drive in since:
                copy = {"node": node, "name": self.copy, "granularity": CLUSTER, "disabled": True}
                merge = {"node": node, "target": self.copy, "bitmaps": [since[one.drive]]}
                actions.append({"type": "block-dirty-bitmap-add", "data": copy})
                actions.append({"type": "block-dirty-bitmap-merge", "data": merge})
        return "transaction", {"actions": actions}

    def _export(self, one: Fleece, with_changes: bool) -> Command:
        served: Dict[str, Any] = {"type": "nbd", "id": one.name, "node-name": one.name, "name": one.drive}
        if with_changes:
            served["bitmaps"] = [{"node": one.node.name, "name": self.copy}]
        return "block-export-add", served

    def _qmp(self, *commands: Command) -> None:
        self._keeper.qmp(self._vm.id, *commands)

    def _allocate(self, number: int, storage: str, node: BlockNode) -> str:
        kind = self._types.get(storage, "")
        name, in_files = f"vm-{self._vm.id}-vmferry-{self._job.attempt}-{number}", kind in FILE_STORAGES
        volume = f"{storage}:{self._vm.id}/{name}.raw" if in_files else f"{storage}:{name}"
        needed = SMALLEST if in_files else -(-(node.size + node.size // TABLE_SHARE + TABLES) // 1024)
        self._keeper.will(kind="volume", volume=volume)
        file = volume.rpartition("/")[2].rpartition(":")[2]
        run = self._keeper.node.run
        run(["pvesm", "alloc", storage, self._vm.id, file, str(needed), "--format", "raw"], timeout=ALLOCATE_TIMEOUT)
        path = volume_path(self._keeper.node, volume)
        if not path.startswith("/"):
            text = f"What {self._vm.name} overwrites meanwhile cannot be kept on {storage}, which has no paths."
            raise VmferryError("unsupported", text, "Set proxmox.fleecing_storage to a storage of files, LVM or ZFS.")
        self._wait_for(path)
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={CLUSTER}", path, str(node.size)])
        return path

    def _wait_for(self, path: str) -> None:
        activate_after = time.monotonic() + DEVICE_WAIT
        while path.startswith(DEVICES) and not self._keeper.node.exists(path):
            if time.monotonic() > activate_after:
                raise VmferryError("timeout", f"The device {path} does not appear on {self._vm.host}.")
            time.sleep(0.2)

    def _add(self, one: Fleece) -> Command:
        options = {"discard": "unmap", "node-name": one.name, "backing": one.node.name}
        file = {"driver": one.driver, "filename": one.image, "discard": "unmap"}
        return "blockdev-add", {"driver": "qcow2", "file": file, **options}
