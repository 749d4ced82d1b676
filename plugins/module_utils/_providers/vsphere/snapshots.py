# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshots of one VM: everything that `SnapshotService` promises.

They are of vSphere's one kind, a delta disk for each disk, and with the VM's memory where that is asked.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable, Collection, Mapping, Optional, Sequence

from ..._errors import VmferryError
from ..finding import Finding
from ..job import Job
from ..snapshots import Snapshot, SnapshotDisk, SnapshotService, SnapshotWish
from ..spec import VmSpec
from .describe import describe_these
from .devices import Devices, Layout, leaf
from .faults import is_fault
from .properties import retrieve
from .session import Session
from .snapshot_checks import CREATE, REMOVE, REVERT, create_findings, of_privilege, usable_findings
from .snapshot_tree import Node, mark_of, nodes
from .tasks import run_task

NOT_QUIESCED = ("ApplicationQuiesceFault", "FilesystemQuiesceFault", "ToolsUnavailable")
METHOD = "external"


@dataclass(frozen=True)
class _Tree:
    """What is there now. `disks` are by the snapshot's MoRef."""

    nodes: Sequence[Node]
    disks: Mapping[str, Sequence[SnapshotDisk]]


class VsphereSnapshots(SnapshotService):
    def __init__(self, session: Session, vm: VmSpec, stopped: Optional[Callable[[], bool]] = None) -> None:
        """`stopped`: whether the job that has one made was; then nobody waits for what can be cancelled."""
        self._session, self._vm, self._stopped = session, vm, stopped

    def list(self) -> Sequence[Snapshot]:
        tree = self._tree()
        return [self._snapshot(node, tree.disks.get(node.moref, ())) for node in tree.nodes]

    def chosen_method(self, wish: SnapshotWish) -> str:
        return METHOD

    def check_create(self, wish: SnapshotWish) -> Sequence[Finding]:
        vm = self._now()
        return [
            *usable_findings(vm),
            *create_findings(vm, wish, self._nodes()),
            *of_privilege(self._session, vm, CREATE),
        ]

    def create(self, wish: SnapshotWish, job: Job, seconds: float) -> Sequence[str]:
        deadline = time.monotonic() + seconds
        vm = self._now()
        quiesce = wish.quiesce != "never" and not wish.memory and vm.power_state == "powered_on"
        required = quiesce and wish.quiesce == "required"
        try:
            self._create(wish, vm, job, quiesce and (vm.guest_agent or required), seconds)
        except VmferryError as error:
            if not quiesce or required or not _could_not_quiesce(error):
                raise
            self._create(wish, vm, job, False, max(1.0, deadline - time.monotonic()))
            return [f"{vm.name} was not quiesced, so the snapshot is crash-consistent: {error.message}"]
        if required and not self._find(wish.name).quiesced:
            left = max(1.0, deadline - time.monotonic())
            self.remove(wish.name, job, left)
            text = f"vSphere made the snapshot {wish.name} of {vm.name} without quiescing the guest, so it was removed."
            raise VmferryError("conflict", text, "Start VMware Tools, or open-vm-tools, in the guest; or ask for less.")
        return []

    def check_remove(self, name: str, gone: Collection[str] = ()) -> Sequence[Finding]:
        vm = self._now()
        return [*usable_findings(vm), *self._of_name(name), *of_privilege(self._session, vm, REMOVE)]

    def remove(self, name: str, job: Job, seconds: float) -> Sequence[str]:
        snapshot = self._session.managed("VirtualMachineSnapshot", self._find(name).moref)
        run_task(
            self._session,
            f"Removing the snapshot {name} of {self._vm.name}",
            lambda _content: snapshot.RemoveSnapshot_Task(removeChildren=False, consolidate=True),
            seconds,
        )
        return self.consolidation_warnings()

    def check_revert(self, name: str) -> Sequence[Finding]:
        vm = self._now()
        return [*usable_findings(vm), *self._of_name(name), *of_privilege(self._session, vm, REVERT)]

    def revert(self, name: str, job: Job, seconds: float) -> Sequence[str]:
        snapshot = self._session.managed("VirtualMachineSnapshot", self._find(name).moref)
        run_task(
            self._session,
            f"Taking {self._vm.name} back to the snapshot {name}",
            lambda _content: snapshot.RevertToSnapshot_Task(),
            seconds,
        )
        return []

    def needs_consolidation(self) -> bool:
        return bool(self._now().details["consolidation_needed"])

    def check_consolidate(self) -> Sequence[Finding]:
        vm = self._now()
        return [*usable_findings(vm), *of_privilege(self._session, vm, REMOVE)]

    def consolidate(self, job: Job, seconds: float) -> Sequence[str]:
        machine = self._machine()
        doing = f"Consolidating the disks of {self._vm.name}"
        run_task(self._session, doing, lambda _content: machine.ConsolidateVMDisks_Task(), seconds)
        return self.consolidation_warnings()

    def _create(self, wish: SnapshotWish, vm: VmSpec, job: Job, quiesce: bool, seconds: float) -> None:
        machine = self._machine()
        run_task(
            self._session,
            f"Making the snapshot {wish.name} of {vm.name}",
            lambda _content: machine.CreateSnapshot_Task(wish.name, mark_of(wish, vm, job), wish.memory, quiesce),
            seconds,
            self._stopped,
        )

    def consolidation_warnings(self) -> Sequence[str]:
        """A warning, where vSphere says that disks of snapshots that are gone are left."""
        if not self.needs_consolidation():
            return []
        return [
            f"vSphere says that disks of {self._vm.name} still need consolidation. Run disk_snapshot with state: "
            "consolidated once nothing else reads them, such as a backup."
        ]

    def _of_name(self, name: str) -> Sequence[Finding]:
        try:
            self._find(name)
        except VmferryError as error:
            return [Finding("error", error.message, error.hint, error.kind)]
        return []

    def _find(self, name: str) -> Node:
        found = [node for node in self._nodes() if node.name == name]
        if not found:
            hint = "List them with disk_snapshot_info."
            raise VmferryError("not_found", f"{self._vm.name} has no snapshot {name}.", hint)
        if len(found) > 1:
            text = f"{self._vm.name} has {len(found)} snapshots called {name}, which vSphere allows."
            raise VmferryError("conflict", text, "Rename all but the one that is meant, in the vSphere Client.")
        return found[0]

    def _snapshot(self, node: Node, disks: Sequence[SnapshotDisk]) -> Snapshot:
        ours = node.mark.get("vm") == self._vm.id
        memory = node.mark["memory"] == "yes" if ours and "memory" in node.mark else node.state == "powered_on"
        power = node.mark.get("power", node.state) if ours else node.state
        return Snapshot(
            name=node.name,
            created=node.created,
            description=node.description,
            current=node.current,
            parent=node.parent,
            children=node.children,
            power_state=power,  # type: ignore[arg-type]
            memory=memory and power == "powered_on",
            method=METHOD if disks else "",
            disks=tuple(disks),
            ours=ours,
            job=node.mark.get("job", "") if ours else "",
            consistency=_consistency(power, node.quiesced) if ours else "",
        )

    def _tree(self) -> _Tree:
        """Two round trips: the tree, and the disks of all its snapshots."""
        found = self._nodes()
        if not found:
            return _Tree((), {})
        snapshots = [self._session.managed("VirtualMachineSnapshot", node.moref) for node in found]
        path = "config.hardware.device"
        rows = self._session.read(
            f"Looking at the snapshots of {self._vm.name}",
            lambda content: retrieve(
                content,
                [self._machine(), *snapshots],
                (),
                {"VirtualMachine": (path,), "VirtualMachineSnapshot": (path,)},
            ),
        )
        now = _images(rows[self._vm.details["moref"]].get(path, ()))
        held = {node.moref: _images(rows[node.moref].get(path, ())) for node in found}
        stands_on = {below: image for images in (*held.values(), now) for image, below in images.values() if below}
        return _Tree(
            found,
            {
                moref: [SnapshotDisk(name, image, stands_on.get(image, "")) for name, (image, _below) in images.items()]
                for moref, images in held.items()
            },
        )

    def _nodes(self) -> Sequence[Node]:
        rows = self._session.read(
            f"Looking at the snapshots of {self._vm.name}",
            lambda content: retrieve(content, [self._machine()], (), {"VirtualMachine": ("snapshot",)}),
        )
        return nodes(rows[self._vm.details["moref"]].get("snapshot"))

    def _now(self) -> VmSpec:
        self._vm = describe_these(self._session, [self._vm.details["moref"]], f"Looking at {self._vm.name}")[0]
        return self._vm

    def _machine(self) -> Any:
        return self._session.managed("VirtualMachine", self._vm.details["moref"])


def _images(devices: Sequence[Any]) -> dict[str, tuple[str, str]]:
    """By a disk's name, the image that it is written to, and the one below that."""
    known = Devices(devices, (), Layout((), ()), {}, {}, False)
    found = {}
    for disk in sorted((one for one in devices if leaf(one) == "VirtualDisk"), key=lambda one: one.key):
        image = getattr(disk.backing, "fileName", None)
        below = getattr(getattr(disk.backing, "parent", None), "fileName", None)
        if image and not (getattr(disk.backing, "diskMode", None) or "").startswith("independent"):
            found[known.name_of(disk)] = (image, below or "")
    return found


def _consistency(power: str, quiesced: bool) -> str:
    if power == "powered_off":
        return "powered_off"
    return "quiesced" if quiesced else "crash_consistent"


def _could_not_quiesce(error: VmferryError) -> bool:
    return any(is_fault(error.__cause__, name) for name in NOT_QUIESCED)
