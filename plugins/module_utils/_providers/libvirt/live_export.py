# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a running VM at one point in time."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Callable, Iterator, Sequence

from ..._blocks import Extent, Piece
from ..._errors import VmferryError
from ..._nbd.source import NbdSource
from ..._nbd.transport import Address
from ..._transfer.failpoints import failpoint
from ..base import Consistency, ExportDisk, ExportSession, Job
from ..spec import DiskSpec, VmSpec
from . import backup_job, domain_xml, native_files
from .connection import Connection
from .describe import describe
from .guest_freeze import PersistentThaw, frozen
from .scratch import reserve_of, socket_path
from .watchdog_launcher import WatchdogProcess
from .work_folder import WorkFolder

if TYPE_CHECKING:
    import libvirt

NBD_TIMEOUT = 60.0  # seconds without a byte; QEMU answers late while the guest's own disk is slow
NBD_RETRIES = 2
POWER_OFF_SEEN = 3.0  # seconds until libvirt has noticed that a QEMU is gone; measured: half a second
UNANSWERED = ("network", "timeout")  # kinds of failure after which libvirt may still do what it was asked
END_PATIENCE = 20.0  # seconds for a libvirtd that is down when the job has to be ended; then the watchdog waits


class LiveExport(ExportSession):
    def __init__(
        self,
        connection: Connection,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        scratch_dir: str,
    ) -> None:
        self._connection, self._wanted, self._scratch_dir = connection, consistency, scratch_dir
        self._chosen, self._job = tuple(disks), job
        self.vm = vm
        self.warnings: list[str] = []
        self._cleanup = ExitStack()

    def __enter__(self) -> LiveExport:
        with ExitStack() as stack:
            self._open(stack)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.__exit__(kind, error, traceback)

    def confirm(self) -> None:
        """Every byte came out of the frozen view, or reading it would have failed."""

    def _open(self, stack: ExitStack) -> None:
        self.vm = describe(self._connection, self.vm.id)
        root = self._domain_xml()
        folder = WorkFolder.create(self._scratch_dir, "export", self.vm.id, self.vm.name, self._job)
        leaving = _Leaving(self._connection, self.vm.id, folder, self.warnings)
        stack.callback(leaving.leave)
        room = folder.make_room_for_qemu(domain_xml.qemu_user(root))
        leaving.socket = socket_path(folder.path, root, self._job.attempt)
        leaving.watchdog = WatchdogProcess.start(
            uri=self._connection.uri,
            uuid=self.vm.id,
            folder=folder.path,
            socket=leaving.socket,
            reserve=reserve_of(self._scratch_dir),
        )
        self.native = native_files.read(self._connection, self.vm, self.warnings)
        failpoint("watchdog")
        self._begin(root, room, leaving)
        failpoint("backup_begun")
        self._open_disks(stack, folder, leaving.socket, leaving.watchdog.check)

    def _begin(self, root: ET.Element, room: Path, leaving: _Leaving) -> None:
        chosen = {disk.name for disk in self._chosen}
        everything = [disk.target for disk in domain_xml.disks(root)]
        xml = backup_job.backup_xml(
            leaving.socket,
            {target: room / f"{target}.scratch" for target in everything if target in chosen},
            [target for target in everything if target not in chosen],
        )

        def begin() -> None:
            leaving.tell("begin")
            try:
                backup_job.begin(self._connection, self.vm.id, self.vm.name, xml)
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

    def _may_quiesce(self) -> bool:
        if self._wanted not in ("quiesced", "auto"):
            return False
        if not self.vm.guest_agent or self.vm.power_state != "on":
            reason = "has no guest agent that answers" if self.vm.power_state == "on" else "is not running"
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
            disks.append(ExportDisk(replace(disk, size=source.size), source))
        sizes = {disk.spec.id: disk.spec for disk in disks}
        self.disks = tuple(disks)
        self.vm = self.vm.with_disks(tuple(sizes.get(disk.id, disk) for disk in self.vm.disks))

    def _domain_xml(self) -> ET.Element:
        text = self._connection.domain(self.vm.id, f"Reading {self.vm.name}", lambda domain: domain.XMLDesc())
        return domain_xml.parse(text)


