# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An OVA, written into a store in one pass: the descriptor comes first and is known last, as is how long each disk got.

Both are gaps of the object until then (`_transfer/gapped_object.py`). Nothing is written anywhere else.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import List, Mapping, Optional, Sequence, Tuple

from ..._appliances.checksums import manifest_lines
from ..._appliances.documents import MAX_DOCUMENT
from ..._appliances.machine import Disk, Machine
from ..._appliances.ovf_writer import write_descriptor
from ..._appliances.tar_headers import BLOCK, pack, padding
from ..._blocks import BlockSource, ImageOutput, ImageWriter, ObjectInfo, PartWriter
from ..._errors import VmferryError
from ..._images.formats import format_named
from ..._images.image_format import ImageFormat, NewImage
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..._transfer import pipeline
from ..._transfer.digests import DigestWriter
from ..._transfer.flow import Flow
from ..._transfer.gapped_object import GappedObject
from ..._transfer.limits import MIB, Limits
from ..._transfer.member_stream import MemberRules, MemberStream
from ..._transfer.part_sizes import PartRules
from ..._transfer.progress import DiskProgress
from ..._transfer.windows import ExtentMap
from ..stored.appliance_machine import machine_of

FORMATS = ("vmdk", "raw")  # whose first byte is written first, and whose disks are as large as the guest sees them
_END = bytes(2 * BLOCK)
_MOST = 1 << 60  # bytes of a file, where room is left for how many it gets
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 60
_SECTOR = 512
_BUDGET = 24 * MIB  # for windows and the parts of a disk; as much again is for those of the object
_PART = 6 * MIB


@dataclass(frozen=True)
class WrittenDisk:
    """`sha256`: of its file. `digest_root`: of the guest's disk, as in a manifest."""

    file: str
    size: int
    sha256: str
    digest_root: str
    bytes_read: int


@dataclass(frozen=True)
class WrittenAppliance:
    info: ObjectInfo
    disks: Tuple[WrittenDisk, ...]


def appliance_limits(workers: int | None = None) -> Limits:
    return Limits.within(_BUDGET, any_offset=False, workers=workers)


def write_ova(
    store: Store,
    key: str,
    vm: VmSpec,
    sources: Sequence[BlockSource],
    *,
    rules: PartRules,
    flow: Flow,
    format: str = "vmdk",
    level: Optional[int] = None,
    limits: Optional[Limits] = None,
    progress: Sequence[DiskProgress] = (),
    metadata: Optional[Mapping[str, str]] = None,
    if_absent: bool = False,
) -> WrittenAppliance:
    """`sources`: of the VM's disks, in their order. The object appears, whole, in the end; raising leaves nothing.

    `unsupported` before the first byte where the format begins with what is known last, or the store has no room.
    """
    kind = format_named(format)
    if format not in FORMATS:
        raise VmferryError(
            "unsupported",
            f"A disk of an OVA cannot be written in the format {format}.",
            f"Use one of {', '.join(FORMATS)}.",
        )
    writing = _Writing(kind, level, limits or appliance_limits(), flow, progress)
    return writing.write(store, key, vm, sources, rules, metadata, if_absent)


