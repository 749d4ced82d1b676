# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM being made on AWS: its disks are written to snapshots, of which an image is registered, of which an instance is
run. It is whole once the last of what a task asks for is there.

Until then all of it carries a tag that says whose work it is, so that what is left of a dead job is found and removed.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from threading import Lock
from types import TracebackType
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from ..._errors import VmferryError
from ..._transfer.failpoints import failpoint
from ..._transfer.flow import Flow
from ..base import Below, ImportSession, Placement
from ..job import Job
from ..spec import VmSpec
from .block_reader import BlockReader
from .block_sink import SnapshotSink
from .crew import Crew
from .import_hardware import InstanceType, hardware_findings, instance_type, new_disks
from .import_image import image_name, image_request, register, wait_available
from .import_instance import instance_request, run_instance, stop, wait_running
from .import_leftovers import remove, remove_attempt
from .import_mark import HELD_FOR, UNFINISHED, ImportMark
from .import_places import Places, places_of
from .import_rivals import insist_on_turn
from .import_things import Thing, by_id
from .imported import image_spec, snapshot_spec
from .new_snapshot import NewSnapshot, SnapshotPlan, description_of, wait_completed
from .parent_blocks import ParentBlocks
from .parent_snapshots import REFUSALS, Parent, parents_of
from .request_rate import RequestRates
from .session import Session
from .snapshot_blocks import BLOCK, SnapshotBlocks
from .snapshot_disk import SnapshotDisk
from .snapshot_hold import SnapshotHold
from .snapshot_owner import HELD
from .tags import DISK, STATE, tag_list

PARALLEL = 16  # blocks under way
COMPLETED_WITHIN = 6 * 3600.0  # seconds; a snapshot that was sealed is completed within minutes


