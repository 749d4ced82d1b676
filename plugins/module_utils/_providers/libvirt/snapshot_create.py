# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new snapshot: internal where memory belongs to it, else an overlay on every disk."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Iterator, Mapping

from ..._errors import VmferryError
from ..._transfer.failpoints import failpoint
from ..finding import Finding
from ..job import Job
from ..snapshots import SnapshotWish
from ..spec import DiskSpec, VmSpec
from . import domain_xml
from .checkpoints_aside import aside_findings, checkpoints_aside
from .checks import LOCAL, job_findings
from .connection import Connection
from .guest_freeze import frozen
from .scratch import MIB
from .snapshot_chain import OFF
from .snapshot_create_off import create_off
from .snapshot_remove import give_up
from .snapshot_room import access_findings, by_folder, folder_of, room_findings
from .snapshot_xml import create_root, mark_of, overlay_beside
from .watchdog_launcher import WatchdogProcess
from .work_folder import WorkFolder

if TYPE_CHECKING:
    import libvirt

EXPECTED_CHANGE = 10  # a tenth of the disks, written while a snapshot is kept


def chosen_method(wish: SnapshotWish) -> str:
    """Memory lies in an image of the VM, so all is internal then. Else an overlay suits any disk, and is quick."""
    if wish.method != "auto":
        return wish.method
    return "internal" if wish.memory else "external"


def create_findings(connection: Connection, vm: VmSpec, wish: SnapshotWish) -> Iterator[Finding]:
    method, running = chosen_method(wish), vm.power_state not in OFF
    yield from job_findings(connection, vm) if running else aside_findings(connection, vm)
    yield from _of_disks(vm, method)
    if method == "internal":
        yield from _of_internal(vm, wish, running)
    else:
        yield from _of_external(vm, wish)
    yield from _of_quiesce(vm, wish, running)


def _taking_part(vm: VmSpec) -> list[DiskSpec]:
    return [disk for disk in vm.disks if not disk.read_only]


def _of_disks(vm: VmSpec, method: str) -> Iterator[Finding]:
    types = vm.details.get("disk_types", {})
    if not _taking_part(vm):
        yield Finding("error", f"{vm.name} has no disk that a snapshot could hold.", "", "unsupported")
    for disk in _taking_part(vm):
        where = f"{disk.name} of {vm.name}"
        if disk.name in vm.details.get("shareable", ()):
            yield Finding("error", f"{where} is shared between VMs.", "", "unsupported")
        if method == "internal" and disk.format != "qcow2":
            hint = "Leave out memory, and choose the method external or auto."
            text = f"{where} is a {disk.format} disk; internal snapshots, and with them memory, need qcow2."
            yield Finding("error", text, hint, "unsupported")
        elif method == "external" and types.get(disk.name, "file") not in ("file", "volume"):
            text = f"{where} is a {types[disk.name]} disk, beside which no overlay can lie."
            yield Finding("error", text, "Snapshots of such disks are the storage's own business.", "unsupported")
        elif disk.size == 0 and types.get(disk.name, "file") in LOCAL:
            yield Finding("error", f"{where} cannot be looked at: {disk.source} may be missing.", "", "not_found")
    if vm.details.get("luns"):
        yield Finding("warning", f"{vm.name} has SCSI devices passed through, which no snapshot holds.")


def _of_internal(vm: VmSpec, wish: SnapshotWish, running: bool) -> Iterator[Finding]:
    if vm.firmware == "uefi":
        hint = "Leave out memory, and choose the method external or auto."
        yield Finding(
            "error", f"{vm.name} has UEFI firmware, of which libvirt makes no internal snapshot.", hint, "unsupported"
        )
    if running and not wish.memory:
        hint = "Set memory: true, or choose the method external."
        text = f"{vm.name} is {vm.power_state}; an internal snapshot of it has its memory too."
        yield Finding("error", text, hint, "invalid_config")
    if wish.memory and not running:
        yield Finding("info", f"{vm.name} is {vm.power_state}: there is no memory to keep.")
    elif wish.memory:
        needs = {folder_of(disk.source): vm.memory_mb * MIB for disk in _taking_part(vm)[:1]}
        yield from room_findings(needs, "the VM's memory", demand="all")


def _of_external(vm: VmSpec, wish: SnapshotWish) -> Iterator[Finding]:
    if wish.memory and vm.power_state not in OFF:
        hint = "Leave out memory, or choose the method internal."
        yield Finding("error", "External snapshots are made without memory.", hint, "unsupported")
    needs = by_folder(_taking_part(vm), EXPECTED_CHANGE)
    yield from access_findings(list(needs), "an overlay has to lie there")
    yield from room_findings(needs, "what the guest writes from now on")


