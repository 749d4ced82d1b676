# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a provider's driver is: its rig, played by hand, and what the provider claims."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec

Power = Literal["on", "off"]
POWERS: tuple[Power, ...] = ("on", "off")
# What becomes of a run that dies there: the next one begins anew, goes on at the same point in time, or finds it done.
Fate = Literal["undone", "gone on with", "whole"]


@dataclass(frozen=True)
class Abilities:
    """What a provider claims. What it does not is refused as `unsupported`, before anything is changed."""

    exports: bool = True
    live: bool = False  # VMs that run are exported, at one moment, while they go on
    powered_off: bool = False  # it knows that a guest was shut down
    tracking: bool = False  # it tells what changed since an export
    snapshots: bool = False
    reverts: bool = True  # to them
    imports: bool = False
    power: bool = False  # VMs are started and shut down
    removal: bool = False  # and removed


@dataclass(frozen=True)
class Broken:
    """Settings with which nothing can be reached, and the kind of error that says so."""

    spec: ProviderSpec
    kind: Kind


class Driver(ABC):
    """Plays the people and guests around a provider. VMs are named by what `make_vm` returned, disks are numbered.

    Each test has a driver of its own in a folder of its own; what is costly to start is shared behind it.
    """

    name: str  # of the provider
    sources: str  # its folder, in the project
    abilities: Abilities
    # Where its own code can die, by when it is passed: an export of a VM that is "on" or "off", an "import".
    failpoints: ClassVar[Mapping[str, Mapping[str, Fate]]] = {}
    passed_once: Set[str] = frozenset()  # of those, by a VM's first export alone, and not by its increments
    # Those of snapshots: while one is made, removed and reverted to ("present", "absent", "reverted").
    snapshot_failpoints: ClassVar[Mapping[str, Sequence[str]]] = {}
    # Passed by every provider's exports and imports but by this one's.
    passed_by: Set[str] = frozenset()
    locks = False  # whether nobody can write to the disks of a VM that is off while it is exported
    apart = False  # whether an export of a VM that is off is of its own moment, whatever is written to the disks then
    granule = LEAF  # bytes of which the provider tells at the finest that one of them changed
    # Of VMs that run, or that are off: of which it tells what changed. Of the others the digests do.
    tracked: Set[Power] = frozenset(POWERS)
    remembers = True  # what changed, when a VM is switched off and on
    guests_decide = True  # whether a guest that is asked to shut down may go on as if nobody had asked
    holds = True  # whether the point in time of a run that died is there for the next one
    knows_holes = True  # whether what was never written to is not read
    patience = 30.0  # seconds for a disk that is locked by something that is about to end

    @classmethod
    @abstractmethod
    def started(cls, fixture: Callable[[str], Any], folder: Path) -> Driver:
        """`fixture` gives what a session shares, by its name; it is started when the first test asks for it."""

    def close(self) -> None:
        """Every VM goes, whatever state it is in."""

    @property
    @abstractmethod
    def spec(self) -> ProviderSpec: ...

    @property
    @abstractmethod
    def broken(self) -> Broken: ...

    def with_secrets(self, fixture: Callable[[str], Any], data: bytes) -> tuple[str, ProviderSpec, Sequence[str]]:
        """A VM with this disk, that is reached with secrets, and those; none where its settings know none."""
        return "", self.spec, ()

    def in_a_list(self, told: dict[str, Any]) -> dict[str, Any]:
        """What a list tells of a VM of which so much is told when it is named."""
        return told

    def size_of(self, size: int) -> int:
        """Of a disk that was asked to have so many bytes, which come first: zeros follow."""
        return size

    @abstractmethod
    def make_vm(self, *disks: bytes, power: Power = "off") -> str: ...

    @abstractmethod
    def power(self, vm: str, power: Power) -> None: ...

    @abstractmethod
    def is_on(self, vm: str) -> bool: ...

    @abstractmethod
    def write(self, vm: str, disk: int, offset: int, data: bytes) -> None:
        """As the guest does; durable when it returns. Raises `BlockingIOError` where the disk stays locked."""

    @abstractmethod
    def zero(self, vm: str, disk: int, offset: int, length: int) -> None: ...

    @abstractmethod
    def discard(self, vm: str, disk: int, offset: int, length: int) -> None:
        """Reads as zeros afterwards."""

    @abstractmethod
    def read(self, vm: str, disk: int) -> bytes:
        """By no code of ours. What is zeros up to the end may be left out."""

    @abstractmethod
    def add_disk(self, vm: str, data: bytes) -> None:
        """Behind the others, of a VM that is off."""

    @abstractmethod
    def remove_disk(self, vm: str) -> None:
        """The last one, of a VM that is off."""

    @abstractmethod
    def grow(self, vm: str, disk: int, size: int) -> None: ...

    def lose_tracking(self, vm: str) -> None:
        """As when somebody removes what tells what changed."""
        raise NotImplementedError

    def words_of_loss(self, token: str) -> str:
        """By which users are told of that."""
        return token

    def died(self) -> None:
        """A run did: what ends by itself then, in minutes, has ended."""
        return

    @abstractmethod
    def leftovers(self, vm: str, tokens: Set[str]) -> Iterator[str]:
        """Sentences on what is there of runs of ours. `tokens`: of committed exports, which may stay."""

    @property
    def placement(self) -> Mapping[str, Any]:
        """Where imports put disks, in a place that is empty before each test."""
        return {}

    @property
    def network(self) -> str:
        """For network cards of VMs from elsewhere; "" where they need none."""
        return ""

    @property
    def wrong_name(self) -> str:
        """That no VM there can have, with `back` in it."""
        return "../back"

    @property
    def other_hardware(self) -> tuple[Mapping[str, Any], int, int]:
        """A placement that asks for another machine than the VM was, and the processors and MiB that it then has."""
        return {"cpu": 2, "memory_mb": 48}, 2, 48

    @property
    def wrong_placements(self) -> Sequence[tuple[Mapping[str, Any], Kind, str]]:
        """Each with the kind of error that it is refused with, and words of it."""
        return ()

    def in_the_way(self, vm: str) -> Path | None:
        """Where an import of that name would write, and somebody's file may lie; None where it takes other names."""
        return None

    def left_of_imports(self) -> Iterator[str]:
        """Sentences on what lies there, and on VMs made of it."""
        yield from ()

    def remove_vm(self, vm: str) -> None:
        """An imported one, with its disks."""
        raise NotImplementedError


def folder_of(path: Path, name: str) -> Path:
    made = path / name
    made.mkdir()
    return made


def data_of(path: Path) -> bytes:
    """All of a file up to its last byte that is not zero. What is a hole behind its data is not even read."""
    with path.open("rb") as file:
        end, size = 0, path.stat().st_size
        with suppress(OSError):  # there is no data any more
            while end < size:
                end = os.lseek(file.fileno(), os.lseek(file.fileno(), end, os.SEEK_DATA), os.SEEK_HOLE)
        file.seek(0)
        return file.read(end).rstrip(b"\0")