class AwsImport(ImportSession):
    def __init__(
        self,
        session: Session,
        vm: VmSpec,
        placement: Placement,
        export_id: str,
        job: Job,
        flow: Optional[Flow],
        describe: Callable[[str], VmSpec],
    ) -> None:
        self._session, self._vm, self._placement, self._describe = session, vm, placement, describe
        self._flow = flow or Flow()
        self._mark = ImportMark.of(job, export_id, placement.name, vm.id, vm.name)
        self.warnings: List[str] = []
        self._open = ExitStack()
        self._sinks: List[SnapshotSink] = []
        self._made: List[Thing] = []  # but for snapshots, which their sinks know
        self._whole = self._finishing = False
        self._hold = SnapshotHold(self._renew)
        self._renewing = Lock()
        self._renewed_at = time.monotonic()

    def __enter__(self) -> AwsImport:
        placement = self._placement
        self._disks = new_disks(self._vm, placement)
        self._type: Optional[InstanceType] = None
        self._places = Places((), (), ())
        if self._makes("instance"):
            self._places = places_of(self._session, self._vm, placement)
            self._type = instance_type(self._session, self._vm, placement, self._places.zone)
        weakened = [one for one in hardware_findings(self._vm, placement) if one.severity == "warning"]
        self.warnings += [f"{one.message} {one.hint}".rstrip() for one in weakened]
        with ExitStack() as stack:
            self._open_disks(stack)
            stack.callback(self._hold.end)
            self._hold.begin(HELD_FOR)
            self._open = stack.pop_all()
        self.sinks = tuple(self._sinks)
        return self

    def _open_disks(self, stack: ExitStack) -> None:
        self._rates = RequestRates(self._session.account, self._session.region, self._flow.sleep)
        stack.callback(self._rates.close)
        self._crew = Crew(PARALLEL)
        stack.callback(self._crew.close)
        self._sinks = [self._sink(number) for number in range(len(self._disks))]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._flow.shielded():
            for sink in self._sinks:
                sink.close()
            self._open.close()
            if not self._whole:
                self._remove_all()

    def stand_on(self, exports: Sequence[str]) -> Sequence[Optional[Below]]:
        """A child is begun here, so that what AWS has against its parent is known while all can still be written."""
        found: List[Optional[Below]] = [None] * len(self._disks)
        parents, unfit = parents_of(self._session, exports, self._disks, self._placement)
        self.warnings += unfit
        for number, parent in parents.items():
            sink = self._sink(number, parent)
            try:
                sink.snapshot.begin()
            except VmferryError as error:
                if error.kind not in REFUSALS:
                    raise
                text = f"{sink.snapshot.name} is written whole, as AWS refuses a child of {parent.id}: {error.message}"
                self.warnings.append(text)
                continue
            self._sinks[number], found[number] = sink, Below(parent.export, BLOCK)
        self.sinks = tuple(self._sinks)
        return found

    def read_back(self) -> Sequence[SnapshotDisk]:
        snapshots = self._snapshots()
        return tuple(self._readable(sink, snapshot) for sink, snapshot in zip(self._sinks, snapshots))

    def commit(self) -> VmSpec:
        snapshots = self._snapshots()
        failpoint("snapshots_completed")
        insist_on_turn(self._session, self._placement.name, self._mark.attempt)
        if not self._makes("image"):
            self._finish(snapshots, last=True)
            return snapshot_spec(self._session, by_id(self._session, "snapshot", snapshots), self._placement.name)
        image = self._image(snapshots)
        failpoint("image_registered")
        if not self._makes("instance"):
            self._finish(snapshots)
            self._finish([image], last=True)
            return image_spec(self._session, by_id(self._session, "image", [image])[0], self._placement.name)
        return self._instance(image)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _makes(self, step: str) -> bool:
        steps = ("snapshot", "image", "instance")
        return steps.index(step) <= steps.index(self._placement.stop_at or "instance")

    def _sink(self, number: int, parent: Optional[Parent] = None) -> SnapshotSink:
        disk, placement = self._disks[number], self._placement
        plan = SnapshotPlan(
            name=f"{disk.spec.id} of {placement.name}",
            size=disk.size,
            token=f"vmferry-{self._mark.attempt}-{number}{'-child' if parent is not None else ''}",
            description=description_of(disk.spec.id, placement.name),
            tags=lambda: {**self._mark.tags(), DISK: f"disk-{number}"},
            encrypted=placement.encrypted,
            kms_key=placement.kms_key_id,
            parent=parent.id if parent is not None else "",
        )
        new = NewSnapshot(self._session, plan, self._flow, self._rates.take)
        if parent is None:
            return SnapshotSink(new, disk.size, self._crew)
        blocks = SnapshotBlocks(self._session, self._rates, parent.id, disk.size, plan.name)
        reader = BlockReader(self._session, self._rates, parent.id, plan.name, self._flow.sleep)
        return SnapshotSink(new, disk.size, self._crew, ParentBlocks(reader, blocks))

    def _readable(self, sink: SnapshotSink, snapshot: str) -> SnapshotDisk:
        label = f"{sink.snapshot.name} in {snapshot}"
        blocks = SnapshotBlocks(self._session, self._rates, snapshot, sink.size, label)
        reader = BlockReader(self._session, self._rates, snapshot, label, self._flow.sleep)
        disk = SnapshotDisk(self._crew, reader, blocks, label)
        self._open.callback(disk.close)
        return disk

    def _snapshots(self) -> Sequence[str]:
        """Of each disk, completed."""
        names = {sink.snapshot.id: disk.spec.id for sink, disk in zip(self._sinks, self._disks)}
        wait_completed(self._session, names, self._flow, COMPLETED_WITHIN)
        return list(names)

    def _image(self, snapshots: Sequence[str]) -> str:
        name, tags = image_name(self._placement.name, self._mark.attempt), self._mark.tags()
        asked = image_request(self._vm, self._placement, self._disks, snapshots, tags, name)
        image = register(self._session, self._flow, asked)
        self._has_made("image", image)
        wait_available(self._session, self._flow, image)
        return image

    def _instance(self, image: str) -> VmSpec:
        if self._type is None:
            raise VmferryError("internal", "An instance is made of which nobody chose the type.")
        token = f"vmferry-{self._mark.attempt}"
        tags = self._mark.tags()
        asked = instance_request(self._placement, image, self._type.name, self._places, tags, token)
        instance = run_instance(self._session, self._placement.name, asked)
        self._has_made("instance", instance)
        failpoint("instance_made")
        wait_running(self._session, self._flow, instance)
        unstopped = self._stopped(instance)
        self._finish([disk.source for disk in self._describe(instance).disks])
        self._finish([instance], last=True)
        failpoint("instance_finished")
        self._remove_what_it_was_made_of()
        if unstopped is not None:
            unstopped.hint = f"The import itself is complete: the VM is there, and on. {unstopped.hint}".strip()
            raise unstopped
        return self._describe(instance)

    def _stopped(self, instance: str) -> Optional[VmferryError]:
        """What went wrong with that; the data is there all the same."""
        if self._placement.power_on:
            return None
        try:
            stop(self._session, self._flow, instance)
        except VmferryError as error:
            return error
        return None

    def _renew(self, tags: Mapping[str, str]) -> None:
        """Of all that is there. What cannot be held any more may be taken for a dead job's: the import ends before."""
        with self._renewing:
            ids = self._held()
            if self._finishing or not ids:
                self._renewed_at = time.monotonic()
                return
            try:
                with self._session.doing(f"Holding what {self._placement.name} is made of"):
                    self._session.client("ec2").create_tags(Resources=ids, Tags=tag_list(tags))
            except VmferryError as error:
                if error.kind == "permission_denied" or time.monotonic() > self._renewed_at + HELD_FOR:
                    self._flow.stop(error)
                raise
            self._renewed_at = time.monotonic()

    def _held(self) -> List[str]:
        return [*self._begun(), *(one.id for one in self._made)]

    def _begun(self) -> List[str]:
        """Ids of snapshots."""
        return [sink.snapshot.id for sink in self._sinks if sink.snapshot.id]

    def _finish(self, ids: Sequence[str], last: bool = False) -> None:
        """What belongs to the last step of the import comes last: from then on it is whole."""
        self._hold.end()
        with self._renewing:
            self._finishing = True
        with self._session.doing(f"Finishing {', '.join(ids)}"):
            tags: List[Dict[str, str]] = [{"Key": STATE, "Value": UNFINISHED}, {"Key": HELD}]
            self._session.client("ec2").delete_tags(Resources=list(ids), Tags=tags)
        self._whole = last

    def _remove_what_it_was_made_of(self) -> None:
        """The volumes have their data, or fetch it by themselves: neither an AMI that is deregistered nor a snapshot
        that is deleted has an effect on instances and volumes that are there.
        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/deregister-ami.html,
        https://docs.aws.amazon.com/ebs/latest/userguide/ebs-deleting-snapshot.html
        """
        snapshots = [Thing("snapshot", one, "", self._mark, {}) for one in self._begun()]
        images = [thing for thing in self._made if thing.kind == "image"]
        try:
            remove(self._session, self._flow, [*images, *snapshots])
        except VmferryError as error:
            text = f"What {self._placement.name} was made of is left for the next run to remove: {error}"
            self.warnings.append(text)

    def _has_made(self, kind: str, identity: str) -> None:
        self._made.append(Thing(kind, identity, "", self._mark, {}))

    def _remove_all(self) -> None:
        for sink in self._sinks:
            sink.snapshot.end()
        known = [*self._made, *(Thing("snapshot", one, "", self._mark, {}) for one in self._begun())]
        try:
            remove_attempt(self._session, self._flow, self._mark.attempt, known)
        except VmferryError as error:
            self.warnings.append(f"{self._placement.name} is left half made for the next run to remove: {error}")
