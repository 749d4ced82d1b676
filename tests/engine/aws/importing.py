# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs to be imported into AWS, and sessions that import them, with disks from memory."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import new_attempt
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import import_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ImportRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import (
    import_leftovers,
    import_task,
    import_waits,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import new_snapshot as begun
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.provider import AwsProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import ImportSession, Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, NicSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.copy_blocks import copy_blocks
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.retry import RetryPolicy

EXPORT = "20261121T063000Z-1a2b3c4d"
KIB, MIB = 1 << 10, 1 << 20
BLOCK = 512 * KIB
QUICK = RetryPolicy(max_retries=6, base=0.01, cap=0.05)


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


SYSTEM = noise(1, 700_000) + bytes(3 * MIB) + noise(2, 128 * KIB)
SMALL = noise(3, 777)


class Memory:
    """Plays BlockSource, of which zeros are told. `before` is called ahead of each read."""

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


def in_no_time(patch: Callable[[Any, str, Any], None]) -> None:
    """What AWS takes minutes for takes the rig none."""
    patch(import_waits, "LOOK_FIRST", 0.01)
    patch(begun, "_POLICY", QUICK)
    patch(begun, "_SEALED_WITHIN", 0.5)
    patch(import_leftovers, "_POLICY", QUICK)
    patch(import_task, "LOOK_EVERY", 0.02)


class Import:
    """Imports that are made step by step, all but what the test asks for the same."""

    def __init__(self, provider: AwsProvider) -> None:
        self.provider = provider

    def run(
        self,
        *disks: bytes,
        vm: VmSpec | None = None,
        export: str = EXPORT,
        attempt: str = "",
        before: Callable[[], object] = lambda: None,
        opened: list[ImportSession] | None = None,
        flow: Flow | None = None,
        **placement: Any,
    ) -> VmSpec:
        disks = disks or (SYSTEM, SMALL)
        placed = Placement(**{"name": "new", "power_on": True, **placement})
        job = Job("0" * 32, attempt or new_attempt())
        with self.provider.open_import(vm or a_vm(*disks), {}, placed, export, job) as session:
            if opened is not None:
                opened.append(session)
            for sink, data in zip(session.sinks, disks):
                limits = Limits.of_transfer(False, None)
                copy_blocks(Memory(data, before), sink, None, limits=limits, flow=flow or Flow())
            return session.commit()


def import_that_dies(failpoint: str, settings: dict[str, Any], name: str, stop_at: str) -> None:
    """In a process of its own."""
    os.environ["VMFERRY_FAILPOINT"] = failpoint
    in_no_time(setattr)
    Import(AwsProvider(settings)).run(name=name, power_on=not stop_at, stop_at=stop_at)


def run_that_dies(failpoint: str, request: ImportRequest) -> None:
    """As `import_that_dies`, of all that a task asks for."""
    os.environ["VMFERRY_FAILPOINT"] = failpoint
    in_no_time(setattr)
    import_vm(request, False)


def killed_on_aws(failpoint: str, settings: dict[str, Any], name: str, stop_at: str = "") -> None:
    killed(import_that_dies, failpoint, settings, name, stop_at)


def killed_run(failpoint: str, request: ImportRequest) -> None:
    killed(run_that_dies, failpoint, request)


def killed(work: Callable[..., None], *arguments: Any) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, f"{__package__}.models_read"])  # which takes longer than all the rest
    child = processes.Process(target=work, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def a_vm(*disks: bytes, **changes: Any) -> VmSpec:
    """Off, with as many disks, in the words of libvirt unless `changes` say something else."""
    specs = tuple(
        DiskSpec(f"disk-{number}", f"vd{chr(ord('a') + number)}", len(data), "qcow2", "virtio", f"/{number}.qcow2")
        for number, data in enumerate(disks)
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
        "nics": (NicSpec("nic-0", "52:54:00:12:34:56", "default", "virtio", "network"),),
    }
    return VmSpec(**{**made, **changes})
