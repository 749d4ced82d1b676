# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a provider is: a hypervisor or cloud that has VMs, seen as blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ContextManager, Literal, Mapping, Sequence

from .._blocks import BlockSink, BlockSource
from .spec import DiskSpec, VmSpec

Consistency = Literal["auto", "quiesced", "crash_consistent", "powered_off"]
Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One line of a preflight. An `error` means that the real run would fail; `kind` is that failure's."""

    severity: Severity
    message: str
    hint: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Job:
    """Whose work this is; in the name or description of everything that is made on a provider."""

    job_id: str
    attempt: str  # 8 hex digits, the export's or import's own
    chain: str = ""  # 8 hex digits

    @property
    def token(self) -> str:
        return f"vmferry-{self.chain}-{self.attempt}"


@dataclass(frozen=True)
class ExportDisk:
    spec: DiskSpec
    source: BlockSource


class ExportSession(ABC):
    """A frozen point in time. Entering freezes, leaving removes every trace, whatever happened in between."""

    vm: VmSpec  # as it was when the point in time was taken
    taken_at: float  # seconds since the epoch
    consistency: Consistency  # what was reached, never `auto`
    disks: Sequence[ExportDisk]
    native: Mapping[str, bytes]  # the provider's own description, by file name
    warnings: Sequence[str]

    @abstractmethod
    def confirm(self) -> None:
        """After the last read, before the export commits: raises if the point in time did not hold."""


class ImportSession(ABC):
    """Fresh disks, being filled. Leaving without `commit` removes every trace."""

    sinks: Sequence[BlockSink]
    warnings: Sequence[str]

    @abstractmethod
    def commit(self) -> VmSpec:
        """Make the VM of the disks, durable, and start it if that was asked."""


@dataclass(frozen=True)
class Placement:
    """How an import lands: everything a task may vary. Options a provider does not know are refused by it."""

    name: str
    storage: str = ""  # pool or folder; empty: the provider's default
    disk_format: str = ""  # empty: the provider's default
    disk_bus: str = ""  # empty: as exported
    network_map: Mapping[str, str] = field(default_factory=dict)
    storage_map: Mapping[str, str] = field(default_factory=dict)  # by the disk's id or name
    keep_mac: bool = False
    power_on: bool = False
    firmware: str = ""  # empty: as exported


class Provider(ABC):
    """Raises `VmferryError`. VMs are named as users name them: by name, UUID or inventory path."""

    name: str
    has_tags = False  # whether VMs can carry words to find them by
    max_jobs: int  # transfers at once that do a hypervisor or an account no harm, unless the user knows better

    @property
    @abstractmethod
    def account(self) -> str:
        """What `max_jobs` counts on: one hypervisor, or one account at a cloud."""

    @abstractmethod
    def vms(self) -> Sequence[VmSpec]:
        """All that this connection may see, in few round trips."""

    @abstractmethod
    def describe(self, vm: str) -> VmSpec: ...

    @abstractmethod
    def check_export(self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency) -> Sequence[Finding]:
        """Everything that would stop or weaken an export, without changing anything."""

    @abstractmethod
    def open_export(
        self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency, job: Job
    ) -> ContextManager[ExportSession]: ...

    @abstractmethod
    def imported(self, name: str) -> tuple[VmSpec, str] | None:
        """The VM of that name, if any, and the id of the export that an import of ours made it from (or '')."""

    @abstractmethod
    def check_import(self, vm: VmSpec, placement: Placement, export_id: str) -> Sequence[Finding]: ...

    @abstractmethod
    def open_import(
        self, vm: VmSpec, native: Mapping[str, bytes], placement: Placement, export_id: str, job: Job
    ) -> ContextManager[ImportSession]:
        """`vm` as it was exported; one sink per disk of it, in its order."""

    @abstractmethod
    def start(self, vm: VmSpec) -> VmSpec:
        """Power it on; what it is afterwards."""

    @abstractmethod
    def clean_up(self, vm: VmSpec) -> Sequence[str]:
        """Undo what dead runs of ours left on this VM; returns a sentence each. Raises `busy` for a living one's."""

    @abstractmethod
    def undo(self, job_id: str) -> Sequence[str]:
        """Undo what this job, which is dead, left on this host; a sentence each. Raises `busy` if it lives."""

    def close(self) -> None:
        """Release the connection."""
