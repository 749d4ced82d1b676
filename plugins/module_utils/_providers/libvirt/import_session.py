# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New disks being filled, and the VM that is made of them."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Callable, Mapping, Sequence
from uuid import uuid4

from ..._errors import VmferryError
from ..._nbd.qemu_img import qemu_img
from ..._nbd.qemu_nbd import serve
from ..._nbd.sink import NbdSink
from ..._nbd.source import NbdSource
from ..._transfer.failpoints import failpoint
from ..base import BootMarkers, ImportSession, Placement
from ..job import Job
from ..spec import VmSpec
from . import domain_xml, native_files
from .connection import LONG_CALL_LIMIT, Connection
from .describe import describe
from .host import Host
from .import_leftovers import identity, undo_import
from .import_xml import DomainBuilder, PlacedDisk
from .storage import NewDisk, check_name, part_prefix, plan_disks
from .trial import Trial, trial_xml
from .work_folder import WorkFolder

if TYPE_CHECKING:
    import libvirt


UNDO_PATIENCE = 20.0  # seconds for a libvirtd that is just then restarting


class LibvirtImport(ImportSession):
    def __init__(
        self,
        connection: Connection,
        vm: VmSpec,
        native: Mapping[str, bytes],
        placement: Placement,
        export_id: str,
        job: Job,
        scratch_dir: str,
    ) -> None:
        check_name(placement.name)
        self._connection, self._vm, self._native = connection, vm, native
        self._placement, self._export_id, self._job, self._scratch_dir = placement, export_id, job, scratch_dir
        self.warnings: list[str] = []
        self._uuid = str(uuid4())  # chosen here, so that it can be written down before libvirt hears of it
        self._open, self._serving = ExitStack(), ExitStack()

    def __enter__(self) -> LibvirtImport:
        with ExitStack() as stack:
            self._begin(stack)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    def commit(self) -> VmSpec:
        self._serving.close()  # QEMU writes back what it holds
        finals = self._settle()
        xml = self._builder().build(self._uuid, self._placed(), finals.get("nvram"), self._export_id, self._job.attempt)
        self._refresh_pools()
        failpoint("before_define")
        self._connection.once(f"Defining {self._placement.name}", lambda opened: _define(opened, xml))
        failpoint("defined")
        with suppress(OSError):  # what is written down already makes the undo ask for this VM, and find it
            self._folder.has_made(uuid=self._uuid, uri=self._connection.uri)
        failpoint("recorded")
        if self._placement.power_on:
            self._start()
        return describe(self._connection, self._uuid)

    def read_back(self) -> Sequence[NbdSource]:
        self._serving.close()  # QEMU writes back what it holds
        for disk in self._disks:
            _sync(disk.part, forget=True)
        return tuple(self._read(disk) for disk in self._disks)

    def boot(self, markers: BootMarkers, wait: Callable[[float], object]) -> float:
        """From the unfinished files, under names that the undoing of this session removes."""
        self._serving.close()
        disks = [PlacedDisk(disk.spec.name, disk.part, disk.format) for disk in self._disks]
        xml = self._builder().build(self._uuid, disks, self._variables(), self._export_id, self._job.attempt)
        self._folder.will_make(trial=self._uuid, uri=self._connection.uri)
        xml = trial_xml(xml, markers, self._job.job_id)
        with Trial(self._connection.uri, self._placement.name, xml, looks=markers.screen) as trial:
            failpoint("trial_runs")
            return trial.wait_for(markers, wait)

    def _begin(self, stack: ExitStack) -> None:
        self._disks = plan_disks(self._connection, self._vm, self._placement, self._export_id, self._job.attempt)
        for path in [disk.final for disk in self._disks]:
            insist_on_absence(path)
        exported = self._native.get(native_files.DOMAIN) if self._vm.provider == "libvirt" else None
        root = None if exported is None else domain_xml.parse(exported.decode())
        host = Host(self._connection)
        self._builder = lambda: DomainBuilder(self._vm, root, self._placement, host)
        trial = self._builder()
        trial.build(
            self._uuid, self._placed(), None, self._export_id, self._job.attempt
        )  # refuses before the first byte
        self.warnings += trial.warnings
        folder = WorkFolder.create(self._scratch_dir, "import", self._vm.id, self._placement.name, self._job)
        self._folder = folder
        stack.callback(self._undo)
        self._serving = stack.enter_context(ExitStack())
        self.sinks = tuple(self._new_disk(disk) for disk in self._disks)

    def _undo(self) -> None:
        said = undo_import(self._connection, self._folder, UNDO_PATIENCE)
        if self._folder.path.exists():
            self.warnings.append(said)

    def _placed(self) -> list[PlacedDisk]:
        return [PlacedDisk(disk.spec.name, disk.final, disk.format) for disk in self._disks]

    def _new_disk(self, disk: NewDisk) -> NbdSink:
        self._folder.will_make(part=str(disk.part))
        _create_empty(disk.part)
        qemu_img("create", "-q", "-f", disk.format, str(disk.part), str(disk.spec.size))
        served = serve(disk.part, disk.format, read_only=False, socket_dir=self._folder.path)
        sink = NbdSink(self._serving.enter_context(served).address, reads_zero=True)
        self._serving.callback(sink.close)
        return sink

    def _read(self, disk: NewDisk) -> NbdSource:
        served = serve(disk.part, disk.format, read_only=True, socket_dir=self._folder.path, backing=())
        source = NbdSource(self._serving.enter_context(served).address)
        self._serving.callback(source.close)
        return source

    def _settle(self) -> dict[str, Path]:
        """Every file durable under its final name, none of which existed before."""
        moves = [(disk.part, disk.final) for disk in self._disks]
        finals: dict[str, Path] = {}
        part = self._variables()
        if part is not None and part.exists():
            finals["nvram"] = part.parent / f"{self._placement.name}-nvram.fd"
            moves.append((part, finals["nvram"]))
        self._folder.will_make(uuid=self._uuid, uri=self._connection.uri)
        for part, final in moves:
            _sync(part)
            self._folder.will_make(final=str(final), identity=identity(part))
            _rename_to_new(part, final)
        for folder in {final.parent for _unused, final in moves}:
            _sync(folder)
        failpoint("settled")
        return finals

    def _variables(self) -> Path | None:
        """Where those of the firmware are, for a VM that has any. The file is there if the export has them."""
        if (self._placement.firmware or self._vm.firmware) != "uefi" or not self._disks:
            return None
        part = self._disks[0].storage.folder / f"{part_prefix(self._export_id, self._job.attempt)}-nvram.part"
        self._folder.will_make(part=str(part))
        variables = self._native.get(native_files.NVRAM)
        if variables is not None:
            _create_empty(part)
            part.write_bytes(variables)
        return part

    def _refresh_pools(self) -> None:
        def refresh(opened: libvirt.virConnect) -> None:
            for name in sorted({disk.storage.pool for disk in self._disks if disk.storage.pool}):
                opened.storagePoolLookupByName(name).refresh()

        self._connection.call("Refreshing the storage pools", refresh, limit=LONG_CALL_LIMIT)

    def _start(self) -> None:
        try:
            start(self._connection, self._uuid, self._placement.name)
        except VmferryError as error:
            error.hint = f"The import itself is complete: the VM is there, and off. {error.hint}".strip()
            raise


