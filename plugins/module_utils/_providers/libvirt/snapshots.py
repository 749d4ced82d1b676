# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshots of one libvirt VM: everything that `SnapshotService` promises, each in a file of its own."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import Collection, Iterator, Sequence

from ..._errors import VmferryError
from ..finding import Finding
from ..job import Job
from ..snapshots import Snapshot, SnapshotService, SnapshotWish
from ..spec import VmSpec
from .checkpoints import forget, tokens
from .checkpoints_aside import aside_findings, checkpoints_aside
from .checks import job_findings
from .clean_up import clean_up
from .connection import Connection
from .describe import describe
from .saved_memory import has_saved_memory, how_to_end
from .snapshot_chain import OFF
from .snapshot_create import NewSnapshot, chosen_method, create_findings
from .snapshot_remove import give_up, removal_findings, remove
from .snapshot_revert import revert_external, revert_findings, revert_internal
from .snapshot_room import scratch_findings
from .snapshot_xml import read_all
from .work_folder import WorkFolder


class LibvirtSnapshots(SnapshotService):
    def __init__(self, connection: Connection, vm: VmSpec, scratch_dir: str) -> None:
        self._connection, self._vm, self._scratch_dir = connection, vm, scratch_dir

    def list(self) -> Sequence[Snapshot]:
        return read_all(self._connection, self._vm.id)

    def chosen_method(self, wish: SnapshotWish) -> str:
        return chosen_method(wish)

    def check_create(self, wish: SnapshotWish) -> Sequence[Finding]:
        return [*self._of_place(), *create_findings(self._connection, self._now(), wish)]

    def create(self, wish: SnapshotWish, job: Job, seconds: float) -> Sequence[str]:
        given_up = self._clean_up()
        attempt = NewSnapshot(self._connection, self._now(), wish, job, seconds)
        attempt.create(self._scratch_dir)
        return [*given_up, *attempt.warnings]

    def check_remove(self, name: str, gone: Collection[str] = ()) -> Sequence[Finding]:
        vm, found = self._now(), self.list()
        snapshot = self._find(name)
        findings = [*self._of_place(), *removal_findings(self._connection, vm, snapshot, found, gone)]
        if vm.power_state in OFF:
            findings += aside_findings(self._connection, vm)
        elif snapshot.whole:  # else the block job may be that of its removal
            findings += job_findings(self._connection, vm)
        return findings

    def remove(self, name: str, job: Job, seconds: float) -> Sequence[str]:
        given_up = self._clean_up()
        with self._owned(job) as folder, ExitStack() as stack:
            vm = self._now()
            if vm.power_state in OFF:
                stack.enter_context(checkpoints_aside(self._connection, vm, folder))
            remove(self._connection, vm, self._find(name), seconds)
        return given_up

    def check_revert(self, name: str) -> Sequence[Finding]:
        vm, snapshot = self._now(), self._find(name)
        findings = [*self._of_place(), *revert_findings(self._connection, vm, snapshot, self.list())]
        if vm.power_state not in OFF:
            findings += job_findings(self._connection, vm)
        return findings

    def revert(self, name: str, job: Job, seconds: float) -> Sequence[str]:
        deadline = time.monotonic() + seconds
        given_up = self._clean_up()
        with self._owned(job) as folder:
            vm, snapshot = self._now(), self._find(name)
            # Before, not after: a kill in between must not leave tokens that know nothing of the revert.
            said = forget(self._connection, vm, tokens(self._connection, vm.id))
            if snapshot.method == "internal":
                revert_internal(self._connection, vm, snapshot, max(1.0, deadline - time.monotonic()))
            else:
                revert_external(self._connection, vm, snapshot, job, folder)
        return [*given_up, *(f"{one} The next export will be a full one." for one in said)]

    @contextmanager
    def _owned(self, job: Job) -> Iterator[WorkFolder]:
        """Exports and other snapshot tasks see that this one works on the VM, which was cleaned up."""
        folder = WorkFolder.create(self._scratch_dir, "snapshot", self._vm.id, self._vm.name, job)
        try:
            yield folder
        except BaseException as error:
            give_up(self._connection, self._vm, folder, error)
            raise
        folder.remove()

    def _clean_up(self) -> Sequence[str]:
        """Warnings of exports that were given up by it."""
        undone = clean_up(self._connection, self._now(), self._scratch_dir)
        return [one.warning for one in undone if one.given_up]

    def _now(self) -> VmSpec:
        """Merging and reverting change what its disks are."""
        self._vm = describe(self._connection, self._vm.id)
        return self._vm

    def _find(self, name: str) -> Snapshot:
        for snapshot in self.list():
            if snapshot.name == name:
                return snapshot
        raise VmferryError(
            "not_found", f"{self._vm.name} has no snapshot {name}.", "List them with disk_snapshot_info."
        )

    def _of_place(self) -> Iterator[Finding]:
        yield from self._of_saved_state()
        yield from scratch_findings(self._scratch_dir)

    def _of_saved_state(self) -> Iterator[Finding]:
        if has_saved_memory(self._connection, self._vm):
            text = f"{self._vm.name} has its memory saved, to go on with the images that it had then."
            yield Finding("error", text, how_to_end(self._vm), "conflict")
