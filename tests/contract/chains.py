# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains of real exports of a VM with two disks in memory, and what each of them held."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.operations.one_vm import VM, OneVm

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import vm_folder
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import UNCHECKED, Seals
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import PHASES, _Export
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.readable_chain import (
    held_still,
    readable_chain,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.stored_disk import layers_of
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.stored_proof import copy_checked
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import ExportDisk
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store

LEAF = 65536
SIZES = {"disk-0": 24 * LEAF, "disk-1": 3 * LEAF + 1000}  # the last leaf of the second one is short
HOME = vm_folder("web01", VM.id)
Disks = dict[str, bytes]


class MemoryDisk:
    """Plays BlockSource and BlockSink."""

    reads_zero = True

    def __init__(self, data: bytes, reading: Callable[[], object] = lambda: None) -> None:
        self.data, self.size, self._reading = bytearray(data), len(data), reading

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, "data")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._reading()
        for offset, buffer in pieces:
            buffer[:] = self.data[offset : offset + len(buffer)]

    def write(self, pieces: Sequence[Piece]) -> None:
        for offset, buffer in pieces:
            self.data[offset : offset + len(buffer)] = buffer

    def zero(self, offset: int, length: int) -> None:
        self.data[offset : offset + length] = bytes(length)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class Guest(OneVm):
    """`reading` runs before each read of its disks."""

    def __init__(self, seed: object = 1) -> None:
        super().__init__()
        self._random = random.Random(repr(seed))
        self.disks = {name: bytearray(self._random.randbytes(size)) for name, size in SIZES.items()}
        self.reading: Callable[[], object] = lambda: None
        specs = [
            DiskSpec(name, f"vd{'ab'[number]}", SIZES[name], "raw", "virtio", f"/{name}")
            for number, name in enumerate(SIZES)
        ]
        self.vm = VM.with_disks(tuple(specs))

    def describe(self, vm: str) -> Any:
        return self.vm

    @contextmanager
    def open_export(self, *_unused: object) -> Iterator[Any]:
        with super().open_export() as session:
            session.vm = self.vm
            session.disks = [
                ExportDisk(spec, MemoryDisk(bytes(self.disks[spec.id]), self.reading)) for spec in self.vm.disks
            ]
            yield session

    def write(self, disk: str, leaf: int) -> None:
        end = min((leaf + 1) * LEAF, SIZES[disk])
        self.disks[disk][leaf * LEAF : end] = self._random.randbytes(end - leaf * LEAF)

    def clear(self, disk: str, leaf: int) -> None:
        end = min((leaf + 1) * LEAF, SIZES[disk])
        self.disks[disk][leaf * LEAF : end] = bytes(end - leaf * LEAF)

    def write_some(self) -> None:
        for name, size in SIZES.items():
            leaves = -(-size // LEAF)
            for _unused in range(self._random.randrange(1, 4)):
                change = self.clear if self._random.random() < 0.3 else self.write
                change(name, self._random.randrange(leaves))

    @property
    def now(self) -> Disks:
        return {name: bytes(data) for name, data in self.disks.items()}


def export(spec: StoreSpec, guest: Guest, state: Path, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    """The result of `vm_export`."""
    transfer = TransferOptions(state_dir=str(state), max_retries=0)
    asked = ExportRequest(ProviderSpec("libvirt"), spec, "web01", transfer=transfer, **options)
    with (
        RunningJob.start("export", transfer, "web01", spec.url, PHASES, check_mode) as job,
        closing(job.open_store(spec)) as store,
    ):
        return _Export(asked, job, guest, store).run(check_mode)  # type: ignore[arg-type]


@dataclass
class Chain:
    """`ids`, the oldest first, and what each export's disks held."""

    ids: list[str] = field(default_factory=list)
    held: dict[str, Disks] = field(default_factory=dict)

    def add(self, made: str, disks: Disks) -> None:
        self.ids.append(made)
        self.held[made] = disks


def restored(store: Store, export_id: str, seals: Seals = UNCHECKED) -> Disks:
    """As `vm_import` reads it, every leaf checked."""
    catalog = Catalog(store, seals)
    entry = catalog.find(export_id)
    chain = readable_chain(store, entry, catalog.beside(entry))
    job = RunningJob("restore", TransferOptions(), None, {"importing": 1.0})
    found = {}
    for disk in entry.manifest.disks:
        sink = MemoryDisk(bytes(disk.size))
        progress = job.progress.new_disk(disk.id, disk.size)
        with held_still(job, store, chain):
            copy_checked(job, store, layers_of(chain, disk.id), sink, progress)
        found[disk.id] = bytes(sink.data)
    return found


def there(store: Store) -> list[str]:
    """Ids of the exports that are listed."""
    whole, broken = Catalog(store).read()
    assert broken == []
    return [entry.manifest.export_id for entry in whole]


def assert_whole(store: Store, chain: Chain, *, tools: bool = False) -> list[str]:
    """Every export that is listed comes back byte for byte; with `tools` by qemu-img alone, too, in a folder."""
    listed = there(store)
    for one in listed:
        assert restored(store, one) == chain.held[one], f"{one} is not what it was"
        if tools and store.url.startswith("file://"):
            for name, data in chain.held[one].items():
                assert_opened_by_qemu(Path(store.url.removeprefix("file://")) / HOME / one / f"{name}.qcow2", data)
    return listed


def assert_opened_by_qemu(image: Path, data: bytes) -> None:
    subprocess.run(["qemu-img", "check", "-q", str(image)], check=True)
    target = image.with_suffix(".flat")
    try:
        subprocess.run(["qemu-img", "convert", "-O", "raw", str(image), str(target)], check=True)
        flat = target.read_bytes()
    finally:
        target.unlink(missing_ok=True)
    assert flat[: len(data)] == data
    assert not any(flat[len(data) :])