def start(connection: Connection, uuid: str, vm_name: str) -> None:
    connection.once(
        f"Starting {vm_name}", lambda opened: opened.lookupByUUIDString(uuid).create(), limit=LONG_CALL_LIMIT
    )


def insist_on_absence(path: Path) -> None:
    if path.is_symlink() or path.exists():
        raise VmferryError(
            "conflict", f"{path} exists and is not this import's.", "Choose another name or storage, or move it away."
        )


def _define(opened: libvirt.virConnect, xml: str) -> None:
    """With a UUID that nobody has, libvirt refuses a name that is taken instead of changing that VM."""
    import libvirt

    opened.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)


def _create_empty(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except FileExistsError as error:
        raise VmferryError("conflict", f"{path} exists already.", "Try again.") from error
    except OSError as error:
        kind = "permission_denied" if isinstance(error, PermissionError) else "internal"
        raise VmferryError(kind, f"{path} cannot be created: {error.strerror}.") from error  # type: ignore[arg-type]


def _rename_to_new(part: Path, final: Path) -> None:
    """A link fails where the name is taken, which a rename does not."""
    try:
        os.link(part, final)
    except FileExistsError as error:
        raise VmferryError("conflict", f"{final} appeared meanwhile.", "Choose another name or storage.") from error
    part.unlink()


def _sync(path: Path, *, forget: bool = False) -> None:
    """`forget`: whoever reads it next reads what the disk has, not what memory still holds of it."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
        if forget:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)
