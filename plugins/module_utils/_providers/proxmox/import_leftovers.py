# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that imports of ours made: found by their notes, and removed where the job died before they were whole.

One that is not whole is called by its job, so that nobody takes it for the VM, and a list of names is
enough to find it.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Iterator, List, Mapping, Optional, Sequence

from ..._errors import VmferryError
from ..import_mark import UNFINISHED, ImportMark, insist_on_dead, mark_in
from ..spec import VmSpec
from .inventory import Guest, guests
from .session import Session

REMOVE_LIMIT = 600.0  # seconds
UNDO_PATIENCE = 60.0  # seconds that an import which failed gives Proxmox VE to let go of what it made
LOOK_EVERY = 1.0  # seconds
PASSING = ("busy", "network", "timeout")  # kinds of errors of a VM that something else is just then at
PREFIX = "vmferry-"
_STOPPED, _BEING_MADE = "stopped", "create"  # a status, and a lock


@dataclass(frozen=True)
class Made:
    """A VM, as far as it tells whose it is. `mark`: None where no import of ours made it."""

    guest: Guest
    config: Mapping[str, Any]

    @property
    def mark(self) -> Optional[ImportMark]:
        return mark_in(str(self.config.get("description") or ""))

    @property
    def is_unfinished(self) -> bool:
        """And nothing else: renamed or started, it is in somebody's hands."""
        mark = self.mark
        if mark is None or mark.state != UNFINISHED or int(self.config.get("template") or 0):
            return False
        return self.guest.status == _STOPPED and self.config.get("name") == name_of(mark.job, mark.attempt)


def name_of(job: str, attempt: str) -> str:
    """Of a VM that is not whole: a DNS name, as all names are there."""
    return f"{PREFIX}{job}-{attempt}"


def unfinished(session: Session, known: Optional[Sequence[Guest]] = None) -> List[Made]:
    """All that the user may see, whichever job is at them."""
    doing = "Looking for what imports made"
    found = guests(session, doing) if known is None else known
    ours = (made_by(session, one) for one in found if one.name.startswith(PREFIX) and one.reachable)
    return [one for one in ours if one is not None and one.is_unfinished]


def made_by(session: Session, guest: Guest) -> Optional[Made]:
    """None of what is gone meanwhile."""
    try:
        with session.doing(f"Reading the configuration of {guest.name}"):
            return Made(guest, session.get(f"{guest.path}/config"))
    except VmferryError as error:
        if error.kind != "not_found":
            raise
        return None


def clean_up_imports(session: Session) -> Sequence[tuple[str, str]]:
    """Of every import whose job is known to be dead: the VM it was to make, and a sentence."""
    found = ((one, one.mark) for one in unfinished(session))
    return [(mark.name, _undone(session, one, mark)) for one, mark in found if mark is not None and mark.alive is False]


def undo_imports(session: Session, job_id: str) -> Sequence[str]:
    """Of this job, which is dead, as the caller knows. Raises `busy` where it can be seen that it lives."""
    return list(_undo_imports(session, job_id))


def insist_on_no_import(vm: VmSpec) -> None:
    """Raises `busy` for a VM that an import is making just now."""
    mark = mark_in(str(vm.details.get("description") or ""))
    if mark is not None:
        insist_on_dead(mark, mark.name)


def _undo_imports(session: Session, job_id: str) -> Iterator[str]:
    for one in unfinished(session):
        mark = one.mark
        if mark is not None and mark.job == job_id:
            insist_on_dead(mark, mark.name)
            yield _undone(session, one, mark)


def _undone(session: Session, made: Made, mark: ImportMark) -> str:
    what = f"VM {made.guest.vmid} on {made.guest.node}, of which a dead {mark.describe()} was making {mark.name}"
    try:
        let_go(session, made.guest.node, mark)
        warnings = destroy(session, made.guest, mark)
    except VmferryError as error:
        return f"Left {what}: {error.message} {error.hint}".rstrip()
    return " ".join([f"Removed {what}.", *warnings])


def let_go(session: Session, node: str, mark: ImportMark) -> None:
    """What still serves its volumes there is ended: Proxmox VE forgets a VM whose volumes it could not remove."""
    from .choose_node import open_node
    from .keeper import Keeper

    with closing(open_node(session, session.settings, node)) as opened, Keeper(opened) as keeper:
        for one in keeper.others():
            if one["owner"].get("job") == mark.job:
                end = keeper.end if one["alive"] else keeper.undo
                end(str(one["folder"]))


def destroy(session: Session, guest: Guest, mark: ImportMark, patience: float = 0.0) -> Sequence[str]:
    """With the disks that are in its configuration, and no others that may carry its number; nothing serves them any
    more. What Proxmox VE warns of. What is gone already, or is another VM by now, is no error. `patience`: seconds for
    Proxmox VE to end what it does with it."""
    deadline = time.monotonic() + patience
    while True:
        try:
            now = made_by(session, guest)
            if now is None or now.mark is None or now.mark.attempt != mark.attempt:
                return ()
            return session.run(f"Removing {guest.name}", lambda: session.delete(guest.path, purge=0), REMOVE_LIMIT)
        except VmferryError as error:
            if error.kind == "not_found":
                return ()
            if error.kind not in PASSING or time.monotonic() >= deadline:
                raise
        time.sleep(LOOK_EVERY)


def destroy_own(session: Session, mark: ImportMark, node: str, vmid: int, patience: float) -> Sequence[str]:
    """What this very attempt made as that VM, whether or not Proxmox VE said that it did: while it still makes it, its
    configuration tells nothing but that."""
    guest = Guest(vmid, node, name_of(mark.job, mark.attempt))
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        made = made_by(session, guest)
        if made is None or made.mark is not None or made.config.get("lock") != _BEING_MADE:
            break
        time.sleep(LOOK_EVERY)
    return destroy(session, guest, mark, patience)
