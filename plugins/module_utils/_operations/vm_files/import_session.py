# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM being written as files: an archive, or a folder with a descriptor. It is there once its last file is."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Callable, Mapping, Optional, Sequence

from ..._errors import VmferryError
from ..._providers.base import ImportSession, Placement, ReadDisk
from ..._providers.finding import Finding
from ..._providers.job import Job
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..._transfer.failpoints import failpoint
from ..._transfer.flow import Flow
from ..._transfer.limits import Limits
from ..._transfer.proved_digests import digests_of
from ..attempts.litter import probe_key
from ..jobs.findings import raise_first_error
from ..stored.appliance_files import ApplianceTexts, Mark, appliance_limits
from ..stored.write_appliance import ApplianceDisk, Writing, WrittenAppliance, unfinished_ova, write_ovf
from .described import describe
from .file_place import FilePlace
from .held_note import HeldNote
from .import_note import MARK, ImportNote
from .inventory import FileVm
from .landing import landed, left_behind, refused_options
from .layouts import FileLayout, taken_by
from .write_images import write_image


class FileImport(ImportSession):
    takes_disks = True
    _gone = False  # all that is to go

    def __init__(
        self,
        place: FilePlace,
        vm: VmSpec,
        placement: Placement,
        made_of: str,
        job: Job,
        flow: Flow,
    ) -> None:
        self._place, self._store, self._flow = place, place.store, flow
        self._vm = landed(vm, placement)
        self._layout = FileLayout(self._vm, placement.disk_format)
        self._mark = Mark(made_of, self._layout.disk_format)
        self._note = ImportNote.of(self._layout, made_of, job)
        raise_first_error([*refused_options(placement), *left_behind(vm, placement)])
        ApplianceTexts(self._vm, self._layout.names, self._layout.images, self._layout.kind.name)  # or it is refused
        self.warnings: list[str] = [finding.message for finding in left_behind(vm, placement)]
        self._open = ExitStack()
        self._finish: Optional[Callable[[], WrittenAppliance]] = None
        self._written: Optional[WrittenAppliance] = None
        self._committed = False

    def __enter__(self) -> FileImport:
        self._rules = self._store.probe(probe_key())
        self._held = HeldNote(self._place, self._note, self._rules, self._flow)
        insist_on_absence(self._store, self._layout.name)
        self._held.claim()
        try:
            insist_on_absence(self._store, self._layout.name)  # another may have been done just before
            failpoint("noted")
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with self._flow.shielded():
                self._open.close()  # what is not complete is given up
        finally:
            self._leave()

    def take(self, disks: Sequence[ReadDisk], workers: int | None, begin: Callable[[int], object]) -> None:
        layout, how = self._layout, self._how(workers)
        if layout.disk_format in ("ova", "ova_gz", "ovf", "vmdk"):  # which is summed up in the pass that writes it
            wanted = [
                ApplianceDisk(disk.source, digests_of(disk.source, disk.check), disk.progress, partial(begin, number))
                for number, disk in enumerate(disks)
            ]
            if layout.is_archive:
                opened = unfinished_ova(how, layout.path, self._vm, wanted, self._mark)
                self._finish = self._open.enter_context(opened)
            else:
                self._written = write_ovf(how, layout.key, self._vm, wanted, self._mark)
            return
        limits = Limits.of_transfer(self._place.is_path, workers)
        files = []
        for number, (disk, file) in enumerate(zip(disks, layout.images)):
            begin(number)
            files.append(write_image(how, limits, layout.key(file), file, disk, joins_parts=self._rules.joins_parts))
        texts = ApplianceTexts(self._vm, layout.names, layout.images, layout.kind.name, self._mark)
        text = texts.descriptor(files)
        names = layout.names
        told = {names.checksums: texts.checksums(text, files), names.descriptor: text}
        self._written = WrittenAppliance(tuple(files), (), told)

    def commit(self) -> VmSpec:
        failpoint("files_sent")
        if self._finish is not None:
            self._finish()
        elif self._written is not None:
            for name, text in self._written.texts.items():  # the descriptor last
                self._put(self._layout.key(name), text)
                failpoint("text_written")
        else:
            raise VmferryError("internal", "An import of files commits before it was given its disks.")
        self._committed = True
        failpoint("files_whole")
        self._leave()
        return describe(self._store, FileVm(self._layout.path, self._layout.name), is_path=self._place.is_path)

    def _how(self, workers: int | None) -> Writing:
        return Writing(
            self._store,
            self._rules,
            self._flow,
            self._layout.kind.name,
            gzip=self._layout.disk_format == "ova_gz",
            limits=appliance_limits(workers),
            metadata=self._metadata,
            if_absent=True,
            make=self._held.make,
        )

    @property
    def _metadata(self) -> Mapping[str, str]:
        return {MARK: self._note.attempt}

    def _put(self, key: str, text: bytes) -> None:
        absent, words = self._rules.conditional_put, self._metadata
        self._held.make(key, lambda: self._store.put(key, text, if_absent=absent, metadata=words))

    def _leave(self) -> None:
        self._held.let_go()
        if self._gone:
            return
        self._gone = True
        try:
            with self._flow.shielded():
                self._held.leave(self._committed)
        except VmferryError as error:
            what = "what was written" if not self._committed else "the note of its import"
            self.warnings.append(f"Of {self._vm.name}, {what} is left for the next run to remove: {error}")


def insist_on_absence(store: Store, name: str) -> None:
    for finding in taken(store, name):
        raise VmferryError("conflict", finding.message, finding.hint)


def taken(store: Store, name: str) -> Sequence[Finding]:
    key = taken_by(store, name)
    if not key:
        return []
    hint = "Import under another name, or remove what is there first."
    return [Finding("error", f"{store.object_url(key)} exists already.", hint, "conflict")]
