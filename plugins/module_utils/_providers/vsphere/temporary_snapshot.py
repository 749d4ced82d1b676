# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A snapshot that an export makes for itself, and that is gone when it ends.

Its description says whose it is, from the moment at which it is there: with it, whoever finds it later knows whether
anybody still needs it.
"""

from __future__ import annotations

import time
from typing import Callable, Mapping, TypeVar

from ..._errors import VmferryError
from ..._transfer.flow import Flow
from ..base import Consistency
from ..job import Job
from ..snapshots import Quiesce, SnapshotWish
from ..spec import VmSpec
from .faults import is_known_undone
from .properties import retrieve
from .session import Session
from .snapshot_tree import Node, nodes
from .snapshots import VsphereSnapshots
from .tasks import run_task

Result = TypeVar("Result")
MAKING = 900.0  # seconds; a guest may take its time to be quiesced
# Seconds for which it is tried again to remove one: vCenter takes minutes to start again, and a lease of which nobody
# heard how it ended holds the disks for LEASE_END.
PATIENCE = 600.0
LEASE_END = 330.0
APPEARING = 180.0  # seconds in which one may come to light of which nobody heard whether it was made
LOOK_EVERY = 10.0
_PASSING = ("busy", "network", "timeout")
STOPPED = 300.0  # seconds for a job that was stopped to see whether there is one, and to remove it
REMOVING = 24 * 3600.0  # seconds; what the guest wrote meanwhile goes back into the disks
QUIESCE: Mapping[Consistency, Quiesce] = {"auto": "auto", "quiesced": "required", "crash_consistent": "never"}


class TemporarySnapshot:
    """`make` it, and `remove` it, also where it did not get ready."""

    def __init__(self, session: Session, vm: VmSpec, job: Job, flow: Flow) -> None:
        """`flow`: of whoever makes it, which may be stopped while vSphere does."""
        self._session, self._vm, self._job, self._flow = session, vm, job, flow
        self.name = job.token
        self._snapshots = VsphereSnapshots(session, vm, lambda: flow.error is not None)
        self.warnings: list[str] = []
        self._may_appear_until = 0.0

    def make(self, consistency: Consistency) -> Node:
        """Raises where the guest could not be quiesced, if that is asked for."""
        wish = SnapshotWish(self.name, quiesce=QUIESCE[consistency], temporary=True)
        try:
            with self._flow.patient(STOPPED):
                self.warnings += self._snapshots.create(wish, self._job, MAKING)
        except VmferryError as error:
            if not is_known_undone(error):
                self._may_appear_until = time.monotonic() + APPEARING
            raise
        made = self.found()
        if made is None:
            hint = "Look at the VM's recent tasks in the vSphere Client, and export it again."
            text = f"vSphere made the snapshot {self.name} of {self._vm.name}, and it is not there."
            raise VmferryError("conflict", text, hint, retryable=True)
        return made

    def found(self) -> Node | None:
        """By its mark: a name may be anybody's."""
        mine = (node for node in snapshot_nodes(self._session, self._vm) if self._is_mine(node))
        return next(mine, None)

    def is_known_absent(self) -> bool:
        """After `make` has failed."""
        return not self._may_appear_until and self.found() is None

    def _is_mine(self, node: Node) -> bool:
        return (node.mark.get("vm"), node.mark.get("attempt")) == (self._vm.id, self._job.attempt)

    def remove(self) -> None:
        """Nothing, where it is not there, and will not be."""
        removed_in_time(self._remove, PATIENCE)

    def _remove(self) -> None:
        node = self.found()
        while node is None and time.monotonic() < self._may_appear_until:
            time.sleep(LOOK_EVERY)
            node = self.found()
        if node is not None:
            self.warnings += remove_snapshot(self._session, self._vm, node)


def removed_in_time(remove: Callable[[], Result], seconds: float) -> Result:
    """Again, where its disks are in use, or the server is not there, for so long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return remove()
        except VmferryError as error:
            if error.kind not in _PASSING or time.monotonic() >= deadline:
                raise
        time.sleep(LOOK_EVERY)


def snapshot_nodes(session: Session, vm: VmSpec) -> list[Node]:
    moref = vm.details["moref"]
    machine = session.managed("VirtualMachine", moref)
    rows = session.read(
        f"Looking at the snapshots of {vm.name}",
        lambda content: retrieve(content, [machine], (), {"VirtualMachine": ("snapshot",)}),
    )
    return nodes(rows[moref].get("snapshot"))


def remove_snapshot(session: Session, vm: VmSpec, node: Node) -> list[str]:
    """This very one, whatever others are called. Returns warnings; raises `busy` where something reads its disks."""
    snapshot = session.managed("VirtualMachineSnapshot", node.moref)
    try:
        run_task(
            session,
            f"Removing the snapshot {node.name} of {vm.name}",
            lambda _content: snapshot.RemoveSnapshot_Task(removeChildren=False, consolidate=True),
            REMOVING,
        )
    except VmferryError:
        if any(one.moref == node.moref for one in snapshot_nodes(session, vm)):
            raise
        # Another was faster, or only the answer was lost.
    return list(VsphereSnapshots(session, vm).consolidation_warnings())