class _Leaving:
    """Undoes in the one safe order: the job, its files, then the watchdog, which stays where that did not succeed."""

    def __init__(self, connection: Connection, uuid: str, folder: WorkFolder, warnings: list[str]) -> None:
        self._connection, self._uuid, self._folder, self._warnings = connection, uuid, folder, warnings
        self.socket = ""
        self.watchdog: WatchdogProcess | None = None
        self._frozen = self._beginning = False
        self._thaw: PersistentThaw | None = None

    def tell(self, event: str) -> None:
        self._frozen = {"freeze": True, "thawed": False}.get(event, self._frozen)
        self._beginning = {"begin": True, "begun": False}.get(event, self._beginning)
        if self.watchdog is not None:
            self.watchdog.tell(event)

    def thaw_if_frozen(self, vm_name: str) -> None:
        """The export goes on; a guest whose freeze came true after all must not wait until it is over."""
        if self._frozen:
            self._thaw = PersistentThaw(self._connection, self._uuid, vm_name, self.tell)

    def leave(self) -> None:
        if self._thaw is not None:
            self._thaw.stop()
        try:
            if self.socket:
                backup_job.end(self._connection, self._uuid, self.socket, END_PATIENCE)
            if self._frozen:
                raise VmferryError("internal", "The guest could not be thawed.")
            if self._beginning:
                raise VmferryError("internal", "A backup job may still begin.")
            failpoint("job_ended")
            self._folder.remove()
            if self.socket:
                with suppress(FileNotFoundError):
                    Path(self.socket).unlink()
        except (VmferryError, OSError) as error:
            # What was read is right; libvirt is only away, or late. The watchdog goes on until nothing can follow.
            if self.watchdog is None:
                raise
            self._warnings.append(f"What the export made on this host is left to its watchdog to undo. {error}")
            self.watchdog.abandon()
            return
        if self.watchdog is not None:
            self.watchdog.finish()


class PointInTime:
    """Plays BlockSource: one disk of a backup job, and the reason where that job came to an early end."""

    def __init__(
        self,
        connection: Connection,
        vm: VmSpec,
        folder: Path,
        socket: str,
        target: str,
        check: Callable[[], None],
    ) -> None:
        """`check` raises what makes reading on unwise."""
        self._connection, self._vm, self._folder, self._target = connection, vm, folder, target
        self._check = check
        self._reason: VmferryError | None = None
        self._asking = Lock()
        self._source = NbdSource(Address.unix(Path(socket)), target, idle_timeout=NBD_TIMEOUT, retries=NBD_RETRIES)

    @property
    def size(self) -> int:
        return self._source.size

    def extents(self) -> Iterator[Extent]:
        self._check()
        try:
            yield from self._source.extents()
        except VmferryError as error:
            raise self._explained(error) from error

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._check()
        try:
            self._source.read_into(pieces)
        except VmferryError as error:
            raise self._explained(error) from error

    def close(self) -> None:
        self._source.close()

    def _explained(self, error: VmferryError) -> VmferryError:
        if error.kind not in ("network", "timeout", "not_found"):
            return error
        with self._asking:  # every reader fails at once; one of them asks
            if self._reason is None:
                self._reason = self._why(error)
            return self._reason

    def _is_active(self) -> bool:
        return self._connection.domain(self._vm.id, f"Looking at {self._vm.name}", _domain_is_active, END_PATIENCE)

    def _why(self, error: VmferryError) -> VmferryError:
        name, target = self._vm.name, self._target
        try:
            active = self._is_active()
            if active and backup_job.current_job(self._connection, self._vm.id) is not None:
                return error
            deadline = time.monotonic() + POWER_OFF_SEEN
            while active and not self._was_stopped() and time.monotonic() < deadline:
                time.sleep(0.2)
                active = self._is_active()
        except VmferryError as second:
            if second.kind != "not_found":
                return error
            active = False
        if self._was_stopped():
            return VmferryError(
                "no_space",
                f"The export of {target} of {name} was stopped: the guest wrote so much meanwhile that the scratch "
                f"folder {self._folder.parent} ran low.",
                "Set scratch_dir to a larger file system, or export while the guest writes less.",
            )
        if active:
            happened = f"The backup job of {name} was aborted by somebody else while {target} was being read."
        else:
            happened = f"{name} was powered off while {target} was being exported."
        return VmferryError("conflict", happened, "Export it again.", retryable=True)

    def _was_stopped(self) -> bool:
        """By the watchdog, which says so a moment after it ended the job."""
        return (self._folder / "stopped").exists()


def _domain_is_active(domain: libvirt.virDomain) -> bool:
    return bool(domain.isActive())
