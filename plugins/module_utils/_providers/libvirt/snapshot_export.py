# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks as a snapshot has them, whatever became of the VM since. It may run, be started and be shut down meanwhile.

Nothing is frozen and nothing is tracked: libvirt notes changes from now on, not from the snapshot on.
"""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Mapping, Sequence

from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..._images.qcow2.snapshots import internal_snapshots
from ..._nbd.qemu_nbd import serve
from ..._nbd.source import NbdSource
from ..base import Consistency, ExportDisk
from ..image_lock import ImageLock
from ..job import Job
from ..snapshots import Snapshot
from ..spec import DiskSpec, VmSpec
from . import native_files
from .connection import Connection
from .describe import describe
from .image_stamp import blind_warnings, image_stamp
from .offline_export import chain_source
from .opened_export import OpenedExport
from .snapshot_images import SnapshotImage, domain_then, find_snapshot, hardware_then, images_of
from .snapshot_xml import read_all
from .work_folder import WorkFolder

LONG_AGO = 60.0  # seconds; of a snapshot that was made for the export, they are as good as of then
CONSISTENCIES: tuple[Consistency, ...] = ("quiesced", "crash_consistent", "powered_off")


class SnapshotExport(OpenedExport):
    def __init__(
        self,
        connection: Connection,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        name: str,
        job: Job,
        scratch_dir: str,
        reference: Mapping[str, str] | None = None,
    ) -> None:
        self._connection, self._chosen, self._name = connection, tuple(disks), name
        self.snapshot = name
        self._job, self._scratch_dir, self._reference = job, scratch_dir, reference
        self.vm = vm
        self.warnings: list[str] = []

    def confirm(self) -> None:
        """Raises `conflict` where the snapshot was removed meanwhile, the VM does not stand on its images any more, or
        one of them was written to. `virsh blockcommit` leaves the snapshot's description as it was.
        """
        text = f"The snapshot {self._name} of {self.vm.name} was changed while it was being exported."
        try:
            snapshot = find_snapshot(self.vm, read_all(self._connection, self.vm.id), self._name)
            images = self._images_now(describe(self._connection, self.vm.id), snapshot)
        except VmferryError as error:
            if error.kind not in ("not_found", "conflict", "unsupported"):
                raise
            raise VmferryError("conflict", text, f"Who else works on the VM? {error.message}") from error
        is_the_same = [image.chain for image in images] == [image.chain for image in self._images]
        if snapshot.created != self._snapshot.created or not is_the_same or self._stamps_of_all() != self._seen:
            raise VmferryError("conflict", text, "Who else works on its images?")

    @property
    def reference(self) -> Mapping[str, str]:
        return {"kind": "snapshot", "snapshot": self._name, "stamps": json.dumps(self._seen)}

    def _open(self, stack: ExitStack) -> None:
        self.vm = describe(self._connection, self.vm.id)
        self._snapshot = find_snapshot(self.vm, read_all(self._connection, self.vm.id), self._name)
        self._images = self._images_now(self.vm, self._snapshot)
        if self._reference is not None and self._reference.get("stamps") != json.dumps(self._stamps_of_all()):
            text = f"The snapshot {self._name} of {self.vm.name} is another one, or an image of it was changed since."
            raise VmferryError("not_found", text)
        folder = self._work_folder()
        stack.callback(self._leave, folder)
        frozen = [path for image in self._images for path in image.frozen_paths]
        stack.callback(ImageLock(list(dict.fromkeys(frozen))).close)
        self._seen = self._stamps_of_all()
        self.warnings += blind_warnings({path: image_stamp(path, is_top=False) for path in frozen})
        self.taken_at = created_at(self._snapshot)
        self.consistency = consistency_of(self._snapshot)
        self.disks = tuple(self._disk(stack, folder.path, image) for image in self._images)
        self._describe_then()
        self.confirm()  # under the locks, and with everything open

    def _describe_then(self) -> None:
        then = domain_then(self._connection, self.vm, self._name)
        self.native = native_files.read(self._connection, self.vm, self.warnings)
        if native_files.NVRAM in self.native and time.time() - self.taken_at > LONG_AGO:
            self.warnings.append(f"The UEFI variables of {self.vm.name} are those of now: no snapshot holds them.")
        if then is not None:
            self.native = {**self.native, native_files.DOMAIN: ET.tostring(then)}
        sizes = {disk.spec.id: disk.spec for disk in self.disks}
        self.vm = hardware_then(self.vm, self._snapshot, then)
        self.vm = self.vm.with_disks(tuple(sizes.get(disk.id, disk) for disk in self.vm.disks))

    def _disk(self, stack: ExitStack, folder: Path, image: SnapshotImage) -> ExportDisk:
        source = _internal_source(stack, folder, image) or chain_source(stack, folder, image.chain)
        if source.size != image.chain.size:
            raise VmferryError("conflict", f"{image.path} has another size than its header says.")
        return ExportDisk(replace(image.disk, size=source.size), source)

    def _images_now(self, vm: VmSpec, snapshot: Snapshot) -> list[SnapshotImage]:
        disks = {disk.name: disk for disk in vm.disks}
        chosen = [disks[disk.name] for disk in self._chosen if disk.name in disks]
        if len(chosen) != len(self._chosen):
            raise VmferryError("conflict", f"{vm.name} lost a disk meanwhile.", "Export it again.", retryable=True)
        return images_of(self._connection, vm, chosen, snapshot)

    def _stamps_of_all(self) -> list[list[list[object]]]:
        return [_stamps(image) for image in self._images]

    def _work_folder(self) -> WorkFolder:
        if self._reference is not None and WorkFolder.exists(self._scratch_dir, self._job):
            return WorkFolder.take_over(self._scratch_dir, self.vm.id, self._job)
        return WorkFolder.create(self._scratch_dir, "export", self.vm.id, self.vm.name, self._job)

    def _leave(self, folder: WorkFolder) -> None:
        if self._stays:
            folder.release()
        else:
            folder.remove()


def created_at(snapshot: Snapshot) -> float:
    parsed = datetime.strptime(snapshot.created, "%Y-%m-%dT%H:%M:%SZ")
    return parsed.replace(tzinfo=timezone.utc).timestamp()


def consistency_of(snapshot: Snapshot) -> Consistency:
    """Of another program's, nobody knows whether it froze the guest."""
    told = next((one for one in CONSISTENCIES if one == snapshot.consistency), None)
    if told is not None:
        return told
    return "powered_off" if snapshot.power_state == "powered_off" else "crash_consistent"


def _internal_source(stack: ExitStack, folder: Path, image: SnapshotImage) -> BlockSource | None:
    if image.entry is None:
        return None
    top, *below = image.chain.layers
    served = serve(
        Path(top.path),
        top.format,
        read_only=True,
        socket_dir=folder,
        backing=[(Path(layer.path), layer.format) for layer in below],
        snapshot_id=image.entry.id,
    )
    source = NbdSource(stack.enter_context(served).address)
    stack.callback(source.close)
    return source


def _stamps(image: SnapshotImage) -> list[list[object]]:
    """What changes when somebody writes to an image, or removes the snapshot inside it."""
    found: list[list[object]] = [[path, *image_stamp(path, is_top=False)] for path in image.frozen_paths]
    if image.entry is not None:
        known = [one for one in internal_snapshots(image.path) if one.id == image.entry.id]
        found += [[image.path, str(one)] for one in known]
    return found