class _Writing:
    def __init__(
        self,
        kind: ImageFormat,
        level: Optional[int],
        limits: Limits,
        flow: Flow,
        progress: Sequence[DiskProgress],
    ) -> None:
        self._kind, self._flow, self._progress = kind, flow, progress
        compression = "zlib" if level is not None else "none"
        self._codec = kind.codec_for(compression, level)
        self._limits = limits if self._codec is None else limits.for_compression()
        self._modified = int(time.time())

    def write(
        self,
        store: Store,
        key: str,
        vm: VmSpec,
        sources: Sequence[BlockSource],
        rules: PartRules,
        metadata: Optional[Mapping[str, str]],
        if_absent: bool,
    ) -> WrittenAppliance:
        stem = _NO_NAME.sub("-", vm.name)[:_LONGEST_NAME].strip(".-") or "vm"
        files = [f"{stem}-disk{number}.{self._kind.extension}" for number in range(1, len(sources) + 1)]
        machine = _in_sectors(machine_of(vm, files, self._kind.name))
        extents = [pipeline.read_extents(source, self._flow) for source in sources]
        room = len(write_descriptor(_with_sizes(machine), dict.fromkeys(files, _MOST)))
        bound = sum(self._bound(one) + 2 * BLOCK for one in extents) + room + 4 * BLOCK + 256 * (len(files) + 2)
        if room > MAX_DOCUMENT:
            raise VmferryError("unsupported", f"The descriptor of {vm.name} would have {room} bytes.")
        with ExitStack() as on_error:
            parts = store.open_parts(key, metadata=metadata)
            on_error.callback(self._abort, parts)
            whole = GappedObject(parts, bound, _PART, rules, self._flow)
            first = whole.reserve(BLOCK + room + padding(room))
            written = [
                self._disk(whole, number, source, files[number], extents[number], f"{key} {number}")
                for number, source in enumerate(sources)
            ]
            text = self._descriptor(machine, written, room)
            whole.fill(first, pack(f"{stem}.ovf", room, self._modified) + text + bytes(padding(room)))
            sums = [(f"{stem}.ovf", sha256(text).hexdigest()), *((disk.file, disk.sha256) for disk, _zero in written)]
            listed = manifest_lines(sums)
            whole.write(pack(f"{stem}.mf", len(listed), self._modified) + listed + bytes(padding(len(listed))) + _END)
            whole.send(whole.take_ready())
            info = whole.finish(if_absent=if_absent)
            on_error.pop_all()
        return WrittenAppliance(info, tuple(disk for disk, _zero in written))

    def _abort(self, parts: PartWriter) -> None:
        with self._flow.shielded():
            parts.abort()

    def _bound(self, extents: ExtentMap) -> int:
        if self._kind.streamed is not None:
            return self._kind.streamed(NewImage(extents.size, extents, extents.data_bound)).size
        return self._kind.bound(extents.size, extents.data_bound, False)

    def _disk(
        self, whole: GappedObject, number: int, source: BlockSource, file: str, extents: ExtentMap, identity: str
    ) -> Tuple[WrittenDisk, int]:
        """With the bytes of the disk that are zeros."""
        header = whole.reserve(BLOCK)
        stream = MemberStream(whole, self._flow, self._limits.part)
        mark = sha256(identity.encode()).digest()[:16]

        def image(output: ImageOutput, bound: int) -> ImageWriter:
            return self._kind.write(NewImage(source.size, extents, bound, codec=self._codec, identity=mark), output)

        made = pipeline.export_disk(
            source,
            image,
            stream,
            DigestWriter(source.size, lambda data: None),
            limits=self._limits,
            rules=MemberRules(),
            flow=self._flow,
            progress=self._progress[number] if number < len(self._progress) else None,
            extents=extents,
        )
        whole.fill(header, pack(file, stream.size, self._modified))
        whole.write(bytes(padding(stream.size)))
        whole.send(whole.take_ready())
        disk = WrittenDisk(file, stream.size, stream.sha256, made.digest_root, made.bytes_read)
        return disk, made.bytes_zero

    def _descriptor(self, machine: Machine, written: Sequence[Tuple[WrittenDisk, int]], room: int) -> bytes:
        """With blanks behind it, so that it is as long as was planned."""
        populated = [disk.capacity - zero for disk, (_unused, zero) in zip(machine.disks, written)]
        text = write_descriptor(_with_sizes(machine, populated), {disk.file: disk.size for disk, _zero in written})
        if len(text) > room:
            raise VmferryError("internal", f"A descriptor of {len(text)} bytes has outgrown its {room}.")
        return text.ljust(room)


def _in_sectors(machine: Machine) -> Machine:
    """Disks as long as their images say."""
    disks = [replace(disk, capacity=-(-disk.capacity // _SECTOR) * _SECTOR) for disk in machine.disks]
    for disk in disks:
        if not disk.capacity:
            raise VmferryError("unsupported", f"{disk.id} of {machine.name} is an empty disk of 0 bytes.")
    return replace(machine, disks=tuple(disks))


def _with_sizes(machine: Machine, populated: Optional[Sequence[int]] = None) -> Machine:
    """Without `populated`, as long as it can get."""
    disks: List[Disk] = [
        replace(disk, populated=populated[number] if populated is not None else _MOST)
        for number, disk in enumerate(machine.disks)
    ]
    return replace(machine, disks=tuple(disks))
