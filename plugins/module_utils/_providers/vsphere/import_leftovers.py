# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that imports of ours made: found by their notes, and removed where the job died before they were whole.

vSphere itself removes a VM whose lease ends before it was completed, some minutes after the last word of its job.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Iterator, Sequence
from urllib.parse import unquote

from ..._errors import VmferryError
from ..import_mark import UNFINISHED, ImportMark, insist_on_dead, mark_in
from .faults import is_fault
from .properties import Rows, every, of_view, retrieve
from .session import Session
from .tasks import run_task

REMOVE_LIMIT = 600.0  # seconds
UNDO_PATIENCE = 60.0  # seconds that an import which failed gives vSphere to let go of what it made
LOOK_EVERY = 2.0  # seconds
PASSING = ("busy", "conflict", "network", "timeout")  # kinds of errors of a VM that vSphere is just then removing
_PATHS = ("name", "parent", "config.annotation", "config.instanceUuid", "runtime.powerState")


@dataclass(frozen=True)
class Machine:
    """A VM, as far as it tells whose it is. `mark`: None where no import of ours made it."""

    moref: str
    name: str
    folder: str  # the MoRef
    power_state: str  # as vSphere calls it
    mark: ImportMark | None

    @property
    def is_unfinished(self) -> bool:
        """And nothing else: renamed or started, it is in somebody's hands."""
        mark = self.mark
        untouched = self.power_state == "poweredOff" and mark is not None and mark.name == self.name
        return untouched and mark is not None and mark.state == UNFINISHED


def machines(session: Session) -> Sequence[Machine]:
    """All that the user may see, in one round trip for a page of them."""

    def work(content: Any) -> Rows:
        with every(content, "VirtualMachine") as view:
            return retrieve(content, [view], of_view(), {"VirtualMachine": _PATHS})

    rows = session.read("Looking for what imports made", work)
    return [
        Machine(
            row.moref,
            unquote(row.get("name", "")),
            row.get("parent")._moId if row.get("parent") is not None else "",
            str(row.get("runtime.powerState", "")),
            mark_in(str(row.get("config.annotation") or "")),
        )
        for row in rows.values()
    ]


def called(found: Sequence[Machine], name: str, folder: str) -> Sequence[Machine]:
    """`folder`: by MoRef; empty: any."""
    return [one for one in found if one.name == name and folder in ("", one.folder)]


def clean_up_imports(session: Session) -> Sequence[tuple[str, str]]:
    """Of every import whose job is known to be dead: the VM it was to make, and a sentence."""
    return [
        (one.name, _undone(session, one))
        for one in machines(session)
        if one.is_unfinished and one.mark is not None and one.mark.alive is False
    ]


def undo_imports(session: Session, job_id: str) -> Sequence[str]:
    """Of this job, which is dead, as the caller knows. Raises `busy` where it can be seen that it lives."""
    return list(_undo_imports(session, job_id))


def _undo_imports(session: Session, job_id: str) -> Iterator[str]:
    for one in machines(session):
        if one.mark is not None and one.mark.job == job_id and one.is_unfinished:
            insist_on_dead(one.mark, one.name)
            yield _undone(session, one)


def _undone(session: Session, machine: Machine) -> str:
    whose = machine.mark.describe() if machine.mark is not None else "import"
    try:
        destroy(session, machine.moref, machine.name)
    except VmferryError as error:
        return f"Left {machine.name}, which a dead {whose} had not finished: {error.message} {error.hint}".rstrip()
    return f"Removed {machine.name}, which a dead {whose} had not finished."


def destroy(session: Session, moref: str, name: str, patience: float = 0.0) -> None:
    """With its disks. What is gone already is no error. `patience`: seconds for vSphere to end what it does with it."""
    vm = session.managed("VirtualMachine", moref)
    deadline = time.monotonic() + patience
    while True:
        try:
            run_task(session, f"Removing {name}", lambda _content: vm.Destroy_Task(), REMOVE_LIMIT)
            return
        except VmferryError as error:
            if is_fault(error.__cause__, "ManagedObjectNotFound"):
                return
            if error.kind not in PASSING or time.monotonic() >= deadline:
                raise
        time.sleep(LOOK_EVERY)


def destroy_own(session: Session, attempt: str) -> None:
    """What this very attempt made, whether or not vSphere said that it did."""
    for one in machines(session):
        if one.mark is not None and one.mark.attempt == attempt and one.mark.state == UNFINISHED:
            destroy(session, one.moref, one.name, UNDO_PATIENCE)
