# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The point in time of a dead run, taken over: its backup job, its checkpoint and its work folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Mapping, Sequence

from ..._errors import VmferryError
from ..._transfer.failpoints import failpoint
from ..base import Tracking
from ..job import Job
from ..spec import DiskSpec, VmSpec
from . import backup_job, native_files
from .bitmaps import can_hold_bitmaps
from .connection import Connection
from .describe import describe
from .leaving import STOPPED, Leaving
from .live_export import LiveExport
from .safe_serving import insist_on_safe_serving
from .since import Since
from .work_folder import WorkFolder


class ReopenedLiveExport(LiveExport):
    """The backup job goes on serving what it froze, whoever began it."""

    def __init__(
        self,
        connection: Connection,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        job: Job,
        tracking: Tracking,
        scratch_dir: str,
        reference: Mapping[str, str],
    ) -> None:
        super().__init__(connection, vm, disks, "auto", job, tracking, scratch_dir)
        self._reference = self._left = reference

    def _open(self, stack: ExitStack) -> None:
        self.vm = describe(self._connection, self.vm.id)
        job = backup_job.current_job(self._connection, self.vm.id)
        path = Path(self._scratch_dir) / f"vmferry-{self._job.attempt}"
        if (path / STOPPED).exists():
            raise _stopped(path, self.vm.name)
        if job is None or job.folder != path:
            raise VmferryError("not_found", f"The backup job of {self.vm.name} that a dead run had begun is gone.")
        insist_on_safe_serving(self._connection, self.vm, self._chosen, self._domain_xml())
        folder = WorkFolder.take_over(self._scratch_dir, self.vm.id, self._job)
        self._leaving = leaving = Leaving(self._connection, self.vm.id, folder, self.warnings)
        leaving.socket = job.socket
        stack.callback(lambda: leaving.leave(self._stays))
        if self._left.get("token") == self._job.token:
            self.token = self._job.token
            self._tracked = [disk.name for disk in self._chosen if can_hold_bitmaps(disk)]
            leaving.will_make(self.token)
        failpoint("taken_over")
        leaving.watchdog = self._start_watchdog(folder, job.socket)
        failpoint("watched_over")
        self.native = native_files.read(self._connection, self.vm, self.warnings)
        told = self._left.get("changes", "").split()
        self._since = Since(self._tracking.since, dict.fromkeys(told, ()))
        self._open_disks(stack, folder, job.socket, leaving.watchdog.check)


def _stopped(folder: Path, vm_name: str) -> VmferryError:
    paused = (folder / STOPPED).read_text(encoding="utf-8") == "paused"
    went_on = ", which had paused the guest; it goes on" if paused else ""
    return VmferryError(
        "not_found",
        f"The backup job of {vm_name} that a dead run had begun was ended: the scratch folder {folder.parent} ran "
        f"low{went_on}.",
    )