def _of_quiesce(vm: VmSpec, wish: SnapshotWish, running: bool) -> Iterator[Finding]:
    if not running:
        return
    if wish.memory:
        if wish.quiesce == "required":
            text = "A snapshot with memory cannot be quiesced: the guest would be frozen whenever it is reverted to."
            yield Finding("error", text, "Leave out quiesce, or memory.", "invalid_config")
        return
    if wish.quiesce == "never" or (vm.guest_agent and vm.power_state == "powered_on"):
        return
    reason = "has no guest agent that answers" if vm.power_state == "powered_on" else "is not running"
    if wish.quiesce == "required":
        hint = "Install and start qemu-guest-agent in the guest, or set quiesce: auto."
        yield Finding("error", f"{vm.name} {reason}, so it cannot be quiesced.", hint, "unsupported")
    else:
        yield Finding("warning", f"{vm.name} {reason}: the snapshot is crash consistent.")


class NewSnapshot:
    """One attempt. What it makes is written down before, so that whoever comes after a kill knows it."""

    def __init__(self, connection: Connection, vm: VmSpec, wish: SnapshotWish, job: Job, seconds: float) -> None:
        self._connection, self._vm, self._wish, self._job, self._seconds = connection, vm, wish, job, seconds
        self.warnings: list[str] = []
        self._running = vm.power_state not in OFF
        self._frozen = False
        self._watchdog: WatchdogProcess | None = None

    def create(self, scratch_dir: str) -> None:
        folder = WorkFolder.create(scratch_dir, "snapshot", self._vm.id, self._vm.name, self._job)
        with ExitStack() as stack:
            stack.push(partial(self._leave, folder))
            if not self._running:
                stack.enter_context(checkpoints_aside(self._connection, self._vm, folder))
            overlays = self._overlays() if chosen_method(self._wish) == "external" else None
            for overlay in (overlays or {}).values():
                folder.will_make(overlay=overlay)
            if overlays is not None and not self._running:
                mark = mark_of(self._vm.id, self._job, "powered_off", self._wish.temporary)
                create_off(self._connection, self._vm, self._wish.name, mark, overlays)
            elif self._may_quiesce():
                self._create_quiesced(folder, overlays)
            else:
                self._create(overlays, "crash_consistent" if self._running else "powered_off")
            failpoint("snapshot_created")

    def _leave(
        self,
        folder: WorkFolder,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._watchdog is not None and self._frozen:
            self.warnings.append(f"{self._vm.name} could not be thawed; the watchdog goes on trying.")
            self._watchdog.abandon()  # it removes the folder too
            return
        if error is not None:
            give_up(self._connection, self._vm, folder, error)
        else:
            folder.remove()
        if self._watchdog is not None:
            self._watchdog.finish()

    def _may_quiesce(self) -> bool:
        return (
            self._running
            and not self._wish.memory
            and self._wish.quiesce != "never"
            and self._vm.guest_agent
            and self._vm.power_state == "powered_on"
        )

    def _create_quiesced(self, folder: WorkFolder, overlays: Mapping[str, str] | None) -> None:
        # A guest must not stay frozen because whoever froze it was killed.
        self._watchdog = WatchdogProcess.start(uri=self._connection.uri, uuid=self._vm.id, folder=folder.path)
        try:
            with frozen(self._connection, self._vm.id, self._vm.name, self._tell):
                failpoint("snapshot_frozen")
                self._create(overlays, "quiesced")
        except VmferryError as error:
            if self._wish.quiesce == "required" or not error.message.startswith("Freezing"):
                raise
            self.warnings.append(f"{error.message} The snapshot is crash consistent.")
            self._create(overlays, "crash_consistent")

    def _tell(self, event: str) -> None:
        self._frozen = {"freeze": True, "thawed": False}.get(event, self._frozen)
        if self._watchdog is not None:
            self._watchdog.tell(event)

    def _create(self, overlays: Mapping[str, str] | None, consistency: str) -> None:
        memory = self._running and self._wish.memory
        taking_part = {disk.name for disk in _taking_part(self._vm)}
        mark = mark_of(self._vm.id, self._job, consistency, self._wish.temporary)

        def work(opened: libvirt.virConnect) -> None:
            import libvirt

            flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
            if overlays is not None:
                flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            domain = opened.lookupByUUIDString(self._vm.id)
            targets = [disk.target for disk in domain_xml.disks(domain_xml.parse(domain.XMLDesc()))]
            disks = {target: target in taking_part for target in targets}
            root = create_root(self._wish.name, mark, memory, overlays, disks)
            domain.snapshotCreateXML(ET.tostring(root, "unicode"), flags)

        self._connection.once(f"Making the snapshot {self._wish.name} of {self._vm.name}", work, self._seconds)

    def _overlays(self) -> dict[str, str]:
        found = {}
        for disk in _taking_part(self._vm):
            found[disk.name] = overlay_beside(disk.source, self._job)
        return found
