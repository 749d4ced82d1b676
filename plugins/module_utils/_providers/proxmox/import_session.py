# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM being made on Proxmox VE: its new volumes are written in place by its node's `qemu-nbd`, and read back by it."""

from __future__ import annotations

from contextlib import ExitStack, closing
from types import TracebackType
from typing import List, Mapping, Sequence

from ..._errors import VmferryError
from ..._nbd.sink import NbdSink
from ..._nbd.source import NbdSource
from ..._nbd.transport import Address
from ..._transfer.failpoints import failpoint
from ..._transfer.flow import Flow
from ..base import ImportSession, Placement
from ..import_mark import ImportMark
from ..job import Job
from ..spec import VmSpec
from .choose_node import open_node
from .describe import describe_each
from .import_checks import insist_on_name
from .import_config import ImportPlan
from .import_hardware import hardware_findings
from .import_hold import ImportHold
from .import_leftovers import let_go
from .import_places import ImportPlaces
from .import_state import kept_state, state_findings
from .import_vm import ImportedVm
from .keeper import Keeper
from .node import Node
from .node_nbd import served
from .offline_disk import activate, volume_path
from .power import start
from .session import Session


class ProxmoxImport(ImportSession):
    def __init__(
        self,
        session: Session,
        vm: VmSpec,
        native: Mapping[str, bytes],
        placement: Placement,
        export_id: str,
        job: Job,
        flow: Flow | None,
    ) -> None:
        insist_on_name(placement.name)
        self._session, self._vm, self._placement, self._job = session, vm, placement, job
        self._state = kept_state(vm, placement, native)
        self._flow = flow or Flow()
        self._mark = ImportMark.of(job, export_id, placement.name, vm.id, vm.name)
        self.warnings: List[str] = []
        self._whole = self._is_at_node = False
        self._open, self._working, self._serving = ExitStack(), ExitStack(), ExitStack()

    def __enter__(self) -> ProxmoxImport:
        self._plan = ImportPlan.of(self._vm, self._placement, ImportPlaces(self._session, self._placement))
        told = [
            *hardware_findings(self._vm, self._placement),
            *state_findings(self._vm, self._placement, self._state),
        ]
        self.warnings += [f"{one.message} {one.hint}".rstrip() for one in told if one.severity == "warning"]
        with ExitStack() as stack:
            self._begin(stack)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._flow.shielded():
            self._open.__exit__(kind, error, traceback)

    def read_back(self) -> Sequence[NbdSource]:
        self._serving.close()  # QEMU writes back what it holds
        return tuple(self._source(number) for number in range(len(self._plan.volumes)))

    def commit(self) -> VmSpec:
        self._working.close()  # the same; and nothing of ours is left on the node
        failpoint("import_written")
        self._made.settle()
        self._whole = True
        failpoint("import_settled")
        vm = self._described()
        if not self._placement.power_on:
            return vm
        try:
            start(self._session, vm)
        except VmferryError as error:
            error.hint = f"The import itself is complete: the VM is there, and off. {error.hint}".strip()
            raise
        return self._described()

    # --- steps --------------------------------------------------------------------------------------------------------

    def _begin(self, stack: ExitStack) -> None:
        node = open_node(self._session, self._session.settings, self._plan.node)  # or there is nothing to begin
        stack.callback(node.close)
        self._made = ImportedVm(self._session, self._plan, self._mark, self._flow)
        stack.callback(self._undo)
        self.warnings += self._made.create()
        failpoint("import_made")
        self._working = stack.enter_context(ExitStack())
        self._working.enter_context(ImportHold(self._made.renew))
        self._keeper, self._is_at_node = Keeper(node), True
        self._working.push(self._leave_node)
        # A VM may move from a node to the same node, and both ends of that are one job.
        self._folder = f"{self._job.job_id}-import"
        self._keeper.open(self._job, "import", str(self._made.vmid), self._placement.name, self._folder)
        self._paths = [self._path(node, volume) for volume in self._made.volumes]
        for key, content in self._state.items():
            self._restore(self._path(node, self._made.volume(key)), content)
        self._serving = self._working.enter_context(ExitStack())
        self.sinks = tuple(self._sink(number) for number in range(len(self._plan.volumes)))
        failpoint("import_opened")

    def _path(self, node: Node, volume: str) -> str:
        """Of what can be opened."""
        path = volume_path(node, volume)
        activate(self._keeper, path)  # a cluster's LVM may not have done so when it made it
        return path

    def _sink(self, number: int) -> NbdSink:
        volume = self._plan.volumes[number]
        reads_zero = volume.storage.reads_zero(volume.format)
        sink = NbdSink(self._serve(number, read_only=False), reads_zero=reads_zero)
        self._serving.callback(sink.close)
        return sink

    def _source(self, number: int) -> NbdSource:
        source = NbdSource(self._serve(number, read_only=True))
        self._serving.callback(source.close)
        return source

    def _serve(self, number: int, *, read_only: bool) -> Address:
        """What the page cache of the node holds is neither written to nor read."""
        path, format = self._paths[number], self._plan.volumes[number].format
        zeroes = "off" if read_only else "unmap"
        return self._serving.enter_context(
            served(
                self._keeper,
                self._folder,
                path,
                format,
                read_only=read_only,
                cache="none",
                detect_zeroes=zeroes,
            )
        )

    def _restore(self, path: str, content: bytes) -> None:
        """What the machine itself keeps, onto a raw volume that Proxmox VE has filled for a new one."""
        with (
            served(self._keeper, self._folder, path, "raw", read_only=False) as address,
            closing(NbdSink(address)) as sink,
        ):
            sink.write([(0, memoryview(content))])
            sink.flush()

    def _leave_node(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Whatever fails on the way out does not hide what failed first."""
        try:
            self._keeper.close()
        except VmferryError:
            if error is None:
                raise
        else:
            self._is_at_node = False
        return False

    def _undo(self) -> None:
        if self._whole:
            return
        try:
            if self._is_at_node:  # as far as is known here: the connection broke
                let_go(self._session, self._plan.node, self._mark)
            self.warnings += self._made.remove()
        except VmferryError as error:
            what = f"VM {self._made.vmid} on {self._plan.node}, of which {self._placement.name} was being made,"
            self.warnings.append(f"{what} is left for the next run to remove: {error}")

    def _described(self) -> VmSpec:
        return describe_each(self._session, [str(self._made.vmid)])[0]
