# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM being made on vSphere: its disks are sent into a lease, several at once, and it is whole once that is completed.

Until then its notes say whose work it is, so that what is left of a dead job is found by them and removed.
"""

from __future__ import annotations

import time
from secrets import token_bytes
from threading import Lock
from types import TracebackType
from typing import Any, Callable, Mapping, Optional, Sequence

from ..._blocks import ImageOutput, ImageWriter
from ..._errors import VmferryError
from ..._images.vmdk.stream_optimized import Deflate, StreamOptimizedVmdk
from ..._transfer.failpoints import failpoint
from ..._transfer.flow import Flow
from ..._transfer.limits import MIB, Limits
from ..._transfer.ordered_parts import OrderedRules
from ..._transfer.pipeline import export_disk
from ..._transfer.proved_digests import digests_of
from ..._transfer.workers import run_workers
from ..base import ImportSession, Placement, ReadDisk
from ..import_mark import UNFINISHED, WHOLE, ImportMark, notes_of, with_mark
from ..job import Job
from ..spec import VmSpec
from .describe import describe_these
from .disk_servers import DiskServers
from .import_hardware import NewDisk, hardware_findings, insist_on_stream
from .import_leftovers import UNDO_PATIENCE, destroy, destroy_own
from .import_places import ImportPlaces
from .import_spec import ImportPlan, ImportSpec, create_import_spec, settle
from .lease import Lease, LeaseFile
from .power import start
from .session import Session
from .settings import VsphereSettings
from .tasks import run_task
from .upload import DiskUpload, send_file

STREAMS = 4  # disks at once: an ESXi host has 48 MB for all of its streams ("NFC session connection limits")
SETTLE_LIMIT = 600.0  # seconds for vSphere to change what it has made
SETTLE_PATIENCE = 180.0  # seconds for which that is asked for again where the line broke: it can be done twice
SETTLE_AGAIN = 2.0  # seconds
_BUDGET = 16 * MIB  # of all windows, and of what waits to be sent
NVRAM = "nvram"  # the ending of the file in which a VM of vSphere keeps its firmware's variables


class VsphereImport(ImportSession):
    takes_disks = True

    def __init__(
        self,
        session: Session,
        settings: VsphereSettings,
        vm: VmSpec,
        native: Mapping[str, bytes],
        placement: Placement,
        export_id: str,
        job: Job,
        flow: Flow | None,
    ) -> None:
        self._session, self._servers = session, DiskServers(settings, session)
        self._vm, self._native, self._placement = vm, native, placement
        self._flow = flow or Flow()
        self._mark = ImportMark.of(job, export_id, placement.name, vm.id, vm.name)
        self.warnings: list[str] = []
        self._lease: Optional[Lease] = None
        self._whole = False

    def __enter__(self) -> VsphereImport:
        self._plan = ImportPlan.of(
            self._vm, self._placement, ImportPlaces(self._session, self._placement), self._variables()
        )
        self._spec = create_import_spec(self._session, self._plan, self._notes(UNFINISHED))
        weakened = [one for one in hardware_findings(self._vm, self._placement) if one.severity == "warning"]
        self.warnings += [*(f"{one.message} {one.hint}".rstrip() for one in weakened), *self._spec.warnings]
        doing = f"Making {self._plan.name}"
        lease = Lease(self._session, doing, lambda _content: self._begin(self._spec), self._flow.raise_if_stopped)
        try:
            self._lease = lease.__enter__()
            failpoint("import_made")
            self._files = self._matched(lease.urls)
            self._variables_file = self._place_of_variables(lease.urls)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._flow.shielded():
            if self._lease is not None:
                self._lease.__exit__(kind, error, traceback)
            if not self._whole:
                self._remove_half()

    def take(self, disks: Sequence[ReadDisk], workers: int | None, begin: Callable[[int], object]) -> None:
        lease = self._running()
        streams = min(STREAMS, len(disks), workers or STREAMS)
        each = max(1, -(-workers // streams)) if workers else None
        limits = Limits.within(_BUDGET // max(1, streams), any_offset=False, workers=each).for_compression()
        total = sum(disk.progress.total for disk in disks) or 1
        lease.progress(lambda: 100 * sum(disk.progress.done for disk in disks) / total)
        waiting, taking = iter(enumerate(zip(disks, self._plan.disks, self._files))), Lock()

        def work() -> None:
            while True:
                with taking:
                    taken = next(waiting, None)
                    if taken is not None:
                        begin(taken[0])
                if taken is None:
                    return
                self._send(*taken[1], limits)

        run_workers(self._flow, streams, work)
        file = self._variables_file
        if file is not None:
            connection, path = self._servers.connect(file.url, file.thumbprint)
            what = f"the firmware's variables of {self._plan.name}"
            send_file(connection, path, self._plan.nvram, what, self._flow)
        failpoint("import_sent")

    def commit(self) -> VmSpec:
        lease = self._running()
        lease.complete()
        failpoint("import_completed")
        self._settle(lease.entity)
        self._whole = True
        failpoint("import_settled")
        made = describe_these(self._session, [lease.entity], f"Describing {self._plan.name}")[0]
        if self._placement.power_on:
            try:
                start(self._session, made)
            except VmferryError as error:
                error.hint = f"The import itself is complete: the VM is there, and off. {error.hint}".strip()
                raise
            made = describe_these(self._session, [lease.entity], f"Describing {self._plan.name}")[0]
        return made

    # --- steps --------------------------------------------------------------------------------------------------------

    def _begin(self, spec: ImportSpec) -> Any:
        plan = self._plan
        pool, folder = self._session.managed("ResourcePool", plan.pool), self._session.managed("Folder", plan.folder)
        host = self._session.managed("HostSystem", plan.host) if plan.host else None
        return pool.ImportVApp(spec.spec, folder, host)

    def _matched(self, urls: Sequence[LeaseFile]) -> Sequence[LeaseFile]:
        """Of each disk, in its order, by the key that vSphere gave its file when it read the descriptor."""
        by_name = {self._named(file): file for file in urls}
        missing = [disk.file for disk in self._plan.disks if disk.file not in by_name]
        if missing:
            text = f"vSphere offers no place for {', '.join(missing)} of {self._plan.name}."
            raise VmferryError("internal", text, "Report this with the version of vSphere.")
        return [by_name[disk.file] for disk in self._plan.disks]

    def _place_of_variables(self, urls: Sequence[LeaseFile]) -> Optional[LeaseFile]:
        """None where there are none, and with a warning where vSphere takes none."""
        if not self._plan.nvram:
            return None
        found = next((file for file in urls if self._named(file).endswith(NVRAM)), None)
        if found is None:
            self.warnings.append(
                f"This vSphere does not take the firmware's variables of {self._plan.name}: they begin anew. If the "
                "guest does not boot, choose its boot loader in the setup of the firmware once."
            )
        return found

    def _named(self, file: LeaseFile) -> str:
        return self._spec.files.get(file.import_key, "")

    def _send(self, disk: ReadDisk, new: NewDisk, file: LeaseFile, limits: Limits) -> None:
        what = f"{new.spec.id} of {self._plan.name}"
        connection, path = self._servers.connect(file.url, file.thumbprint)
        upload = DiskUpload(connection, path, what, self._flow, limits.part)

        def image(output: ImageOutput, bound: int) -> ImageWriter:
            insist_on_stream(new, bound)
            return StreamOptimizedVmdk(new.size, output, Deflate(), data_bound=bound, identity=token_bytes(16))

        try:
            with self._flow.on_stop(upload.interrupt):
                made = export_disk(
                    disk.source,
                    image,
                    upload,
                    digests_of(disk.source, disk.check),
                    limits=limits,
                    rules=OrderedRules(),
                    flow=self._flow,
                    progress=disk.progress,
                )
                with disk.progress.rest():  # the server writes what it has, before it answers
                    upload.complete(made.receipts, made.size)
        except VmferryError:
            self._running().check()  # a stream ends with its lease, which says why
            raise
        finally:
            upload.abort()

    def _settle(self, moref: str) -> None:
        """What vSphere may have left out of what it was to make; and from now on the VM is whole."""
        from pyVmomi import vim

        config, machine = vim.vm.ConfigSpec(), self._session.managed("VirtualMachine", moref)
        settle(config, self._plan, self._notes(WHOLE))
        doing = f"Settling {self._plan.name}"
        deadline, is_again = time.monotonic() + SETTLE_PATIENCE, False
        while True:
            try:
                run_task(self._session, doing, lambda _content: machine.ReconfigVM_Task(config), SETTLE_LIMIT)
                return
            except VmferryError as error:  # its answer may be lost, or it may be at what was asked for before
                passing = error.kind == "network" or (is_again and error.kind == "busy")
                if not passing or time.monotonic() >= deadline:
                    raise
            is_again = True
            self._flow.sleep(SETTLE_AGAIN)

    def _remove_half(self) -> None:
        """vSphere does so itself when a lease is aborted; not where it was completed, or nobody heard that it began."""
        try:
            lease = self._lease
            if lease is not None and lease.entity:
                destroy(self._session, lease.entity, self._plan.name, UNDO_PATIENCE)
            else:
                destroy_own(self._session, self._mark.attempt)
        except VmferryError as error:
            self.warnings.append(f"{self._placement.name} is left half made for the next run to remove: {error}")

    def _notes(self, state: str) -> str:
        return with_mark(notes_of(self._vm.details), self._mark.text(state))

    def _variables(self) -> bytes:
        if self._vm.provider != "vsphere":  # other firmwares keep theirs in another form
            return b""
        return next((data for name, data in self._native.items() if name.endswith(NVRAM)), b"")

    def _running(self) -> Lease:
        if self._lease is None:
            raise VmferryError("internal", "An import into vSphere goes on before it was begun.")
        return self._lease
