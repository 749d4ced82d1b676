# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of a VM, seen alike on every provider that has them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, Collection, Literal, Sequence

from .finding import Finding
from .job import Job
from .spec import PowerState

SnapshotMethod = Literal["auto", "internal", "external"]
Quiesce = Literal["auto", "required", "never"]


@dataclass(frozen=True)
class SnapshotWish:
    """What a new one is to be."""

    name: str
    memory: bool = False
    quiesce: Quiesce = "auto"
    method: SnapshotMethod = "auto"
    temporary: bool = False  # to be removed by whoever finds that the process which made it is dead


@dataclass(frozen=True)
class SnapshotDisk:
    name: str  # the provider's own, as in DiskSpec
    image: str  # that holds the disk as it was
    overlay: str = ""  # that takes what was written since; empty where it is the same image


@dataclass(frozen=True)
class Snapshot:
    name: str
    created: str  # ISO 8601, UTC
    description: str
    current: bool  # the VM's present stands on it directly
    parent: str
    children: tuple[str, ...]
    power_state: PowerState  # of the VM at that moment
    memory: bool
    method: str  # internal, external, or empty where it holds no disk
    disks: tuple[SnapshotDisk, ...]
    ours: bool  # made by this collection, for this VM
    job: str = ""  # of ours
    consistency: str = ""  # of ours: what its disks alone are
    whole: bool = True  # not so once its removal has begun

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "children": list(self.children), "disks": [asdict(disk) for disk in self.disks]}


class SnapshotService(ABC):
    """Of one VM. `seconds`: for the whole call, which then raises `timeout` and leaves the VM as usable as it was.

    `check_…` changes nothing; what it finds is what would stop or weaken the real call.
    """

    @abstractmethod
    def list(self) -> Sequence[Snapshot]:
        """The oldest first."""

    @abstractmethod
    def chosen_method(self, wish: SnapshotWish) -> str: ...

    @abstractmethod
    def check_create(self, wish: SnapshotWish) -> Sequence[Finding]: ...

    @abstractmethod
    def create(self, wish: SnapshotWish, job: Job, seconds: float) -> Sequence[str]:
        """Returns warnings."""

    @abstractmethod
    def check_remove(self, name: str, gone: Collection[str] = ()) -> Sequence[Finding]:
        """`gone`: names of others that will be removed before."""

    @abstractmethod
    def remove(self, name: str, job: Job, seconds: float) -> Sequence[str]:
        """The VM keeps what was written since: it goes into what the snapshot held. Returns warnings."""

    @abstractmethod
    def check_revert(self, name: str) -> Sequence[Finding]: ...

    @abstractmethod
    def revert(self, name: str, job: Job, seconds: float) -> Sequence[str]:
        """What was written since is lost. Returns warnings, such as that change tokens were dropped."""

    def needs_consolidation(self) -> bool:
        """Whether disks of no snapshot any more are left, which `consolidate` merges."""
        return False

    def check_consolidate(self) -> Sequence[Finding]:
        return ()

    def consolidate(self, job: Job, seconds: float) -> Sequence[str]:
        """Returns warnings."""
        return ()
