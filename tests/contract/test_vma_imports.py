# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of Proxmox VE in every kind of store: their machine, and all of their disks in one pass."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard
from engine.images.test_vma import disks, shuffled
from engine.images.vma_archives import Archive, clusters_of
from engine.transfer.disks_in_memory import MemorySink

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.importing.import_vma import _PackedVma
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.read_vma import stored_vma
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import Progress

from .dav_rig import NginxDavRig
from .store_rigs import S3Rig

__all__ = ["disks"]
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "web.vma": bytes,
    "web.vma.gz": lambda data: gzip.compress(data, 1),
    "web.vma.zst": lambda data: zstandard.compress(data, 1),
}
CONFIG = b"""\
boot: order=virtio1
cores: 3
name: web
scsi0: a:vm-1-disk-0,size=5M
virtio1: a:vm-1-disk-1
#qmdump#map:scsi0:drive-scsi0:a:raw:
"""


@pytest.fixture(params=["path", "bucket", "dav"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "path":
        with closing(open_store(str(tmp_path / "store"), {})) as opened:
            yield opened
        return
    rig: S3Rig | NginxDavRig = request.getfixturevalue("s3" if request.param == "bucket" else "nginx_dav")
    with closing(rig.fresh()) as opened:
        yield opened


def archive(disks: dict[str, bytes]) -> bytes:
    made = shuffled(disks)
    made.configs = [("qemu-server.conf", CONFIG)]
    return made.whole()


def test_a_machine_and_its_disks_come_out(store: Store, disks: dict[str, bytes]) -> None:
    for name, pack in PACKED.items():
        store.put(name, pack(archive(disks)))
        found = stored_vma(store, name)
        assert stored_vma(store, name).identity == found.identity
        vm = found.vm()
        assert (vm.name, vm.cpu, vm.memory_mb, vm.firmware) == ("web", 3, 512, "bios")
        assert [(disk.name, disk.bus, disk.boot) for disk in vm.disks] == [
            ("virtio1", "virtio", True),
            ("scsi0", "scsi", False),
        ]
        read = [bytearray(b"\xa5" * disk.size) for disk in vm.disks]
        for run in found.runs():
            piece = bytes(run.length) if run.data is None else run.data
            read[run.disk][run.offset : run.offset + run.length] = piece
        assert read == [disks["drive-virtio1"], disks["drive-scsi0"]]


@pytest.mark.parametrize("stopped", [False, True])
def test_the_disk_that_is_read_is_told_and_a_cancellation_is_seen_while_memory_is_passed_over(
    tmp_path: Path, stopped: bool
) -> None:
    disk, state, flow = b"d" * 4 * LEAF, b"s" * 59 * 2 * LEAF, Flow()
    told: list[str] = []
    steps: list[None] = []
    clusters = [*clusters_of(1, disk), *clusters_of(2, state), *clusters_of(3, disk)]
    devices = [(1, "drive-scsi0", len(disk)), (2, "vmstate", len(state)), (3, "drive-virtio1", len(disk))]
    progress = Progress({"importing": 1.0})
    progress.enter("importing", [progress.new_disk(name, len(disk)) for name in ("virtio1", "scsi0")])

    class Sink(MemorySink):
        def write(self, pieces: Sequence[Piece]) -> None:
            super().write(pieces)
            told.append(progress.where)

    def going_on() -> None:
        steps.append(None)
        if stopped and len(steps) == 3:  # within the memory
            flow.stop(VmferryError("cancelled", "Somebody cancelled it."))
        RunningJob.going_on(job)

    with closing(open_store(str(tmp_path / "store"), {})) as store:
        store.put("web.vma", Archive(devices, clusters, [("qemu-server.conf", CONFIG)]).whole())
        limits = Limits(1, len(disk), 8 << 20, 0)
        job: Any = SimpleNamespace(flow=flow, limits=limits, progress=progress, going_on=going_on)
        session: Any = SimpleNamespace(takes_disks=False, sinks=[Sink(len(disk)), Sink(len(disk))])
        packed = _PackedVma(stored_vma(store, "web.vma"))
        if stopped:
            with pytest.raises(VmferryError, match="Somebody cancelled"):
                packed.copy(job, session)
        else:
            packed.copy(job, session)
    assert told == ["importing scsi0", "importing virtio1"][: 1 if stopped else 2]


def test_another_archive_under_its_name_is_another_one(store: Store, disks: dict[str, bytes]) -> None:
    store.put("web.vma", archive(disks))
    found = stored_vma(store, "web.vma")
    longer = {
        **disks,
        "drive-scsi0": disks["drive-scsi0"] + b"x" * 65536,
    }  # servers tell files by their length and second
    store.put("web.vma", archive(longer))
    assert stored_vma(store, "web.vma").identity != found.identity
    with pytest.raises(VmferryError, match="changed while it was read") as told:
        found.file.insist_on_no_change()
    assert told.value.kind == "conflict"


@pytest.mark.parametrize(
    ("name", "data", "kind", "words"),
    [
        ("web.vma", b"nothing of the kind" * 1000, "invalid_config", "is no VMA"),
        ("web.vma.lzo", b"\x89LZO\0\r\n\x1a\n and more", "unsupported", "packed with LZO"),
        ("web.vma.gz", b"\x1f\x8b\x08 and no more than that", "invalid_config", "cannot be unpacked"),
        ("web.vma", b"", "invalid_config", "ends early"),
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, name: str, data: bytes, kind: str, words: str) -> None:
    with closing(open_store(str(tmp_path / "store"), {})) as store:
        store.put(name, data)
        with pytest.raises(VmferryError, match=words) as refused:
            stored_vma(store, name)
        assert refused.value.kind == kind


def test_an_archive_without_a_configuration_or_of_more_than_anybody_has_is_refused(
    tmp_path: Path, disks: dict[str, bytes]
) -> None:
    with closing(open_store(str(tmp_path / "store"), {})) as store:
        bare, huge = shuffled(disks), shuffled(disks)
        bare.configs, huge.devices = [], [(1, "drive-scsi0", 65 << 40)]
        store.put("bare.vma", bare.whole())
        store.put("huge.vma", huge.whole())
        for name, words in (("bare.vma", "no configuration"), ("huge.vma", "virtual_size")):
            with pytest.raises(VmferryError, match=words):
                stored_vma(store, name)
