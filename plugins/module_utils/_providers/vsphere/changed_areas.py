# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed on a disk since a change id, as vSphere's change tracking tells it.

Of VirtualMachine.QueryChangedDiskAreas and DiskChangeInfo, in the vSphere Web Services API. An answer is of a part of
the disk, and tells how long that part is: who takes the first answer for all of it loses the rest, and so does who goes
on where the last area of an answer ends.
"""

from __future__ import annotations

from array import array
from typing import Any, Iterator

from ..._blocks import LEAF, Extent, Kind
from ..._errors import VmferryError
from .faults import is_fault, said_by
from .session import Session

EVERYTHING = "*"  # since when: what was ever written, where tracking began without snapshots
FEWEST_BYTES = LEAF  # that an answer goes on by, on the average; ESXi tracks no smaller blocks
# What vSphere answers where it does not know, or has lost, what changed: VMware's KB 320557.
_UNKNOWN = ("FileFault", "NotFound", "InvalidArgument", "InvalidState", "NoPermission", "NotSupported", "SystemError")


class TrackingLost(VmferryError):
    """Nobody can tell what changed, or what is told cannot be true: a full export is the way out."""

    def __init__(self, sentence: str) -> None:
        super().__init__("conflict", sentence, "Use mode: auto, which takes a full export then.")


class ChangedAreas:
    """Of a disk of `size` bytes: in guest order, none touching another. In 16 bytes each, as there may be millions."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._starts, self._ends = array("Q"), array("Q")

    @property
    def bytes_changed(self) -> int:
        return sum(self._ends) - sum(self._starts)

    def extents(self, otherwise: Kind = "unchanged") -> Iterator[Extent]:
        """All of the disk: what changed is `data`, and what did not `otherwise`."""
        at = 0
        for start, end in zip(self._starts, self._ends):
            if at < start:
                yield Extent(at, start - at, otherwise)
            yield Extent(start, end - start, "data")
            at = end
        if at < self.size:
            yield Extent(at, self.size - at, otherwise)

    def add(self, start: int, end: int) -> None:
        """In the order of where they start; they may overlap."""
        if self._ends and start <= self._ends[-1]:
            self._ends[-1] = max(end, self._ends[-1])
        else:
            self._starts.append(start)
            self._ends.append(end)


def changed_areas(
    session: Session, machine: Any, snapshot: Any, key: int, size: int, since: str, label: str
) -> ChangedAreas:
    """Between the change id `since` and the snapshot, of the disk with this device key. `label`: "scsi0:0 of web01".

    Raises `TrackingLost`, and what a connection may fail with.
    """
    found = ChangedAreas(size)
    at, answers = 0, 0
    while at < size:  # to ask at the end itself is an InvalidArgument
        answers += 1
        if answers > size // FEWEST_BYTES + 1:
            raise _untrue(label, f"it gave {answers - 1} answers, and is at byte {at} of {size}")
        at = _take(found, _ask(session, machine, snapshot, key, at, since, label), at, label)
    return found


def _ask(session: Session, machine: Any, snapshot: Any, key: int, at: int, since: str, label: str) -> Any:
    def ask(_content: Any) -> Any:
        return machine.QueryChangedDiskAreas(snapshot, key, at, since)

    try:
        return session.read(f"Asking what changed on {label}", ask)
    except VmferryError as error:
        if any(is_fault(error.__cause__, name) for name in _UNKNOWN):
            said = said_by(error.__cause__)
            raise TrackingLost(f"vSphere does not tell any more what changed on {label} ({said}).") from error
        raise


def _take(found: ChangedAreas, told: Any, asked: int, label: str) -> int:
    """Where the next answer has to begin."""
    start, length = told.startOffset, told.length
    end = start + length
    if start < 0 or start > asked or end <= asked or end > found.size:
        raise _untrue(label, f"asked from byte {asked} of {found.size} on, it told of bytes {start} to {end}")
    for area in sorted(told.changedArea or (), key=lambda one: one.start):
        if area.length < 0 or area.start < start or area.start + area.length > end:
            where = f"bytes {area.start} to {area.start + area.length}"
            raise _untrue(label, f"{where} do not lie in the part that it tells of, bytes {start} to {end}")
        if area.length and area.start + area.length > asked:
            found.add(max(area.start, asked), area.start + area.length)
    return int(end)


def _untrue(label: str, why: str) -> TrackingLost:
    return TrackingLost(f"What vSphere says of changes on {label} cannot be true: {why}.")
