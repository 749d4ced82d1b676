# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM being made on AWS of images that lie in S3: AWS makes a snapshot of each by a task, and all that comes behind
these is as of any import.

Why not `ImportImage`: it makes one AMI of all disks, and with it nothing that is not made of the snapshots here, but it
takes only guests that it knows, and changes them.
https://docs.aws.amazon.com/vm-import/latest/userguide/import-modify-vm.html
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from ..._errors import VmferryError
from ..._transfer.failpoints import failpoint
from ..._transfer.flow import Flow
from ..base import OpenStaging, Placement, ReadDisk, VendorTask
from ..job import Job
from ..spec import VmSpec
from .import_session import AwsImport
from .import_staging import ImportStaging
from .import_task import ImportTask, mark_snapshot, request, start, wait_until_completed
from .import_tasks_left import end_attempt
from .import_things import by_id
from .session import Session
from .snapshot_blocks import GIB
from .staged_image import StagedPlace
from .tags import STAGING


class TaskImport(AwsImport):
    """Its disks are written one after the other, while AWS reads those before."""

    takes_disks = True

    def __init__(
        self,
        session: Session,
        vm: VmSpec,
        placement: Placement,
        export_id: str,
        job: Job,
        flow: Optional[Flow],
        describe: Callable[[str], VmSpec],
        wish: VendorTask,
        open_staging: OpenStaging,
    ) -> None:
        super().__init__(session, vm, placement, export_id, job, flow, describe)
        self._wish, self._place = wish, StagedPlace.of_job(wish.staging, job)
        self._staging = ImportStaging(session, self._place, self._flow, open_staging)
        self._tasks: Dict[str, int] = {}  # by their ids: the number of the disk
        self._snapshots_of: Dict[int, str] = {}  # by the number of the disk: marked ones

    def __enter__(self) -> TaskImport:
        try:
            super().__enter__()
        except BaseException:
            with self._flow.shielded():
                self._end_tasks()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if self._whole:
            with self._flow.shielded():
                self._end_tasks(keep_images=not self._wish.cleanup)

    def take(self, disks: Sequence[ReadDisk], workers: int | None, begin: Callable[[int], object]) -> None:
        for number, (disk, new) in enumerate(zip(disks, self._disks)):
            begin(number)
            key = self._staging.write(number, disk, new, workers)
            failpoint("import_staged")
            tags = self._staged_tags()
            token = f"vmferry-{self._mark.attempt}"
            asked = request(new, number, key, self._place, self._wish, tags, token)
            if self._placement.encrypted:  # left out otherwise: the account may encrypt whatever is made
                asked["Encrypted"] = True
                if self._placement.kms_key_id:
                    asked["KmsKeyId"] = self._placement.kms_key_id
            self._tasks[start(self._session, self._placement.name, asked)] = number
            failpoint("import_task_started")

    def commit(self) -> VmSpec:
        made = super().commit()
        if not self._wish.cleanup:
            self.warnings.append(f"The images that {made.name} was made of stay in {self._place.url}.")
        return made

    # --- steps --------------------------------------------------------------------------------------------------------

    def _open_disks(self, stack: ExitStack) -> None:
        stack.callback(self._staging.close)
        self._staging.note(self._staged_tags())
        failpoint("import_noted")

    def _snapshots(self) -> Sequence[str]:
        """Of each disk, completed, and of the size that was asked for."""
        if len(self._tasks) != len(self._disks):
            raise VmferryError("internal", "An import commits before all of its disks were taken.")
        name = self._placement.name
        wait_until_completed(self._session, self._flow, name, list(self._tasks), self._wish, self._completed)
        failpoint("import_tasks_completed")
        made = [self._snapshots_of[number] for number in range(len(self._disks))]
        told = {thing.id: thing.said for thing in by_id(self._session, "snapshot", made)}
        for snapshot, disk in zip(made, self._disks):
            size = int(told.get(snapshot, {}).get("VolumeSize", 0)) * GIB
            if size != disk.size:
                text = f"AWS made the snapshot {snapshot} of {disk.spec.id} with {size} bytes, and not {disk.size}."
                raise VmferryError("conflict", text, "Leave method out, or set it to direct.")
        return made

    def _completed(self, task: ImportTask) -> None:
        failpoint("import_task_completed")
        mark_snapshot(self._session, task, self._mark.tags())
        self._snapshots_of[self._tasks[task.id]] = task.snapshot

    def _begun(self) -> List[str]:
        return list(self._snapshots_of.values())

    def _held(self) -> List[str]:
        return [*super()._held(), *self._tasks]

    def _renew(self, tags: Mapping[str, str]) -> None:
        super()._renew(tags)
        if not self._finishing:
            self._staging.note(self._staged_tags())

    def _staged_tags(self) -> Dict[str, str]:
        return {**self._mark.tags(), STAGING: self._place.url}

    def _remove_all(self) -> None:
        super()._remove_all()
        self._end_tasks()

    def _end_tasks(self, *, keep_images: bool = False) -> None:
        self._staging.end()
        try:
            end_attempt(self._session, self._flow, self._mark, self._place, list(self._tasks), keep_images=keep_images)
        except VmferryError as error:
            what = "What" if self._whole else "Some of what"
            text = f"{what} {self._placement.name} was made of in {self._place.url} is left for the next run to remove"
            self.warnings.append(f"{text}: {error}")
