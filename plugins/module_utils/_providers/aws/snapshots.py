# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshots of one instance: everything that `SnapshotService` promises, of EBS's one kind.

Those of all its volumes that were made at one moment are one snapshot here.
"""

from __future__ import annotations

import time
from typing import Collection, Sequence

from ..._errors import VmferryError
from ..finding import Finding
from ..job import Job
from ..snapshots import Snapshot, SnapshotDisk, SnapshotService, SnapshotWish
from ..spec import VmSpec
from .asking import every_of
from .lookup import described
from .session import Session
from .snapshot_checks import create_findings, remove_findings
from .snapshot_set import remove, wait_until_completed
from .snapshot_sets import OURS_BY, SnapshotSet, sets_of
from .tags import DISKS, JOB, NAME, POWER, SNAPSHOT, VM, of_job
from .taking import take

METHOD = "ebs"
_NO_REVERT = "An instance cannot be taken back to a snapshot here: AWS changes no volume in place."
_INSTEAD = "Make new volumes of its snapshots and attach these, or export the VM and import it."


class AwsSnapshots(SnapshotService):
    def __init__(self, session: Session, vm: VmSpec) -> None:
        self._session, self._vm = session, vm

    def list(self) -> Sequence[Snapshot]:
        return [self.told(one) for one in self._sets()]

    def chosen_method(self, wish: SnapshotWish) -> str:
        return METHOD

    def check_create(self, wish: SnapshotWish) -> Sequence[Finding]:
        return list(create_findings(self._session, self._now(), wish))

    def create(self, wish: SnapshotWish, job: Job, seconds: float) -> Sequence[str]:
        deadline = time.monotonic() + seconds
        vm = self._now()
        doing = f"Making the snapshot {wish.name} of {vm.name}"
        tags = {
            NAME: wish.name,
            **of_job(job),
            VM: vm.id,
            SNAPSHOT: wish.name,
            DISKS: str(len(vm.disks)),
            POWER: vm.power_state,
        }
        made = take(self._session, doing, vm.id, tags)
        ids = [one["SnapshotId"] for one in made]
        try:
            if sorted(one["VolumeId"] for one in made) != sorted(disk.source for disk in vm.disks):
                text = f"{doing} failed: volumes were attached or detached meanwhile, so it was removed."
                raise VmferryError("conflict", text, "Run it again.", retryable=True)
            wait_until_completed(self._session, time.sleep, ids, vm.name, max(1.0, deadline - time.monotonic()))
        except VmferryError:
            remove(self._session, ids, vm.name)
            raise
        return []

    def check_remove(self, name: str, gone: Collection[str] = ()) -> Sequence[Finding]:
        try:
            found = self.find(name)
        except VmferryError as error:
            return [Finding("error", error.message, error.hint, error.kind)]
        return list(remove_findings(self._session, self._vm, found))

    def remove(self, name: str, job: Job, seconds: float) -> Sequence[str]:
        remove(self._session, self.find(name).ids, self._vm.name)
        return []

    def check_revert(self, name: str) -> Sequence[Finding]:
        return [Finding("error", _NO_REVERT, _INSTEAD, "unsupported")]

    def revert(self, name: str, job: Job, seconds: float) -> Sequence[str]:
        raise VmferryError("unsupported", _NO_REVERT, _INSTEAD)

    def needs_consolidation(self) -> bool:
        raise VmferryError(
            "unsupported",
            "Snapshots on AWS are never merged: each stands for itself, and no volume stands on one.",
            "Remove those that are not needed with state: absent.",
        )

    def find(self, name: str) -> SnapshotSet:
        """Raises `not_found`, and `conflict` where several have that name."""
        found = [one for one in self._sets() if one.name == name]
        if not found:
            sets = [one.name for one in self._sets() if name in one.ids]
            hint = (
                f"It is a part of the snapshot {sets[0]}: name that." if sets else "List them with disk_snapshot_info."
            )
            raise VmferryError("not_found", f"{self._vm.name} has no snapshot {name}.", hint)
        if len(found) > 1:
            text = f"{self._vm.name} has {len(found)} snapshots called {name}, which were made at the same time."
            raise VmferryError("conflict", text, f"Change the tag {SNAPSHOT} of all but the one that is meant.")
        return found[0]

    def told(self, one: SnapshotSet) -> Snapshot:
        ours = one.ours and one.vm == self._vm.id
        power = one.tags.get(POWER, "unknown") if ours else "unknown"
        names = {disk.source: disk.name for disk in self._vm.disks}
        return Snapshot(
            name=one.name,
            created=one.created,
            description=one.description,
            current=False,
            parent="",
            children=(),
            power_state=power,  # type: ignore[arg-type]
            memory=False,
            method=METHOD,
            disks=tuple(
                SnapshotDisk(names.get(member["VolumeId"], member["VolumeId"]), member["SnapshotId"])
                for member in one.members
            ),
            ours=ours,
            job=one.tags.get(JOB, "") if ours else "",
            consistency=_consistency(power) if ours else "",
            whole=one.whole,
        )

    def _sets(self) -> Sequence[SnapshotSet]:
        """Of ours, also those of volumes that are detached meanwhile."""
        doing = f"Looking at the snapshots of {self._vm.name}"
        volumes = [disk.source for disk in self._vm.disks]
        found = every_of(self._session, "describe_snapshots", doing, OURS_BY, [self._vm.id], OwnerIds=["self"])
        found += every_of(self._session, "describe_snapshots", doing, "volume-id", volumes, OwnerIds=["self"])
        return sets_of(found)

    def _now(self) -> VmSpec:
        self._vm = described(self._session, [self._vm.id])[0]
        return self._vm


def _consistency(power: str) -> str:
    return "powered_off" if power == "powered_off" else "crash_consistent"
