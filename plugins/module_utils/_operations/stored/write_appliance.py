# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An appliance, written into a store in one pass: an OVA, or an OVF with its files beside it.

The descriptor of an OVA comes first and is known last, as is how long each disk got. Both are gaps of the object until
then (`_transfer/gapped_object.py`), also in gzip. Nothing is written anywhere else.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..._appliances.stored_gzip import file_bound
from ..._appliances.tar_headers import BLOCK, pack, padding
from ..._blocks import BlockSource, ObjectInfo, PartReceipt, PartWriter
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..._transfer.digests import DiskDigests
from ..._transfer.flow import Flow
from ..._transfer.gapped_object import Gapped, GappedObject
from ..._transfer.limits import Limits
from ..._transfer.part_sizes import PartRules
from ..._transfer.progress import DiskProgress
from .appliance_files import PART, UNMARKED, ApplianceDisks, ApplianceNames, ApplianceTexts, Mark, WrittenFile
from .gzip_object import GzipObject

_END = bytes(2 * BLOCK)


@dataclass(frozen=True)
class WrittenObject:
    info: ObjectInfo
    receipts: Tuple[PartReceipt, ...]


@dataclass(frozen=True)
class WrittenAppliance:
    """`objects`: the archive, or each disk's file; `texts`: the descriptor and the checksums, by name."""

    files: Tuple[WrittenFile, ...]
    objects: Tuple[WrittenObject, ...]
    texts: Mapping[str, bytes]

    @property
    def info(self) -> ObjectInfo:
        """Of the archive."""
        return self.objects[0].info


class UnfinishedObject(GappedObject):
    key = ""
    is_there = False  # since it was finished


@dataclass(frozen=True)
class Writing:
    """How an appliance is written, whatever it is of. `gzip`: an OVA within that. `undo`: what failed to become the
    object at a key; without it, that is aborted."""

    store: Store
    rules: PartRules
    flow: Flow
    format: str = "vmdk"
    level: Optional[int] = None
    limits: Optional[Limits] = None
    part_size: int = PART
    metadata: Optional[Mapping[str, str]] = None
    if_absent: bool = False
    gzip: bool = False
    undo: Optional[Callable[[str, PartWriter], object]] = None
    make: Callable[[str, Callable[[], ObjectInfo]], ObjectInfo] = lambda key, complete: complete()  # an object appear

    @contextmanager
    def opened(self, key: str, bound: int) -> Iterator[UnfinishedObject]:
        """What was not finished when this is left is undone. Raises `unsupported` before the first byte where the store
        has no room for so many."""
        parts = self.store.open_parts(key, metadata=self.metadata)
        whole: Optional[UnfinishedObject] = None
        try:
            whole = UnfinishedObject(parts, bound, self.part_size, self.rules, self.flow)
            whole.key = key
            yield whole
        finally:
            if whole is None or not whole.is_there:
                (self.undo or self._abort)(key, parts)

    def _abort(self, key: str, parts: PartWriter) -> None:
        with self.flow.shielded():
            parts.abort()

    def finished(self, whole: UnfinishedObject, progress: Optional[DiskProgress]) -> WrittenObject:
        def complete() -> ObjectInfo:
            with (progress or DiskProgress()).rest():
                info = whole.finish(if_absent=self.if_absent)
            whole.is_there = True
            return info

        return WrittenObject(self.make(whole.key, complete), tuple(whole.receipts))


@dataclass(frozen=True)
class ApplianceDisk:
    """What is written as one disk, in the order of the VM's."""

    source: BlockSource
    digests: DiskDigests
    progress: Optional[DiskProgress] = None
    begin: Callable[[], object] = lambda: None  # it is the one that is read now


def write_ova(how: Writing, key: str, vm: VmSpec, disks: Sequence[ApplianceDisk]) -> WrittenAppliance:
    """The object appears, whole, in the end; raising leaves nothing. Raises as `unfinished_ova`."""
    with unfinished_ova(how, key, vm, disks) as finish:
        return finish()


@contextmanager
def unfinished_ova(
    how: Writing,
    key: str,
    vm: VmSpec,
    disks: Sequence[ApplianceDisk],
    mark: Mark = UNMARKED,
) -> Iterator[Callable[[], WrittenAppliance]]:
    """All of it is sent, and the object appears, whole, once what this gives is called. Leaving without that leaves
    nothing.

    `unsupported` before the first byte where the format begins with what is known last, or the store has no room.
    """
    writer, names, modified = (
        ApplianceDisks(how.format, how.level, how.limits, how.flow),
        ApplianceNames(vm.name),
        _now(),
    )
    files = [names.disk(number, writer.kind.extension) for number in range(len(disks))]
    texts = ApplianceTexts(vm, names, files, writer.kind.name, mark)
    extents = [writer.extents(disk.source) for disk in disks]
    room = texts.room
    bound = sum(writer.bound(one) + 2 * BLOCK for one in extents) + room + 4 * BLOCK + 256 * (len(files) + 2)
    written: List[WrittenFile] = []
    with how.opened(key, file_bound(bound) if how.gzip else bound) as stored:
        whole: Gapped = GzipObject(stored) if how.gzip else stored
        first = whole.reserve(BLOCK + room + padding(room))
        for number, (disk, file) in enumerate(zip(disks, files)):
            disk.begin()
            header = whole.reserve(BLOCK)
            made = writer.write(whole, disk.source, file, extents[number], disk.digests, disk.progress)
            whole.fill(header, pack(file, made.size, modified))
            whole.write(bytes(padding(made.size)))
            whole.send(whole.take_ready())
            written.append(made)
        text = texts.descriptor(written).ljust(room)  # with blanks behind it, as long as was planned
        whole.fill(first, pack(names.descriptor, room, modified) + text + bytes(padding(room)))
        sums = texts.checksums(text, written)
        whole.write(pack(names.checksums, len(sums), modified) + sums + bytes(padding(len(sums))) + _END)
        if isinstance(whole, GzipObject):
            whole.end()
        whole.send(whole.take_ready())

        def finish() -> WrittenAppliance:
            archive = how.finished(stored, disks[-1].progress)
            return WrittenAppliance(tuple(written), (archive,), {names.descriptor: text, names.checksums: sums})

        yield finish


def write_ovf(
    how: Writing,
    key: Callable[[str], str],
    vm: VmSpec,
    disks: Sequence[ApplianceDisk],
    mark: Mark = UNMARKED,
) -> WrittenAppliance:
    """`key`: of a file in the folder. What is raised leaves the files that were complete; the caller puts the texts,
    and the descriptor last of all."""
    writer, names = ApplianceDisks(how.format, how.level, how.limits, how.flow), ApplianceNames(vm.name)
    files = [names.disk(number, writer.kind.extension) for number in range(len(disks))]
    texts = ApplianceTexts(vm, names, files, writer.kind.name, mark)
    written, objects = [], []
    for disk, file in zip(disks, files):
        disk.begin()
        extents = writer.extents(disk.source)
        with how.opened(key(file), writer.bound(extents)) as whole:
            made = writer.write(whole, disk.source, file, extents, disk.digests, disk.progress)
            whole.send(whole.take_ready())
            objects.append(how.finished(whole, disk.progress))
        written.append(made)
    text = texts.descriptor(written)
    sums = texts.checksums(text, written)
    return WrittenAppliance(tuple(written), tuple(objects), {names.checksums: sums, names.descriptor: text})


def _now() -> int:
    return int(time.time())
