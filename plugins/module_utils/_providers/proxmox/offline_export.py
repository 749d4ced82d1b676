# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a VM that is off: nobody may write to them meanwhile, so they are a point in time as they are."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Dict, FrozenSet, List, Mapping, Sequence

from ..._errors import VmferryError
from ..._transfer.failpoints import failpoint
from ..base import ExportDisk, Tracking
from ..job import Job
from ..spec import DiskSpec, VmSpec
from .describe import describe_again
from .export_session import ProxmoxExport, is_off
from .native_files import config_file, read_config, read_state, state_drives
from .offline_disk import open_volume, stamp, volume_path
from .session import Session, part
from .settings import ProxmoxSettings

TASKS = 500  # of this VM, that a node is asked for
# Of what Proxmox VE does to a VM, that which writes to its disks. What a task is called is in PVE::API2::Qemu.
_STARTS = ("qmstart", "qmresume")
_WRITE = frozenset({*_STARTS, "qmreboot", "qmrollback", "qmrestore", "qmmove", "resize", "qmdelsnapshot"})


class OfflineExport(ProxmoxExport):
    def __init__(
        self,
        session: Session,
        settings: ProxmoxSettings,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        job: Job,
        tracking: Tracking,
    ) -> None:
        super().__init__(session, settings, vm, disks, job)
        self.consistency = "powered_off"
        if tracking.since:
            self.lost = f"{vm.name} is off, and its dirty bitmaps went with its QEMU."

    def confirm(self) -> None:
        """Raises `conflict` where somebody started the VM, also if it is off again: storages without locks let one."""
        now = describe_again(self._session, self.vm)
        happened = ""
        if not is_off(now) or now.host != self.vm.host or self._tasks() - self._seen_tasks:
            happened = f"{self.vm.name} was started, or something else was done to its disks,"
        sources = {disk.name: disk.source for disk in now.disks}
        changed = [disk.spec.name for disk in self.disks if sources.get(disk.spec.name) != disk.spec.source]
        changed += [name for name, path in self._paths.items() if stamp(self._keeper.node, path) != self._stamps[name]]
        if changed:
            happened = f"{changed[0]} of {self.vm.name} was changed"
        if happened:
            raise VmferryError(
                "conflict", f"{happened} while it was being exported.", "Export it again.", retryable=True
            )

    def _open(self, stack: ExitStack, chosen: Sequence[DiskSpec]) -> None:
        self._seen_tasks = self._tasks()
        if not is_off(self.vm):
            raise VmferryError("conflict", f"{self.vm.name} was started meanwhile.", "Export it again.", retryable=True)
        node, folder = self._keeper.node, self._job.job_id
        self._paths: Dict[str, str] = {disk.name: volume_path(node, disk.source) for disk in chosen}
        opened: List[ExportDisk] = []
        for disk in chosen:
            source = open_volume(stack, self._keeper, folder, disk.source, disk.format)
            opened.append(ExportDisk(replace(disk, size=source.size), source))
        failpoint("disks_served")
        self._stamps = {name: stamp(node, path) for name, path in self._paths.items()}
        self.disks = tuple(opened)
        self.taken_at = time.time()
        config = read_config(self._session, self.vm)
        self.native = config_file(config)
        for drive in state_drives(config).values():
            self.native.update(read_state(self._keeper, folder, self.vm, drive, self.warnings))
        if self.vm.power_state == "suspended":
            self.consistency = "crash_consistent"
            text = f"{self.vm.name} is hibernated. The export is crash consistent: its memory is not part of it."
            self.warnings.append(text)
        sizes = {disk.spec.id: disk.spec for disk in opened}
        self.vm = self.vm.with_disks(tuple(sizes.get(disk.id, disk) for disk in self.vm.disks))
        self.confirm()  # under the locks, and of the configuration that was read

    def _tasks(self) -> FrozenSet[str]:
        """Of what writes to its disks. A user without Sys.Audit on the node sees only his own."""
        with self._session.doing(f"Looking at the tasks of {self.vm.name}"):
            path = f"nodes/{part(self.vm.host)}/tasks"
            told = self._session.get(path, vmid=int(self.vm.id), source="all", limit=TASKS)
        return frozenset(str(one["upid"]) for one in told if _may_have_written(one))


def _may_have_written(task: Mapping[str, Any]) -> bool:
    """A start that failed has not: the disks were locked, as they should be."""
    failed = str(task.get("status") or "OK") not in ("OK", "RUNNING") and not str(task["status"]).startswith("WARNINGS")
    return task.get("type") in _WRITE and not (failed and task["type"] in _STARTS)
