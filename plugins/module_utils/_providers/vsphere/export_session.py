# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a VM as an export reads them: as they are while it is off, or as a snapshot holds them while it runs.

While a VM that is off is exported, vSphere itself lets nobody start it. A snapshot is there for as long as the export,
and is removed however that ends; where the process is killed, its description says that nobody needs it any more.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Callable, List, Mapping, Sequence, Tuple

from ..._errors import VmferryError
from ..._transfer.failpoints import failpoint
from ..._transfer.flow import Flow
from ..base import Consistency, ExportDisk, ExportSession, Tracking
from ..job import Job
from ..spec import DiskSpec, VmSpec
from .change_token import token_of
from .describe import describe_these
from .disk_servers import DiskServers
from .disk_stream import DiskStream
from .frozen_disks import FrozenDisks, frozen_disks
from .lease import Lease, LeaseFile
from .lease_files import files_of_disks, nvram_file
from .native_files import native_files
from .readers import LEASE, Readers, is_worth_a_snapshot, may_be_read_at_random
from .session import Session
from .settings import VsphereSettings
from .stream_slots import STREAMS, SlottedStream, StreamSlots
from .streamed_disk import StreamedDisk
from .temporary_snapshot import TemporarySnapshot
from .tracking import switch_on

DAMAGED = "Run the task again. If it happens again, look at the network and at the host's log."


