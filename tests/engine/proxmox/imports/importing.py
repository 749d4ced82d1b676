# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that are imported, and imports of them."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import new_attempt
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, NicSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.copy_blocks import copy_blocks
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits

EXPORT = "20261121T063000Z-1a2b3c4d"
KIB, MIB = 1 << 10, 1 << 20
PATIENCE = 60.0  # seconds for a process that dies


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


SYSTEM = noise(1, 70 * KIB) + bytes(3 * MIB) + noise(2, 128 * KIB)
SMALL = noise(5, 8 * KIB)


class Memory:
    """Plays BlockSource."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def extents(self) -> Any:
        yield Extent(0, self.size, "data")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for offset, buffer in pieces:
            buffer[:] = self._data[offset : offset + len(buffer)]

    def close(self) -> None:
        return


def a_vm(*disks: bytes, provider: str = "libvirt", bus: str = "virtio", **told: Any) -> VmSpec:
    specs = tuple(
        DiskSpec(f"disk-{number}", f"vd{'abcdefghijklmnopqrstuvwxyz'[number]}", len(data), "qcow2", bus, "/x")
        for number, data in enumerate(disks or (SMALL,))
    )
    values: dict[str, Any] = {
        "provider": provider,
        "id": "6f1c2f6e-0d0c-4a52-9a57-0c8c6ee5a001",
        "name": "source",
        "path": "source",
        "power_state": "powered_off",
        "cpu": 2,
        "memory_mb": 512,
        "firmware": "bios",
        "disks": specs,
        "nics": (NicSpec("nic-0", "52:54:00:aa:bb:01", "vmbr0", "virtio", "bridge"),),
        **told,
    }
    return VmSpec(**values)


class Importing:
    """Imports that are made step by step, all but what the test asks for the same."""

    def __init__(self, provider: ProxmoxProvider) -> None:
        self.provider = provider

    def run(
        self,
        vm: VmSpec,
        disks: Sequence[bytes],
        *,
        export: str = EXPORT,
        native: Mapping[str, bytes] | None = None,
        job: str = "",
        attempt: str = "",
        begun: Callable[[Any], object] = lambda session: None,
        written: Callable[[Any], object] = lambda session: None,
        **placement: Any,
    ) -> VmSpec:
        """`begun` and `written`: what happens between the steps, with the session."""
        placed = Placement(**{"name": "new", "storage": "local", **placement})
        owner = Job(job or os.urandom(16).hex(), attempt or new_attempt())
        with self.provider.open_import(vm, native or {}, placed, export, owner) as session:
            begun(session)
            for data, sink in zip(disks, session.sinks):
                copy(data, sink)
            written(session)
            return session.commit()


def copy(data: bytes, sink: Any) -> None:
    copy_blocks(Memory(data), sink, None, limits=Limits.within(4 * MIB, any_offset=True), flow=Flow())


def read(source: Any) -> bytes:
    """As far as it goes, also where it says that there is nothing."""
    found = bytearray(source.size)
    source.read_into([(0, memoryview(found))])
    return bytes(found)


def _import_that_dies(failpoint: str, settings: dict[str, Any], placement: dict[str, Any], job: str) -> None:
    os.environ["VMFERRY_FAILPOINT"] = failpoint
    Importing(ProxmoxProvider(settings)).run(a_vm(SYSTEM), [SYSTEM], job=job, **placement)


def killed(failpoint: str, settings: dict[str, Any], job: str, **placement: Any) -> None:
    """An import in a process of its own, which is killed there."""
    process = multiprocessing.get_context("spawn").Process(
        target=_import_that_dies, args=(failpoint, settings, placement, job)
    )
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -9, f"it did not die at {failpoint}: {process.exitcode}"
