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
from ..base import Consistency, ExportDisk, ExportSession, Tracking
from ..job import Job
from ..spec import DiskSpec, VmSpec
from .describe import describe_these
from .disk_servers import DiskServers
from .disk_stream import DiskStream
from .lease import Lease, LeaseFile
from .lease_files import files_of_disks, nvram_file
from .native_files import native_files
from .session import Session
from .stream_slots import SlottedStream, StreamSlots
from .streamed_disk import StreamedDisk
from .temporary_snapshot import TemporarySnapshot

DAMAGED = "Run the task again. If it happens again, look at the network and at the host's log."


class VsphereExport(ExportSession):
    def __init__(
        self,
        session: Session,
        servers: DiskServers,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        tracking: Tracking,
    ) -> None:
        self._session, self._servers = session, servers
        self._chosen, self._wanted, self._job, self._tracking = tuple(disks), consistency, job, tracking
        self.vm = vm
        self.warnings: List[str] = []
        self.native: Mapping[str, bytes] = {}
        self.disks: Sequence[ExportDisk] = ()
        self._sources: List[Tuple[LeaseFile, StreamedDisk]] = []
        self._snapshot: TemporarySnapshot | None = None
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
        """Raises where a stream did not come to its end, or is not what the server says it sent."""
        for _file, source in self._sources:
            source.finish()
        self._lease.check()
        told = self._lease.manifest()
        for file, source in self._sources:
            sha1, size = told.get(file.key, ("", 0))
            if source.proof is None or not sha1:
                continue  # it was not read, or the server does not say
            if (sha1, size or source.proof[1]) != source.proof:
                text = f"{source.where} arrived otherwise than the server says that it sent it."
                raise VmferryError("checksum_mismatch", text, DAMAGED, retryable=True)
        self._lease.complete()

    def _open(self, stack: ExitStack) -> None:
        moref = self.vm.details["moref"]
        self.vm = describe_these(self._session, [moref], f"Looking at {self.vm.name}")[0]
        chosen = self._still_there()
        self._lease = lease = stack.enter_context(Lease(self._session, *self._begun(stack)))
        failpoint("lease_begun")
        files = files_of_disks(lease.urls, self.vm, chosen)
        self.native = native_files(self._session, self.vm, self._nvram(), self.warnings)
        slots = StreamSlots()
        stack.callback(self._close)
        for disk in chosen:
            where = f"{disk.name} of {self.vm.name}"
            self._sources.append((files[disk.name], self._source(files[disk.name], disk.size, where, slots)))
        self.disks = tuple(ExportDisk(disk, source) for disk, (_file, source) in zip(chosen, self._sources))
        lease.progress(self._percent)

    def _still_there(self) -> Sequence[DiskSpec]:
        now = {disk.name: disk for disk in self.vm.disks}
        chosen = [now[disk.name] for disk in self._chosen if disk.name in now]
        if len(chosen) != len(self._chosen):
            raise VmferryError("conflict", f"{self.vm.name} lost a disk meanwhile.", "Export it again.", retryable=True)
        return chosen

    def _begun(self, stack: ExitStack) -> Tuple[str, Callable[[Any], Any]]:
        """How the lease is begun: `taken_at` and `consistency` are known then."""
        doing = f"Exporting {self.vm.name}"
        if self.vm.power_state == "powered_off":
            machine = self._session.managed("VirtualMachine", self.vm.details["moref"])
            self.taken_at, self.consistency = time.time(), "powered_off"
            return doing, lambda _content: machine.ExportVm()
        if self._wanted == "powered_off":
            text = f"{self.vm.name} is {self.vm.power_state}, not powered_off."
            raise VmferryError("conflict", text, "Shut it down first.")
        self._snapshot = snapshot = TemporarySnapshot(self._session, self.vm, self._job)
        stack.callback(self._remove_snapshot)
        self._tell_of_tools()
        made = snapshot.make(self._wanted)
        self.taken_at = time.time()
        self.consistency = "quiesced" if made.quiesced else "crash_consistent"
        self.warnings += snapshot.warnings
        snapshot.warnings = []
        failpoint("snapshot_made")
        taken = self._session.managed("VirtualMachineSnapshot", made.moref)
        return doing, lambda _content: taken.ExportSnapshot()

    def _tell_of_tools(self) -> None:
        if self._wanted == "auto" and not (self.vm.guest_agent and self.vm.power_state == "powered_on"):
            reason = "is suspended" if self.vm.power_state == "suspended" else "does not run VMware Tools"
            self.warnings.append(f"{self.vm.name} {reason}: the export is crash consistent.")

    def _nvram(self) -> Callable[[], bytes] | None:
        file = nvram_file(self._lease.urls)
        return None if file is None else partial(self._read_small, file, f"The firmware's variables of {self.vm.name}")

    def _read_small(self, file: LeaseFile, where: str) -> bytes:
        from .native_files import read_whole

        stream = DiskStream(self._servers, file, where, self._lease.check)
        try:
            return read_whole(stream.read, where)
        finally:
            stream.close()

    def _source(self, file: LeaseFile, size: int, where: str, slots: StreamSlots) -> StreamedDisk:
        def begin() -> SlottedStream:
            return SlottedStream(DiskStream(self._servers, file, where, self._lease.check), slots)

        return StreamedDisk(size, begin, where)

    def _percent(self) -> float:
        """Of the disks, whatever of them is sent."""
        whole = sum(source.size for _file, source in self._sources)
        return 100 * sum(source.passed for _file, source in self._sources) / whole if whole else 0.0

    def _close(self) -> None:
        for _file, source in self._sources:
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