class VsphereExport(ExportSession):
    at_once = STREAMS

    def __init__(
        self,
        settings: VsphereSettings,
        session: Session,
        servers: DiskServers,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        tracking: Tracking,
        flow: Flow | None,
    ) -> None:
        self._settings, self._session, self._servers = settings, session, servers
        self._chosen, self._wanted, self._job, self._tracking = tuple(disks), consistency, job, tracking
        self._flow = flow or Flow()
        self.vm = vm
        self.warnings: List[str] = []
        self.native: Mapping[str, bytes] = {}
        self.disks: Sequence[ExportDisk] = ()
        self._sources: List[Tuple[DiskSpec, StreamedDisk]] = []
        self._files: Mapping[str, LeaseFile] = {}
        self._slots = StreamSlots()
        self._lease: Lease | None = None  # where anything is left to be read by it
        self._snapshot: TemporarySnapshot | None = None
        self._readers: Readers | None = None  # of the snapshot
        self._cleanup = ExitStack()

    def __enter__(self) -> VsphereExport:
        with ExitStack() as stack:
            try:
                self._open(stack)
            except VmferryError as error:
                raise self._left(error, stack) from error
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._cleanup.close()
            return
        try:
            self._cleanup.close()
        except VmferryError as left:
            self.warnings.append(self._words_of_left(left))

    def confirm(self) -> None:
        """Raises where a stream did not come to its end, or is not what the server says it sent; and where what was
        read at random may have been another state of the disk."""
        if self._readers is not None:
            self._readers.confirm()
        if self._lease is None:
            return
        for _disk, source in self._sources:
            source.finish()
        self._lease.check()
        told = self._lease.manifest()
        for disk, source in self._sources:
            sha1, size = told.get(self._files[disk.name].key, ("", 0))
            if source.proof is None or not sha1:
                continue  # it was not read, or the server does not say
            if (sha1, size or source.proof[1]) != source.proof:
                text = f"{source.where} arrived otherwise than the server says that it sent it."
                raise VmferryError("checksum_mismatch", text, DAMAGED, retryable=True)
        self._lease.complete()

    def _open(self, stack: ExitStack) -> None:
        self.vm = self._described()
        chosen = self._still_there()
        frozen = self._freeze(stack, chosen)
        if frozen is None:
            self.disks = [ExportDisk(disk, self._streamed(disk), None, LEASE) for disk in chosen]
        else:
            self._readers = readers = Readers(self._settings, self._session, self._servers, self.vm, frozen, stack)
            self.disks = readers.open(chosen, self._tracking.since, self._streamed)
            self.lost = readers.lost
            self.warnings += readers.warnings
            if self._tracking.keep and frozen.only:  # or going back to another one might pass for having changed little
                self.token = token_of(self._job.chain, frozen, [disk.name for disk in chosen])
        self._begin_lease(stack, frozen)

    def _begin_lease(self, stack: ExitStack, frozen: FrozenDisks | None) -> None:
        """For the disks that nothing else reads, and for the variables of the firmware, which nothing else has."""
        if not self._sources and self.vm.firmware != "uefi":
            self.native = native_files(self._session, self.vm, None, self.warnings)
            return
        doing = f"Exporting {self.vm.name}"
        self._lease = lease = stack.enter_context(
            Lease(self._session, doing, self._begun(frozen), self._flow.raise_if_stopped)
        )
        failpoint("lease_begun")
        self._files = files_of_disks(lease.urls, self.vm, [disk for disk, _source in self._sources])
        self.native = native_files(self._session, self.vm, self._nvram(lease), self.warnings)
        if not self._sources:
            lease.complete()
            self._lease = None
            return
        stack.callback(self._close)
        lease.progress(self._percent, self._interrupt)

    def _described(self) -> VmSpec:
        return describe_these(self._session, [self.vm.details["moref"]], f"Looking at {self.vm.name}")[0]

    def _still_there(self) -> Sequence[DiskSpec]:
        now = {disk.name: disk for disk in self.vm.disks}
        chosen = [now[disk.name] for disk in self._chosen if disk.name in now]
        if len(chosen) != len(self._chosen):
            raise VmferryError("conflict", f"{self.vm.name} lost a disk meanwhile.", "Export it again.", retryable=True)
        return chosen

    def _begun(self, frozen: FrozenDisks | None) -> Callable[[Any], Any]:
        if frozen is None:
            machine = self._session.managed("VirtualMachine", self.vm.details["moref"])
            return lambda _content: machine.ExportVm()
        taken = self._session.managed("VirtualMachineSnapshot", frozen.snapshot)
        return lambda _content: taken.ExportSnapshot()

    def _freeze(self, stack: ExitStack, chosen: Sequence[DiskSpec]) -> FrozenDisks | None:
        """None where the VM is read as it is, since it is off. `taken_at` and `consistency` are known then."""
        off = self.vm.power_state == "powered_off"
        if not off and self._wanted == "powered_off":
            text = f"{self.vm.name} is {self.vm.power_state}, not powered_off."
            raise VmferryError("conflict", text, "Shut it down first.")
        self.taken_at, self.consistency = time.time(), "powered_off"
        tracked = self._tracking.keep or bool(self._tracking.since)
        if off and not is_worth_a_snapshot(self._settings, self.vm, chosen, tracked):
            return None
        self._snapshot = snapshot = TemporarySnapshot(self._session, self.vm, self._job, self._flow)
        stack.callback(self._remove_snapshot)
        try:
            if self._tracking.keep:
                self._track(chosen)
            if not off:
                self._tell_of_tools()
            made = snapshot.make("crash_consistent" if off else self._wanted)
        except VmferryError as error:
            if not (off and snapshot.is_known_absent()):
                raise
            self.warnings.append(f"{self.vm.name} is read by a lease, without a snapshot: {error.message}")
            return None
        self.taken_at = time.time()
        self.warnings += snapshot.warnings
        snapshot.warnings = []
        failpoint("snapshot_made")
        doing = f"Looking at the snapshot of {self.vm.name}"
        frozen = frozen_disks(self._session, self.vm.details["moref"], made.moref, doing)
        if not (off and frozen.off):
            self.consistency = "quiesced" if made.quiesced else "crash_consistent"
        if self._wanted == "powered_off" != self.consistency:
            raise VmferryError("conflict", f"{self.vm.name} was started meanwhile.", "Shut it down first.")
        return frozen

    def _track(self, chosen: Sequence[DiskSpec]) -> None:
        """What only a lease can read is read in full anyway."""
        at_random = [disk for disk in chosen if may_be_read_at_random(self._settings, self.vm, disk)]
        self.warnings += switch_on(self._session, self.vm, at_random, self._halt)
        self.vm = self._described()

    def _halt(self) -> None:
        """One that makes the VM stand still for a moment, and is gone before the next."""
        snapshot = TemporarySnapshot(self._session, self.vm, self._job, self._flow)
        try:
            snapshot.make("crash_consistent")
            failpoint("tracking_begun")
        finally:
            snapshot.remove()

    def _tell_of_tools(self) -> None:
        if self._wanted == "auto" and not (self.vm.guest_agent and self.vm.power_state == "powered_on"):
            reason = "is suspended" if self.vm.power_state == "suspended" else "does not run VMware Tools"
            self.warnings.append(f"{self.vm.name} {reason}: the export is crash consistent.")

    def _nvram(self, lease: Lease) -> Callable[[], bytes] | None:
        file, where = nvram_file(lease.urls), f"The firmware's variables of {self.vm.name}"
        return None if file is None else partial(self._read_small, lease, file, where)

    def _read_small(self, lease: Lease, file: LeaseFile, where: str) -> bytes:
        from .native_files import read_whole

        stream = DiskStream(self._servers, file, where, lease.check)
        try:
            return read_whole(stream.read, where)
        finally:
            stream.close()

    def _streamed(self, disk: DiskSpec) -> StreamedDisk:
        """Of the lease, which has begun when it is first read."""
        where = f"{disk.name} of {self.vm.name}"

        def begin() -> SlottedStream:
            if self._lease is None:
                raise VmferryError("internal", f"{where} is not offered by a lease.")
            return SlottedStream(
                DiskStream(self._servers, self._files[disk.name], where, self._lease.check), self._slots
            )

        source = StreamedDisk(disk.size, begin, where)
        self._sources.append((disk, source))
        return source

    def _percent(self) -> float:
        """Of the disks, whatever of them is sent."""
        whole = sum(source.size for _disk, source in self._sources)
        return 100 * sum(source.passed for _disk, source in self._sources) / whole if whole else 0.0

    def _interrupt(self) -> None:
        for _disk, source in self._sources:
            source.interrupt()

    def _close(self) -> None:
        for _disk, source in self._sources:
            source.close()

    def _remove_snapshot(self) -> None:
        if self._snapshot is None:
            return
        failpoint("lease_ended")
        self._snapshot.remove()
        self.warnings += self._snapshot.warnings

    def _left(self, error: VmferryError, stack: ExitStack) -> VmferryError:
        """What opening failed with, with what could not be undone of it."""
        try:
            stack.close()
        except VmferryError as left:
            text = f"{error.message} {self._words_of_left(left)}"
            return VmferryError(error.kind, text, error.hint, retryable=error.retryable)
        return error

    def _words_of_left(self, left: VmferryError) -> str:
        name = self._snapshot.name if self._snapshot is not None else "of the export"
        return (
            f"The snapshot {name} of {self.vm.name} is left, for the next export or export_cleanup to remove: "
            f"{left.message}"
        )
