# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a VM as a point in time: they are one as long as nobody writes to them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Callable, Mapping, Sequence, Tuple

from ..._appliances.appliance import Appliance
from ..._appliances.documents import MAX_DOCUMENT
from ..._appliances.passwords import without_passwords
from ..._blocks import BlockSource, ObjectInfo
from ..._errors import VmferryError
from ..._providers.base import ExportDisk, ExportSession
from ..._providers.spec import DiskSpec, VmSpec
from ..._stores.base import Store
from ..stored.read_appliance import ApplianceDisk, stored_appliance
from .described import describe, describe_appliance
from .held_files import HeldFiles
from .image_disk import open_image
from .inventory import FileVm

DESCRIPTOR = "descriptor.ovf"


def files_of(store: Store, vm: FileVm, appliance: Appliance | None) -> list[ObjectInfo]:
    """All that its disks are read from, and what describes them."""
    if appliance is None:
        return list(vm.images)
    if vm.path.lower().endswith((".ova", ".ova.gz")):
        return [ObjectInfo(vm.path, 0)]
    folder = vm.path[: len(vm.path) - len(vm.path.rpartition("/")[2])]
    disks = {disk.file for disk in appliance.machine.disks}
    named = [name for name in appliance.package.members if name in disks or name.lower().endswith((".ovf", ".mf"))]
    return [ObjectInfo(folder + name, 0) for name in named]


class FileExport(ExportSession):
    """`reference`: of a dead run's session; entering raises `not_found` where a file is not as it was then.

    Entering raises `conflict` where the files are no longer the VM that the export was planned for.
    """

    consistency = "crash_consistent"  # no file tells how its guest was stopped

    def __init__(
        self,
        store: Store,
        find: Callable[[], FileVm],
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        *,
        is_path: bool,
        alive: Callable[[], object],
        reference: Mapping[str, str] | None = None,
    ) -> None:
        """`find` looks for the files, as they are then. `alive` is called now and then while an appliance's disks are
        compared with their checksums, on entering.
        """
        self._alive = alive
        self._store, self._find, self._chosen, self._is_path = store, find, tuple(disks), is_path
        self._expected = reference
        self.vm = vm
        self.warnings: list[str] = []
        self.native: Mapping[str, bytes] = {}
        self._appliance: Appliance | None = None

    def __enter__(self) -> FileExport:
        with ExitStack() as stack:
            self._open(stack)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.__exit__(kind, error, traceback)

    def confirm(self) -> None:
        self._held.confirm()

    @property
    def reference(self) -> Mapping[str, str]:
        return {"kind": "files", "stamps": self._held.told()}

    def stay(self) -> bool:
        """Files stay by themselves; whether they are the same is seen by their stamps."""
        return True

    def _open(self, stack: ExitStack) -> None:
        _files, _appliance, held = self._look()
        self._held = HeldFiles(self._store, held, is_path=self._is_path)
        stack.callback(self._held.close)
        if self._expected is not None and self._expected.get("stamps") != self._held.told():
            raise VmferryError("not_found", f"A file of {self.vm.name} was changed since.")
        self.warnings += self._held.warnings
        self._files, appliance, files = self._look()  # anew: what was seen before the stamps may have been replaced
        self._appliance = appliance
        if [info.key for info in files] != [info.key for info in held] or not self._is_as_planned(appliance):
            where = self._store.object_url(self._files.path)
            text = f"{where} is not what it was when its export was planned: files were added, removed or replaced."
            raise VmferryError("conflict", text, "Export it again.", retryable=True)
        self.taken_at = time.time()
        self.disks = tuple(self._disk(stack, disk) for disk in self._chosen)
        if appliance is not None:
            self.native = {DESCRIPTOR: _descriptor(appliance)}
            self.warnings += warnings_of(appliance)
        sizes = {disk.spec.id: disk.spec for disk in self.disks}
        self.vm = self.vm.with_disks(tuple(sizes.get(disk.id, disk) for disk in self.vm.disks))

    def _look(self) -> Tuple[FileVm, Appliance | None, list[ObjectInfo]]:
        found = self._find()
        appliance = stored_appliance(self._store, found.path, run_through=False) if found.is_appliance else None
        return found, appliance, files_of(self._store, found, appliance)

    def _is_as_planned(self, appliance: Appliance | None) -> bool:
        if appliance is None:
            now = describe(self._store, self._files, is_path=self._is_path)
        else:
            now = describe_appliance(self._store, self._files, appliance, is_path=self._is_path)
        return _without_fill(now) == _without_fill(self.vm)

    def _disk(self, stack: ExitStack, disk: DiskSpec) -> ExportDisk:
        source: BlockSource
        if self._appliance is not None:
            number = [one.id for one in self.vm.disks].index(disk.id)
            source = ApplianceDisk.of(self._appliance, self._appliance.machine.disks[number], self._alive)
            stack.callback(source.close)
        else:
            (image,) = (info for info in self._files.images if self._store.location(info.key) == disk.source)
            source = stack.enter_context(open_image(self._store, image))
        return ExportDisk(replace(disk, size=source.size), source)


def _without_fill(vm: VmSpec) -> VmSpec:
    """A thin image may take more room than it did."""
    return vm.with_disks(tuple(replace(disk, allocated=None) for disk in vm.disks))


def _descriptor(appliance: Appliance) -> bytes:
    (text,) = (one for name, one in appliance.package.members.items() if name.lower().endswith(".ovf"))
    found = text.whole(MAX_DOCUMENT, appliance.where)
    appliance.checksums.check(text.name, found)  # read anew
    return without_passwords(found, appliance.where)


def warnings_of(appliance: Appliance) -> list[str]:
    found = list(appliance.machine.warnings)
    if not appliance.proves:
        found.insert(0, f"{appliance.where} has no checksums: damage of its disks is not found.")
    return found
