# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two providers in memory, between which a VM of two small disks is migrated; what happens is written down in order."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engine.transfer.disks_in_memory import MemorySink, MemorySource

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    MigrateRequest,
    ProviderSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.migrate_vm import (
    PHASES_WITH_PROOF,
    _Migration,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import ExportDisk, Placement, Undone
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.finding import Finding
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, VmSpec

UUID = "1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77"
SYSTEM = random.Random(1).randbytes(3 * LEAF + 512)
DATA = random.Random(2).randbytes(LEAF) + bytes(40 * LEAF) + random.Random(3).randbytes(LEAF)
HOLE = [Extent(0, LEAF, "data"), Extent(LEAF, 40 * LEAF, "zero"), Extent(41 * LEAF, LEAF, "data")]
DISKS = (
    DiskSpec("disk-0", "vda", len(SYSTEM), "qcow2", "virtio", "/vda", boot=True),
    DiskSpec("disk-1", "vdb", len(DATA), "qcow2", "virtio", "/vdb", allocated=2 * LEAF),
)
VM = VmSpec("libvirt", UUID, "web01", "web01", "powered_on", 1, 2048, "bios", DISKS)
IDENTITY = f"libvirt:{UUID}"


def nothing() -> None:
    return None


@dataclass
class Ends:
    """`events`: what was done, in its order. Hooks run at their events."""

    state: Path
    vm: VmSpec = VM
    reads_zero: bool = True
    reads_back: bool = True
    at_once: int = 1  # disks that are best read side by side
    before_read: Callable[[str], object] = lambda disk: None  # is told which
    sector: int = 1  # new disks are whole ones
    accounts: tuple[str, str] = ("here", "there")
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    present: tuple[VmSpec, str] | None = None
    events: list[str] = field(default_factory=list)
    hooks: dict[str, Callable[[], object]] = field(default_factory=dict)
    sinks: list[MemorySink] = field(default_factory=list)
    new: VmSpec | None = None
    otherwise: str = ""
    job: RunningJob | None = None

    def happens(self, event: str) -> None:
        self.events.append(event)
        self.hooks.get(event, nothing)()

    def migrate(
        self, *, check_mode: bool = False, transfer: dict[str, Any] | None = None, **asked: Any
    ) -> dict[str, Any]:
        options = TransferOptions(**{"state_dir": str(self.state), "parallel": 2, **(transfer or {})})
        fields: dict[str, Any] = {"placement": Placement("web02"), "transfer": options, **asked}
        request = MigrateRequest(ProviderSpec("libvirt"), ProviderSpec("libvirt"), "web01", **fields)
        with RunningJob.start("migrate", options, "web01", "", PHASES_WITH_PROOF, check_mode) as self.job:
            ends: Any = (_Source(self), _Destination(self))
            return _Migration(request, self.job, *ends).run(check_mode)


class _Source:
    name, max_jobs, exports_leave = "libvirt", 1, True

    def __init__(self, ends: Ends) -> None:
        self._ends, self.account = ends, ends.accounts[0]

    def describe(self, vm: str) -> VmSpec:
        self._ends.happens("described")
        return self._ends.vm

    def check_export(self, *_unused: object) -> list[Finding]:
        return self._ends.findings.get("export", [])

    def clean_up(
        self, vm: VmSpec, *, held_by: Collection[str] | None = None, dead: Collection[str] = ()
    ) -> list[Undone]:
        self._ends.happens("source cleaned up")
        return []

    @contextmanager
    def open_export(self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: str, job: Job) -> Iterator[Any]:
        ends = self._ends
        ends.happens("frozen")
        content = {
            "vda": MemorySource(SYSTEM, before_read=lambda _number: ends.before_read("vda")),
            "vdb": MemorySource(DATA, HOLE, lambda _number: ends.before_read("vdb")),
        }
        try:
            yield SimpleNamespace(
                vm=replace(vm, disks=vm.disks),
                taken_at=1_700_000_000.0,
                consistency="crash_consistent",
                disks=[ExportDisk(disk, content[disk.name]) for disk in disks],
                native={"domain.xml": b"<domain/>"},
                at_once=ends.at_once,
                warnings=[],
                confirm=lambda: ends.happens("confirmed"),
            )
        finally:
            ends.happens("thawed")


class _Destination:
    name, max_jobs = "memory", 1

    def __init__(self, ends: Ends) -> None:
        self._ends, self.account, self.reads_back = ends, ends.accounts[1], ends.reads_back

    def imported(self, name: str, folder: str = "") -> tuple[VmSpec, str] | None:
        return self._ends.present

    def made_otherwise(self, vm: VmSpec, placement: Placement) -> str:
        return self._ends.otherwise

    def clean_up_imports(self) -> list[tuple[str, str]]:
        self._ends.happens("destination cleaned up")
        return []

    def check_import(self, vm: VmSpec, placement: Placement, export_id: str) -> list[Finding]:
        self._ends.happens(f"checked {vm.firmware}")
        return self._ends.findings.get("import", [])

    def start(self, vm: VmSpec) -> VmSpec:
        self._ends.happens("started")
        return replace(vm, power_state="powered_on")

    @contextmanager
    def open_import(
        self, vm: VmSpec, native: dict[str, bytes], placement: Placement, export_id: str, job: Job
    ) -> Iterator[Any]:
        ends, kept = self._ends, []
        assert (export_id, native) == (IDENTITY, {"domain.xml": b"<domain/>"})
        ends.new = vm
        sizes = [-(-disk.size // ends.sector) * ends.sector for disk in vm.disks]
        ends.sinks = [MemorySink(size, ends.reads_zero, lambda: ends.happens("written")) for size in sizes]

        def commit() -> VmSpec:
            ends.happens("committed")
            kept.append(True)
            ends.present = (replace(vm, name=placement.name, id="new", power_state="powered_off"), export_id)
            return ends.present[0]

        def read_back() -> list[MemorySource]:
            ends.happens("read back")
            return [MemorySource(bytes(sink.data)) for sink in ends.sinks]

        try:
            yield SimpleNamespace(takes_disks=False, sinks=ends.sinks, warnings=[], commit=commit, read_back=read_back)
        finally:
            if not kept:
                ends.happens("undone")
