# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What exports of VMs that run and that are off have in common: the way to the node, and what is undone there."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from types import TracebackType
from typing import Dict, List, Sequence, TypeVar

from ..._errors import VmferryError
from ..base import ExportSession
from ..job import Job
from ..spec import DiskSpec, VmSpec
from .choose_node import open_node
from .describe import describe_again
from .keeper import Keeper
from .session import Session
from .settings import ProxmoxSettings

Opened = TypeVar("Opened", bound="ProxmoxExport")


def is_off(vm: VmSpec) -> bool:
    """No QEMU has its disks open. One that is suspended is hibernated then, and does not just sleep."""
    stopped = vm.details.get("qmp_status", "") in ("stopped", "")
    return vm.power_state == "powered_off" or (vm.power_state == "suspended" and stopped)


class ProxmoxExport(ExportSession):
    def __init__(
        self, session: Session, settings: ProxmoxSettings, vm: VmSpec, disks: Sequence[DiskSpec], job: Job
    ) -> None:
        self._session, self._settings, self._job = session, settings, job
        self._chosen = tuple(disks)
        self.vm = vm
        self.warnings: List[str] = []
        self.native: Dict[str, bytes] = {}
        self._cleanup = ExitStack()

    @abstractmethod
    def _open(self, stack: ExitStack, chosen: Sequence[DiskSpec]) -> None:
        """Puts on the stack how each thing it makes here is undone; what it makes on the node the keeper undoes."""

    def __enter__(self: Opened) -> Opened:
        self.vm = describe_again(self._session, self.vm)
        chosen = self._still_there()
        with ExitStack() as stack:
            self._keep(stack)
            self._open(stack, chosen)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.__exit__(kind, error, traceback)

    def _keep(self, stack: ExitStack) -> None:
        node = open_node(self._session, self._settings, self.vm.host)
        stack.callback(node.close)
        self._keeper = Keeper(node)
        stack.callback(self._end_keeper)
        self._keeper.open(self._job, "export", self.vm.id, self.vm.name)

    def _end_keeper(self) -> None:
        """What was read is right, whatever is left."""
        try:
            self._keeper.close()
        except VmferryError as left:
            self.warnings.append(
                f"What the export made on node {self.vm.host} is undone there, or by the next export or "
                f"export_cleanup: {left.message}"
            )

    def _still_there(self) -> Sequence[DiskSpec]:
        now = {disk.name: disk for disk in self.vm.disks}
        chosen = [now[disk.name] for disk in self._chosen if disk.name in now]
        if len(chosen) != len(self._chosen):
            raise VmferryError("conflict", f"{self.vm.name} lost a disk meanwhile.", "Export it again.", retryable=True)
        return chosen
