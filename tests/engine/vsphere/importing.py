# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs to be imported, and sessions that import them, with disks from memory."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Lock, current_thread
from typing import Any

from pyVmomi import vim

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import new_attempt
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement, ReadDisk
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, NicSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digest_check import LeafCheck
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress
from rigs.vsphere import VSphere

EXPORT = "20261121T063000Z-1a2b3c4d"
MIB = 1 << 20


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


SYSTEM = noise(1, 70_000) + bytes(3 * MIB) + noise(2, 128 * 1024)
SMALL = noise(5, 8192)
DATA = bytes(MIB) + noise(3, 512) + bytes(35 * MIB) + noise(4, 1000)


class Memory:
    """Plays BlockSource. `before` is called ahead of each read."""

    def __init__(self, data: bytes, before: Callable[[], object] = lambda: None) -> None:
        self._data, self._before, self.size = data, before, len(data)

    def extents(self) -> Any:
        yield Extent(0, self.size, "data")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._before()
        for offset, buffer in pieces:
            buffer[:] = self._data[offset : offset + len(buffer)]

    def close(self) -> None:
        return


class Import:
    """Imports that are made step by step, all but what the test asks for the same."""

    def __init__(self, provider: VsphereProvider, server: VSphere | None = None) -> None:
        self.provider = provider
        self.leases_before = list(server.leases()) if server is not None else []

    def run(
        self,
        vm: VmSpec,
        disks: Sequence[bytes],
        *,
        export: str = EXPORT,
        native: Mapping[str, bytes] | None = None,
        before: Callable[[], object] = lambda: None,
        workers: int | None = None,
        attempt: str = "0badcafe",
        check: LeafCheck | None = None,
        opened: list[Any] | None = None,
        **placement: Any,
    ) -> VmSpec:
        placed = Placement(**{"name": "new", "host": "DC0_H0", "storage": "LocalDS_0", **placement})
        job = Job("0" * 32, attempt)
        with self.provider.open_import(vm, native or {}, placed, export, job) as session:
            if opened is not None:
                opened.append(session)
            begun: list[int] = []
            read = [ReadDisk(Memory(data, before), DiskProgress("", len(data)), check) for data in disks]
            session.take(read, workers, begun.append)
            assert sorted(begun) == list(range(len(disks)))
            return session.commit()

    def together(self, vm: VmSpec, disks: Sequence[bytes], wanted: int, patience: float, **asked: Any) -> int:
        """How many of the disks were read at the same time, at the most. Until there are so many as are wanted, each
        waits so many seconds for the others."""
        lock, reading, most = Lock(), set(), [0]
        all_here = Event()

        def before() -> None:
            with lock:
                reading.add(current_thread().ident)
                most[0] = max(most[0], len(reading))
                if len(reading) >= wanted:
                    all_here.set()
            all_here.wait(patience)
            with lock:
                reading.discard(current_thread().ident)

        self.run(vm, disks, before=before, **asked)
        return most[0]

    def have_folder(self, name: str) -> None:
        if not any(one.name == name for one in self._all(vim.Folder)):
            next(one for one in self._all(vim.Datacenter)).vmFolder.CreateFolder(name)

    def have_pod(self, name: str, datastore: str) -> None:
        if not any(one.name == name for one in self._all(vim.StoragePod)):
            folder = next(one for one in self._all(vim.Datacenter)).datastoreFolder
            pod = folder.CreateStoragePod(name)
            pod.MoveIntoFolder_Task([in_datacenter(self.provider, vim.Datastore, datastore)])

    def _all(self, kind: type) -> Sequence[Any]:
        return everything(self.provider, kind)


def import_that_dies(failpoint: str, settings: dict[str, Any], name: str) -> None:
    """In a process of its own."""
    os.environ["VMFERRY_FAILPOINT"] = failpoint
    Import(VsphereProvider(settings)).run(a_vm(SYSTEM, SMALL), [SYSTEM, SMALL], name=name, attempt=new_attempt())


def killed_on_vsphere(failpoint: str, settings: dict[str, Any], name: str) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])  # which takes longer than all the rest
    child = processes.Process(target=import_that_dies, args=(failpoint, settings, name))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def everything(provider: VsphereProvider, kind: type) -> Sequence[Any]:
    def work(content: Any) -> Any:
        return content.viewManager.CreateContainerView(content.rootFolder, [kind], True).view

    found: Sequence[Any] = provider._session.read("Looking", work)
    return found


def in_datacenter(provider: VsphereProvider, kind: type, name: str) -> Any:
    return next(one for one in everything(provider, kind) if one.name == name)


def config_of(provider: VsphereProvider, name: str) -> Any:
    """As the API has it."""
    return in_datacenter(provider, vim.VirtualMachine, name).config


def a_vm(*disks: bytes, **changes: Any) -> VmSpec:
    """Off, with as many disks, in the words of libvirt unless `changes` say something else."""
    buses = changes.pop("buses", ["sata"] * len(disks))
    specs = tuple(
        DiskSpec(f"disk-{number}", f"vd{'abcdefgh'[number]}", len(data), "qcow2", bus, f"/images/{number}.qcow2")
        for number, (data, bus) in enumerate(zip(disks, buses))
    )
    made: dict[str, Any] = {
        "provider": "libvirt",
        "id": "6f1d2c0e-43a5-4d6d-8a06-0e6a4d7c1b52",
        "name": "web01",
        "path": "web01",
        "power_state": "powered_off",
        "cpu": 2,
        "memory_mb": 512,
        "firmware": "bios",
        "disks": specs,
        "nics": (NicSpec("nic-0", "52:54:00:12:34:56", "VM Network", "vmxnet3", "network"),),
    }
    return VmSpec(**{**made, **changes})
