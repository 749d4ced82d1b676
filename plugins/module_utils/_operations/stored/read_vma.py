# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of Proxmox VE in a store, packed as a whole or not: read from the first byte to the last, once; or, of one
that is not packed, disk by disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Callable, Iterator, Mapping, Sequence

from ..._appliances.machine import Machine
from ..._appliances.qm_reader import read_config
from ..._appliances.qm_words import CONFIG
from ..._appliances.refusals import refused
from ..._blocks import BlockSource
from ..._images.inspect.words import Limits, refusal
from ..._images.vma.packed import unpacked
from ..._images.vma.reader import VmaArchive
from ..._images.vma.stream import VmaStream
from ..._images.vma_header import MAGIC
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..._transfer.copy_stream import StreamedRun
from .appliance_machine import vm_of
from .image_file import ImageFile

_REQUEST = 4 << 20  # bytes


@dataclass(frozen=True)
class StoredVma:
    """`machine`: each of its disks has the name of its device as its file."""

    file: ImageFile
    machine: Machine
    identity: str  # of the archive as it was made: of what is in front of its disks
    is_packed: bool  # as a whole, so that it is read from its beginning alone

    @property
    def where(self) -> str:
        return self.file.where

    def vm(self) -> VmSpec:
        """Each disk takes at most as much room as it is large. Nobody knows how much of it is zeros."""
        vm = vm_of(self.machine, self.where)
        return vm.with_disks(tuple(replace(disk, allocated=disk.size) for disk in vm.disks))

    def runs(self, step: Callable[[], object] = lambda: None) -> Iterator[StreamedRun]:
        """Every byte of every disk once, of all disks at once. Ending without an error proves that it is whole; raises
        `invalid_config` otherwise. `step`: as in `VmaStream`.
        """
        numbers: Mapping[str, int] = {disk.file: number for number, disk in enumerate(self.machine.disks)}
        for run in _opened(self.file).runs(step):
            number = numbers.get(run.device.name)
            if number is not None:
                yield StreamedRun(number, run.offset, run.length, run.data)

    def disks(self, step: Callable[[], object]) -> Sequence[BlockSource]:
        """Those of the machine, of one that is not packed. The headers of all pieces are read first, with a call of
        `step` for each few, and tell that none is missing; raises `invalid_config` otherwise, and `unsupported` for
        one too large.
        """

        def read_at(offset: int, buffer: memoryview) -> None:
            step()
            self.file.read_at(offset, buffer)

        found = VmaArchive(read_at, self.file.size, self.where).disks
        return [found[disk.file] for disk in self.machine.disks]


def stored_vma(store: Store, key: str) -> StoredVma:
    """Reads its header. Raises `not_found`, `invalid_config`, and `unsupported` for what is packed in a way that
    nothing here unpacks."""
    file = ImageFile.at(store, key)
    start = bytearray(min(len(MAGIC), file.size))
    file.read_at(0, memoryview(start))
    header = _opened(file).header
    config = header.configs.get(CONFIG)
    if config is None:
        raise refused(file.where, f"has no configuration of a VM ({CONFIG})")
    sizes = {disk.name: disk.size for disk in header.disks}
    most = Limits().virtual_size
    if sum(sizes.values()) > most:
        raise refusal("virtual_size", f"has disks of {sum(sizes.values())} bytes, more than {most}", file.where)
    machine = read_config(config, sizes, file.name.partition(".vma")[0], file.where)
    mark = sha256(f"{file.state} ".encode() + header.pack()).hexdigest()
    return StoredVma(file, machine, f"appliance-{mark[:24]}", bytes(start) != MAGIC)


def _opened(file: ImageFile) -> VmaStream:
    return VmaStream(unpacked(_Forwards(file).read, file.where), file.where)


class _Forwards:
    """A file from its first byte on, in few requests."""

    def __init__(self, file: ImageFile) -> None:
        self._file, self._at, self._held = file, 0, memoryview(b"")

    def read(self, count: int) -> bytes:
        if not self._held:
            buffer = bytearray(min(_REQUEST, self._file.size - self._at))
            if buffer:
                self._file.read_at(self._at, memoryview(buffer))
            self._at += len(buffer)
            self._held = memoryview(buffer)
        found, self._held = bytes(self._held[:count]), self._held[count:]
        return found
