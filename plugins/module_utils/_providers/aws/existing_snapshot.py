# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of an instance as snapshots have them that are there already, whoever made them. They stay.

Nothing is made and nothing is tagged, so that a run that dies leaves nothing behind.
"""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime, timezone
from types import TracebackType
from typing import Callable, Dict, Iterator, List, Mapping, Sequence

from ..._errors import VmferryError
from ..._transfer.flow import Flow
from ..base import Consistency, ExportDisk, ExportSession
from ..finding import Finding
from ..snapshots import Snapshot
from ..spec import DiskSpec, VmSpec
from .change_token import Since
from .disk_reading import DiskReading, with_sizes
from .native_files import native_files
from .session import Session
from .snapshot_set import EbsSnapshot, wait_until_completed
from .snapshot_sets import SnapshotSet
from .snapshots import AwsSnapshots

_ONLY_THOSE = "Name the disks that it has with disks, or choose another snapshot."


class ExistingSnapshotExport(ExportSession):
    def __init__(
        self,
        session: Session,
        describe: Callable[[str], VmSpec],
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        name: str,
        flow: Flow | None,
        reference: Mapping[str, str] | None = None,
    ) -> None:
        """`reference`: of the session of a dead run, whose data it is to be."""
        self._session, self._describe, self._flow = session, describe, flow or Flow()
        self._chosen, self._left = tuple(disks), reference
        self.vm, self.snapshot = vm, name
        self.warnings: List[str] = []
        self.native: Mapping[str, bytes] = {}
        self.disks: Sequence[ExportDisk] = ()
        self._set: Dict[str, EbsSnapshot] = {}  # by the disk's name
        self._cleanup = ExitStack()

    def __enter__(self) -> ExistingSnapshotExport:
        self.vm = self._describe(self.vm.id)
        now = {disk.name: disk for disk in self.vm.disks}
        chosen = [now[disk.name] for disk in self._chosen if disk.name in now]
        if len(chosen) != len(self._chosen):
            raise VmferryError("conflict", f"{self.vm.name} lost a disk meanwhile.", "Export it again.", retryable=True)
        service = AwsSnapshots(self._session, self.vm)
        found = service.find(self.snapshot)
        for finding in _findings_of(self.vm, chosen, found):
            if finding.severity == "error":
                raise VmferryError(finding.kind or "conflict", finding.message, finding.hint)  # type: ignore[arg-type]
        members = [_member(found, disk) for disk in chosen]
        told = " ".join(f"{one.volume}={one.id}" for one in members)
        if self._left is not None and self._left.get("snapshots") != told:
            text = f"The snapshot {self.snapshot} of {self.vm.name} is another one than when the export began."
            raise VmferryError("not_found", text)
        done = wait_until_completed(self._session, self._flow.sleep, [one.id for one in members], self.vm.name)
        self._set = {disk.name: one for disk, one in zip(chosen, done)}
        self.taken_at = created_at(found.created)
        self.consistency = consistency_of(service.told(found))
        self.native = native_files(self._session, self.vm)
        with ExitStack() as stack:
            reading = DiskReading(self._session, self._flow, self.vm.name, self._set, ahead=self._left is not None)
            stack.callback(reading.close)
            self.disks = reading.open(chosen, Since())
            self._cleanup = stack.pop_all()
        self.vm = with_sizes(self.vm, self.disks)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def confirm(self) -> None:
        """Every block was proved as it was read, and a snapshot never changes."""

    @property
    def reference(self) -> Mapping[str, str]:
        found = " ".join(f"{one.volume}={one.id}" for one in self._set.values())
        return {"kind": "snapshot", "snapshot": self.snapshot, "snapshots": found}

    def stay(self) -> bool:
        """It does, whatever becomes of its export."""
        return True


def existing_snapshot_findings(
    session: Session, vm: VmSpec, disks: Sequence[DiskSpec], name: str, by_blocks: bool
) -> List[Finding]:
    """`by_blocks`: they are to be read by EBS direct."""
    if not by_blocks:
        text = f"A task of AWS exports {vm.name} as it is now, and not its snapshot {name}."
        return [Finding("error", text, "Set method: direct, or leave snapshot out.", "unsupported")]
    try:
        found = AwsSnapshots(session, vm).find(name)
    except VmferryError as error:
        return [Finding("error", error.message, error.hint, error.kind)]
    return list(_findings_of(vm, disks, found))


def consistency_of(snapshot: Snapshot) -> Consistency:
    """Of another program's, nobody knows whether the guest was on; EBS never freezes it."""
    return "powered_off" if snapshot.consistency == "powered_off" else "crash_consistent"


def created_at(created: str) -> float:
    """Seconds since the epoch."""
    return datetime.strptime(created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()


def _findings_of(vm: VmSpec, disks: Sequence[DiskSpec], found: SnapshotSet) -> Iterator[Finding]:
    label = f"The snapshot {found.name} of {vm.name}"
    there = {one["VolumeId"] for one in found.members}
    missing = [disk.name for disk in disks if disk.source not in there]
    if missing:
        yield Finding("error", f"{label} has no {', '.join(missing)}.", _ONLY_THOSE, "conflict")
    elif not found.whole:
        text = f"{label} is not whole: AWS could not make a part of it, or that was removed."
        yield Finding("error", text, "Choose another one; disk_snapshot_info tells which are whole.", "conflict")
    for told in found.members:
        if told.get("StorageTier", "standard") == "archive":
            hint = f"Restore {told['SnapshotId']} from the archive tier, which takes up to three days."
            yield Finding("error", f"{label} is archived, and EBS direct reads nothing from there.", hint, "conflict")
        if told.get("OutpostArn"):
            text = f"{label} is on an Outpost, of whose snapshots AWS gives no blocks."
            yield Finding("error", text, "Choose one that is in the region.", "unsupported")
        if told.get("State") == "pending":
            yield Finding("info", f"AWS still copies {told['SnapshotId']}; the export waits until that is done.")


def _member(found: SnapshotSet, disk: DiskSpec) -> EbsSnapshot:
    (one,) = [member for member in found.members if member["VolumeId"] == disk.source]
    return EbsSnapshot.of(one)
