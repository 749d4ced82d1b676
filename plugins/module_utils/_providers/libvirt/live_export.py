# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a running VM at one point in time."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Callable, Mapping, Sequence

from ..._errors import VmferryError
from ..._transfer.failpoints import failpoint
from ..base import (
    Consistency,
    ExportDisk,
    Tracking,
)
from ..job import Job
from ..spec import DiskSpec, VmSpec
from . import backup_job, domain_xml, native_files
from .bitmaps import can_hold_bitmaps
from .checkpoints import checkpoint_xml, remove_broken
from .connection import Connection
from .describe import describe
from .errors import CHECKPOINT_BROKEN, CHECKPOINT_REFUSED, NO_CHECKPOINT, code_of
from .guest_freeze import frozen
from .leaving import Leaving
from .opened_export import OpenedExport
from .point_in_time import PointInTime
from .safe_serving import insist_on_safe_serving
from .scratch import held_reserve_of, reserve_of, socket_path
from .since import Since, since_of_running
from .watchdog_launcher import WatchdogProcess
from .work_folder import WorkFolder, free_bytes

UNANSWERED = ("network", "timeout")  # kinds of failure after which libvirt may still do what it was asked


class LiveExport(OpenedExport):
    def __init__(
        self,
        connection: Connection,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        tracking: Tracking,
        scratch_dir: str,
    ) -> None:
        self._connection, self._wanted, self._scratch_dir = connection, consistency, scratch_dir
        self._chosen, self._job, self._tracking = tuple(disks), job, tracking
        self._since = Since()
        self._tracked: list[str] = []
        self.vm = vm
        self.warnings: list[str] = []

    def confirm(self) -> None:
        """Every byte came out of the frozen view, or reading it would have failed."""

    def keep_token(self) -> None:
        self._leaving.keep_token()

    @property
    def reference(self) -> Mapping[str, str]:
        return {"kind": "running", "token": self.token, "changes": " ".join(sorted(self._since.disks))}

    def _may_stay(self) -> bool:
        would_be_held = free_bytes(self._scratch_dir) >= held_reserve_of(self._scratch_dir)
        return would_be_held and not self._leaving.was_stopped

    def outlive(self, seconds: float) -> None:
        if self._leaving.watchdog is not None:
            self._leaving.watchdog.hold(seconds)

    def _open(self, stack: ExitStack) -> None:
        self.vm = describe(self._connection, self.vm.id)
        root = self._domain_xml()
        insist_on_safe_serving(self._connection, self.vm, self._chosen, root)
        folder = WorkFolder.create(self._scratch_dir, "export", self.vm.id, self.vm.name, self._job)
        self._leaving = leaving = Leaving(self._connection, self.vm.id, folder, self.warnings)
        stack.callback(lambda: leaving.leave(self._stays))
        room = folder.make_room_for_qemu(domain_xml.qemu_user(root))
        self._plan_tracking(root)
        if self.token:
            leaving.will_make(self.token)
        leaving.socket = socket_path(folder.path, root, self._job.attempt)
        leaving.watchdog = self._start_watchdog(folder, leaving.socket)
        self.native = native_files.read(self._connection, self.vm, self.warnings)
        failpoint("watchdog")
        self._begin(root, room, leaving)
        failpoint("backup_begun")
        self._open_disks(stack, folder, leaving.socket, leaving.watchdog.check)

    def _start_watchdog(self, folder: WorkFolder, socket: str) -> WatchdogProcess:
        return WatchdogProcess.start(
            uri=self._connection.uri,
            uuid=self.vm.id,
            folder=folder.path,
            socket=socket,
            reserve=reserve_of(self._scratch_dir),
            held_reserve=held_reserve_of(self._scratch_dir),
            token=self.token,
            images=[disk.source for disk in self.vm.disks if disk.name in self._tracked],
        )

    def _plan_tracking(self, root: ET.Element) -> None:
        chosen = {disk.name for disk in self._chosen}
        disks = [disk for disk in self.vm.disks if disk.name in chosen]
        since = since_of_running(self._connection, self.vm, root, disks, self._tracking.since)
        if since.broken:
            remove_broken(self._connection, self.vm, since.token.rpartition("-")[0])
        self._since, self.lost = since, since.lost
        if self._tracking.keep:
            self._tracked = [disk.name for disk in disks if can_hold_bitmaps(disk)]
            self.token = self._job.token if self._tracked else ""

    def _begin(self, root: ET.Element, room: Path, leaving: Leaving) -> None:
        def begin() -> None:
            leaving.tell("begin")
            try:
                while not self._begin_once(root, room, leaving.socket):
                    pass
            except VmferryError as error:
                if error.kind not in UNANSWERED:
                    leaving.tell("begun")  # libvirt refused: no job will follow
                raise
            self.taken_at = time.time()
            leaving.tell("begun")

        if self._may_quiesce():
            try:
                with frozen(self._connection, self.vm.id, self.vm.name, leaving.tell):
                    failpoint("frozen")
                    begin()
                self.consistency = "quiesced"
                return
            except VmferryError as error:
                if self._wanted == "quiesced" or not error.message.startswith("Freezing"):
                    raise
                self.warnings.append(f"{error.message} The export is crash consistent.")
                leaving.thaw_if_frozen(self.vm.name)
        begin()
        self.consistency = "crash_consistent"

    def _begin_once(self, root: ET.Element, room: Path, socket: str) -> bool:
        """False where libvirt refused, and less is to be asked of it: better an export without tracking than none."""
        chosen = {disk.name for disk in self._chosen}
        everything = [disk.target for disk in domain_xml.disks(root)]
        backup = backup_job.backup_xml(
            socket,
            {target: room / f"{target}.scratch" for target in everything if target in chosen},
            [target for target in everything if target not in chosen],
            dict.fromkeys(self._since.disks, self._since.token),
        )
        checkpoint = checkpoint_xml(self.token, self._tracked, everything) if self.token else None
        try:
            backup_job.begin(self._connection, self.vm.id, self.vm.name, backup, checkpoint)
        except VmferryError as error:
            code = code_of(error)
            if self._since.disks and code in (NO_CHECKPOINT, CHECKPOINT_BROKEN):
                self.lost, self._since = error.message, Since()
            elif self.token and code in CHECKPOINT_REFUSED:
                self.token = ""
                self.warnings.append(f"No increment can stand on this export of {self.vm.name}. {error.message}")
            else:
                raise
            return False
        return True

    def _may_quiesce(self) -> bool:
        if self._wanted not in ("quiesced", "auto"):
            return False
        if not self.vm.guest_agent or self.vm.power_state != "powered_on":
            reason = "has no guest agent that answers" if self.vm.power_state == "powered_on" else "is not running"
            if self._wanted == "quiesced":
                hint = "Install and start qemu-guest-agent in the guest, or choose another consistency."
                raise VmferryError("unsupported", f"{self.vm.name} {reason}, so it cannot be quiesced.", hint)
            self.warnings.append(f"{self.vm.name} {reason}: the export is crash consistent.")
            return False
        return True

    def _open_disks(self, stack: ExitStack, folder: WorkFolder, socket: str, check: Callable[[], None]) -> None:
        disks = []
        for disk in self._chosen:
            source = PointInTime(self._connection, self.vm, folder.path, socket, disk.name, check)
            stack.callback(source.close)
            changes = None
            if disk.name in self._since.disks:
                bitmap = backup_job.EXPORT_BITMAP
                changes = PointInTime(self._connection, self.vm, folder.path, socket, disk.name, check, bitmap)
                stack.callback(changes.close)
            disks.append(ExportDisk(replace(disk, size=source.size), source, changes))
        sizes = {disk.spec.id: disk.spec for disk in disks}
        self.disks = tuple(disks)
        self.vm = self.vm.with_disks(tuple(sizes.get(disk.id, disk) for disk in self.vm.disks))

    def _domain_xml(self) -> ET.Element:
        text = self._connection.domain(self.vm.id, f"Reading {self.vm.name}", lambda domain: domain.XMLDesc())
        return domain_xml.parse(text)
