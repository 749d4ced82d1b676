# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an appliance: how they are called, its disks as they are written, and the descriptor that names them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from hashlib import sha256
from secrets import token_bytes
from typing import List, Optional, Sequence, Tuple

from ..._appliances.checksums import manifest_lines
from ..._appliances.documents import MAX_DOCUMENT
from ..._appliances.machine import Disk, Machine
from ..._appliances.ovf_writer import write_descriptor
from ..._blocks import BlockSource, ImageOutput, ImageWriter
from ..._errors import VmferryError
from ..._exports.packed import ARCHIVES
from ..._images.formats import format_named
from ..._images.image_format import NewImage
from ..._providers.spec import VmSpec
from ..._transfer import pipeline
from ..._transfer.digests import DiskDigests
from ..._transfer.flow import Flow
from ..._transfer.gapped_object import Gapped
from ..._transfer.limits import MIB, Limits
from ..._transfer.member_stream import MemberStream
from ..._transfer.ordered_parts import OrderedRules
from ..._transfer.progress import DiskProgress
from ..._transfer.windows import ExtentMap
from .appliance_machine import machine_of

FORMATS = (
    "vmdk",
    "raw",
    "vma",
)  # whose first byte is written first, and whose disks are as large as the guest sees them
PART = 6 * MIB
_MOST = 1 << 60  # bytes of a file, where room is left for how many it gets
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 60
_SECTOR = 512
_UNITS = {"raw": 1, "vhd": MIB}  # of which the disk in an image is a whole number, where that is not a sector
_BUDGET = 8 * MIB  # for windows and the parts of a disk, beside what the object gathers; more is no faster


@dataclass(frozen=True)
class Mark:
    """What an import of ours leaves in the descriptor, so that the next run knows its own: the id of what the VM was
    made of, and the format that the task asked for."""

    made_of: str = ""
    made_as: str = ""


UNMARKED = Mark()


@dataclass(frozen=True)
class WrittenFile:
    """A disk's. `offset`: in the archive that it lies in. `digest_root`: of the guest's disk, as in a manifest."""

    file: str
    size: int
    sha256: str
    digest_root: str
    bytes_read: int
    bytes_zero: int = 0
    offset: int = 0


def appliance_limits(workers: int | None = None) -> Limits:
    return Limits.within(_BUDGET, any_offset=False, workers=workers)


class ApplianceNames:
    """Plain ones, after the VM."""

    def __init__(self, vm: str) -> None:
        self._stem = _NO_NAME.sub("-", vm)[:_LONGEST_NAME].strip(".-") or "vm"

    def archive(self, format: str) -> str:
        return f"{self._stem}.{ARCHIVES[format]}"

    @property
    def descriptor(self) -> str:
        return f"{self._stem}.ovf"

    @property
    def checksums(self) -> str:
        return f"{self._stem}.mf"

    def disk(self, number: int, extension: str) -> str:
        """Counted from 0."""
        return f"{self._stem}-disk{number + 1}.{extension}"


class ApplianceDisks:
    """The disks of one appliance, in one format. Raises `unsupported` where that begins with what is known last."""

    def __init__(self, format: str, level: Optional[int], limits: Optional[Limits], flow: Flow) -> None:
        self.kind, self._flow = format_named(format), flow
        if format not in FORMATS:
            raise VmferryError(
                "unsupported",
                f"A disk of an OVA cannot be written in the format {format}.",
                f"Use one of {', '.join(FORMATS)}.",
            )
        limits = limits or appliance_limits()
        self._codec = self.kind.codec_for("zlib" if level is not None else "none", level)
        self._limits = limits if self._codec is None else limits.for_compression()

    def extents(self, source: BlockSource) -> ExtentMap:
        return pipeline.read_extents(source, self._flow)

    def bound(self, extents: ExtentMap) -> int:
        """Bytes that a disk's file has at the most."""
        if self.kind.streamed is not None:
            return self.kind.streamed(NewImage(extents.size, extents, extents.data_bound)).size
        return self.kind.bound(extents.size, extents.data_bound, False)

    def write(
        self,
        whole: Gapped,
        source: BlockSource,
        file: str,
        extents: ExtentMap,
        digests: DiskDigests,
        progress: DiskProgress | None = None,
        place: Tuple[bytes, int] | None = None,
    ) -> WrittenFile:
        """Appended to `whole`. `place`: in an archive of its own kind, whose disks have one mark and a number each."""
        stream, offset = MemberStream(whole, self._flow, self._limits.part), whole.size
        mark, number = place or (token_bytes(16), 1)

        def image(output: ImageOutput, bound: int) -> ImageWriter:
            new = NewImage(source.size, extents, bound, codec=self._codec, identity=mark, number=number)
            return self.kind.write(new, output)

        made = pipeline.export_disk(
            source,
            image,
            stream,
            digests,
            limits=self._limits,
            rules=OrderedRules(),
            flow=self._flow,
            progress=progress,
            extents=extents,
        )
        return WrittenFile(file, stream.size, stream.sha256, made.digest_root, made.bytes_read, made.bytes_zero, offset)


class ApplianceTexts:
    """The descriptor of `vm` with these files of its disks, and the checksums of all of them."""

    def __init__(
        self,
        vm: VmSpec,
        names: ApplianceNames,
        files: Sequence[str],
        format: str,
        mark: Mark = UNMARKED,
    ) -> None:
        machine = replace(machine_of(vm, files, format), made_of=mark.made_of, made_as=mark.made_as)
        self._names, self._machine = names, _as_written(machine, format)
        self.room = len(write_descriptor(_with_sizes(self._machine), dict.fromkeys(files, _MOST)))
        if self.room > MAX_DOCUMENT:
            raise VmferryError("unsupported", f"The descriptor of {vm.name} would have {self.room} bytes.")

    def descriptor(self, written: Sequence[WrittenFile]) -> bytes:
        """At most `room` bytes."""
        populated = [disk.capacity - one.bytes_zero for disk, one in zip(self._machine.disks, written)]
        text = write_descriptor(_with_sizes(self._machine, populated), {one.file: one.size for one in written})
        if len(text) > self.room:
            raise VmferryError("internal", f"A descriptor of {len(text)} bytes has outgrown its {self.room}.")
        return text

    def checksums(self, descriptor: bytes, written: Sequence[WrittenFile]) -> bytes:
        sums = [(self._names.descriptor, sha256(descriptor).hexdigest()), *((one.file, one.sha256) for one in written)]
        return manifest_lines(sums)


def _as_written(machine: Machine, format: str) -> Machine:
    """Disks as long as their images say."""
    unit = _UNITS.get(format, _SECTOR)
    disks = [replace(disk, capacity=-(-disk.capacity // unit) * unit) for disk in machine.disks]
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
