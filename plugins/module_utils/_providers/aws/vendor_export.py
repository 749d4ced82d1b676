# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A point in time of an instance, read out of the image that a task of VM Import/Export writes of it to S3.

The snapshot of the boot disk is the point in time, as it is of an export by EBS direct. An AMI is made of it, and the
task writes that. The snapshot's tags tell of all the rest, which goes before it does.

AWS writes an AMI in a service role alone. Where there is none, it is the instance itself that the task writes, as it is
when the task begins; the snapshot, which goes with the rest, then tells of the task and of nothing else.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Callable, Dict, Mapping, Sequence

from ..._errors import VmferryError
from ..._transfer.failpoints import failpoint
from ..._transfer.flow import Flow
from ..base import Consistency, ExportDisk, Tracking, VendorTask
from ..job import Job
from ..spec import DiskSpec, VmSpec
from .export_checks import SHUT_DOWN
from .export_session import AwsExport
from .instance_task_checks import insist_on_off
from .session import Session
from .staged_image import StagedDisk, StagedPlace
from .tags import STAGING, TASK
from .vendor_checks import insist_on_one_disk
from .vendor_task import (
    INSTANCE,
    OF_IMAGE,
    OF_INSTANCE,
    end,
    register,
    start,
    start_instance,
    wait_until_completed,
)

METHOD = "vendor_task"


class VendorExport(AwsExport):
    """Nothing of it outlives the run, and no change token is kept."""

    def __init__(
        self,
        session: Session,
        describe: Callable[[str], VmSpec],
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        tracking: Tracking,
        flow: Flow | None,
        wish: VendorTask,
    ) -> None:
        super().__init__(session, describe, vm, disks, consistency, job, replace(tracking, keep=False), flow)
        self._wish, self._place = wish, StagedPlace.of_job(wish.staging, job)
        self._kind = OF_IMAGE if wish.role else OF_INSTANCE
        self._began = self._is_exported = False

    @property
    def reference(self) -> Mapping[str, str]:
        return {}

    def confirm(self) -> None:
        """Of an instance that was to be off, that it was, until all was written."""
        if self._kind is OF_INSTANCE and self.consistency == "powered_off":
            now = self._described()
            if now.power_state != "powered_off" or now.details["launched"] != self.vm.details["launched"]:
                raise VmferryError("conflict", f"{self.vm.name} was started meanwhile.", SHUT_DOWN)

    def outlive(self, seconds: float) -> None:
        """A task that nobody waits for is cancelled."""

    def stay(self) -> bool:
        return False

    def keep_token(self) -> None:
        self._is_exported = True

    def _tags(self) -> Dict[str, str]:
        kind = {TASK: INSTANCE} if self._kind is OF_INSTANCE else {}
        return {**super()._tags(), STAGING: self._place.url, **kind}

    def _open_disks(self, stack: ExitStack, chosen: Sequence[DiskSpec]) -> None:
        disk = insist_on_one_disk(self.vm, chosen)
        if self._tracking.since:
            self.lost = f"A task of AWS writes all of {self.vm.name}, and does not tell what changed."
        snapshot = self._set[disk.name]
        self._began = True
        task = self._started(disk, snapshot.id)
        failpoint("vendor_task_started")
        wait_until_completed(self._session, self._flow, self.vm.name, task, self._wish, self._kind)
        failpoint("vendor_task_completed")
        label = f"{disk.name} of {self.vm.name}"
        source = StagedDisk(self._session, self._place, snapshot.size, label, self._flow.sleep)
        stack.callback(source.close)
        spec = replace(disk, size=snapshot.size)
        self.disks = (ExportDisk(spec, source, None, METHOD),)
        self.vm = self.vm.with_disks(tuple(spec if one.id == disk.id else one for one in self.vm.disks))

    def _started(self, disk: DiskSpec, snapshot: str) -> str:
        if self._kind is OF_INSTANCE:
            insist_on_off(self._described())
            self.taken_at = time.time()
            return start_instance(self._session, self.vm, self._place, self._tags())
        image = register(self._session, self.vm, disk, snapshot, self._tags())
        failpoint("vendor_image_registered")
        return start(self._session, self.vm, image, self._place, self._wish, self._tags())

    def _leave(self) -> None:
        """The snapshots last, and not at all where anything else stays: by them it is found."""
        if self._began:
            stays = self._is_exported and not self._wish.cleanup
            end(self._session, self._place, self._job.attempt, self.vm.name, kind=self._kind, keep_image=stays)
            failpoint("vendor_task_ended")
            if stays:
                self.warnings.append(f"The image that AWS wrote of {self.vm.name} stays in {self._place.url}.")
        super()._leave()
