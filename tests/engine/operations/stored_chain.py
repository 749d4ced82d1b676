# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A full export and two increments of a VM with two disks, in a folder; to be damaged, and looked at again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from one_vm import VM, OneVm

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import PHASES, _Export
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ImageFormat,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_exports import list_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import ExportDisk
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec

LEAF = 65536
MIB = 1 << 20
SIZES = {"disk-0": 18 * MIB, "disk-1": 300_000}  # three parts; and a last leaf that is short
Level = Literal["manifest", "stored", "content", "boot"]


class Disk:
    """Plays BlockSource."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, "data")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for offset, buffer in pieces:
            buffer[:] = self._data[offset : offset + len(buffer)]

    def close(self) -> None:
        pass


class TwoDisks(OneVm):
    def __init__(self) -> None:
        super().__init__()
        self.disks = {name: bytearray(random.Random(name).randbytes(size)) for name, size in SIZES.items()}
        specs = (
            DiskSpec(name, f"vd{'ab'[number]}", SIZES[name], "raw", "virtio", f"/{name}")
            for number, name in enumerate(SIZES)
        )
        self.vm = VM.with_disks(tuple(specs))

    def describe(self, vm: str) -> Any:
        return self.vm

    @contextmanager
    def open_export(self, *_unused: object) -> Iterator[Any]:
        with super().open_export() as session:
            session.vm = self.vm
            session.disks = [ExportDisk(spec, Disk(bytes(self.disks[spec.id]))) for spec in self.vm.disks]
            yield session

    def write(self, disk: str, leaf: int, fill: int) -> None:
        end = min((leaf + 1) * LEAF, SIZES[disk])
        self.disks[disk][leaf * LEAF : end] = random.Random(f"{leaf} {fill}").randbytes(end - leaf * LEAF)


class StoredChain:
    """`ids` of the exports, oldest first. `disks`: what the newest of them holds."""

    def __init__(self, folder: Path, ids: Sequence[str] = (), disks: dict[str, bytearray] | None = None) -> None:
        self.folder, self.store = folder, folder / "store"
        self.ids, self.disks = list(ids), disks or {}

    @property
    def options(self) -> TransferOptions:
        return TransferOptions(state_dir=str(self.folder / "state"), max_retries=0)

    def export(self, provider: TwoDisks, format: ImageFormat = "qcow2") -> str:
        store = StoreSpec(str(self.store))
        request = ExportRequest(ProviderSpec("libvirt"), store, "web01", format=format, transfer=self.options)
        with (
            RunningJob.start("export", self.options, "web01", store.url, PHASES, False) as job,
            closing(job.open_store(store)) as opened,
        ):
            made: str = _Export(request, job, provider, opened).run(False)["export"]["id"]  # type: ignore[arg-type]
        self.ids.append(made)
        self.disks = {name: bytearray(data) for name, data in provider.disks.items()}
        return made

    def verify(self, level: Level = "content", *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        asked: dict[str, Any] = {"transfer": self.options, **options}
        return verify_export(VerifyRequest(StoreSpec(str(self.store)), level, **asked), check_mode)

    def problems(self, level: Level = "content", **options: Any) -> list[dict[str, Any]]:
        """Of an export that does not pass."""
        with pytest.raises(VmferryError) as caught:
            self.verify(level, **options)
        error = caught.value
        assert error.kind == "checksum_mismatch", error
        assert not error.retryable
        found: list[dict[str, Any]] = list(error.done["problems"])
        assert error.message.startswith(found[0]["problem"])
        assert all("\n" not in one["problem"] for one in found)
        return found

    def told(self) -> dict[str, Any]:
        """What `export_info` tells of the newest export."""
        (export,) = list_exports(StoreSpec(str(self.store)), "", self.ids[-1], [], "", False)["exports"]
        return dict(export)

    def path(self, number: int, name: str) -> Path:
        """Of an object of the export of this number."""
        (vm,) = self.store.iterdir()
        return vm / self.ids[number] / name

    def change(self, number: int, name: str, how: Callable[[bytes], bytes]) -> None:
        path = self.path(number, name)
        path.write_bytes(how(path.read_bytes()))

    def flip(self, number: int, name: str, at: int) -> None:
        """One bit."""
        self.change(number, name, lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])

    def place(self, number: int, disk: str, leaf: int) -> int:
        """Where a leaf of the disk lies in the image of this export, which holds it as the newest one has it."""
        data = bytes(self.disks[disk][leaf * LEAF : (leaf + 1) * LEAF])
        found = self.path(number, f"{disk}.qcow2").read_bytes().find(data)
        assert found > 0
        return found

    def change_manifest(self, number: int, how: Callable[[dict[str, Any]], object]) -> None:
        path = self.path(number, "manifest.json")
        document = json.loads(path.read_text())
        how(document["x_vmferry"])
        path.write_text(json.dumps(document))


def make_chain(folder: Path) -> StoredChain:
    """Leaf 3 of disk-0 is the first increment's, leaf 4 the second's, leaf 5 is of both; all else is the full one's.
    Of disk-1, the last leaf is the second's."""
    chain, provider = StoredChain(folder), TwoDisks()
    chain.export(provider)
    for leaf in (3, 5):
        provider.write("disk-0", leaf, 1)
    chain.export(provider)
    for leaf in (4, 5):
        provider.write("disk-0", leaf, 2)
    provider.write("disk-1", 4, 2)
    chain.export(provider)
    return chain
