# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshots of one VM: everything that `SnapshotService` promises, of the kind that its storages have.

https://pve.proxmox.com/pve-docs/api-viewer/#/nodes/{node}/qemu/{vmid}/snapshot
"""

from __future__ import annotations

import time
from typing import Any, Collection, List, Mapping, Sequence

from ..._errors import VmferryError
from ..finding import Finding
from ..job import Job
from ..snapshots import Snapshot, SnapshotDisk, SnapshotService, SnapshotWish
from ..spec import VmSpec
from .describe import describe_again
from .drives import disks_of
from .inventory import at_once
from .power import insist_on_unlocked, path_of
from .session import Session, part
from .snapshot_checks import (
    BACK,
    PRIVILEGE,
    create_findings,
    is_frozen,
    of_privilege,
    revert_findings,
    storage_types,
    usable_findings,
)
from .snapshot_list import created, description, mark_in, mark_of, rows_of, snapshots_in, stands_on
from .tasks import log, stop

METHOD = "storage"
_LINES = 5000  # of the log of a task
# In the log of a task that made one nevertheless (PVE::QemuConfig; PVE::QemuServer::Agent from Proxmox VE 9 on).
_NOT_FROZEN = ("guest-fsfreeze-freeze problems", "unable to freeze guest fs")


class ProxmoxSnapshots(SnapshotService):
    def __init__(self, session: Session, vm: VmSpec) -> None:
        self._session, self._vm = session, vm

    def list(self) -> Sequence[Snapshot]:
        rows = self._rows()
        found = snapshots_in(rows)
        disks = at_once(self._disks, found)
        return [self._snapshot(row, rows, held) for row, held in zip(found, disks)]

    def chosen_method(self, wish: SnapshotWish) -> str:
        return METHOD

    def check_create(self, wish: SnapshotWish) -> Sequence[Finding]:
        vm = self._now()
        return [
            *usable_findings(vm),
            *create_findings(self._session, vm, wish),
            *of_privilege(self._session, vm, PRIVILEGE),
        ]

    def create(self, wish: SnapshotWish, job: Job, seconds: float) -> Sequence[str]:
        began = time.monotonic()
        vm = self._now()
        insist_on_unlocked(vm)
        memory = wish.memory and vm.power_state in ("powered_on", "paused")
        freezes = is_frozen(vm)
        required = wish.quiesce == "required" and vm.power_state == "powered_on" and not wish.memory
        if required and not freezes:
            text = f"The guest agent of {vm.name} does not answer, so its file systems cannot be frozen."
            raise VmferryError("unsupported", text, "Start qemu-guest-agent in the guest.")
        doing = f"Making the snapshot {wish.name} of {vm.name}"
        off = vm.power_state == "powered_off"
        mark = mark_of(wish, vm, job, "powered_off" if off else "crash_consistent")
        with self._session.doing(doing):
            upid = self._session.post(
                f"{path_of(vm)}/snapshot", snapname=wish.name, description=mark, vmstate=int(memory)
            )
        warnings = self._ended(upid, seconds, doing)
        if not freezes or memory:
            return warnings
        if not any(words in line for line in log(self._session, upid, _LINES) for words in _NOT_FROZEN):
            self._describe(wish.name, mark_of(wish, vm, job, "quiesced"), doing)
            return warnings
        if required:
            self.remove(wish.name, job, max(1.0, began + seconds - time.monotonic()))
            text = f"The guest agent of {vm.name} did not freeze its file systems, so the snapshot was removed."
            raise VmferryError("conflict", text, "See the guest's own log (VSS on Windows); or ask for less.")
        return [*warnings, f"The guest agent of {vm.name} did not freeze its file systems: it is crash-consistent."]

    def check_remove(self, name: str, gone: Collection[str] = ()) -> Sequence[Finding]:
        vm = self._now()
        return [*usable_findings(vm), *self._of_name(name), *of_privilege(self._session, vm, PRIVILEGE)]

    def remove(self, name: str, job: Job, seconds: float) -> Sequence[str]:
        """Of one whose removal had begun and was cut off, what is left goes by force, as people do it there."""
        vm = self._now()
        insist_on_unlocked(vm)
        row = self._find(name)
        doing = f"Removing the snapshot {name} of {vm.name}"
        force = {"force": 1} if row.get("snapstate") else {}
        with self._session.doing(doing):
            upid = self._session.delete(f"{path_of(vm)}/snapshot/{part(name)}", **force)
        return self._ended(upid, seconds, doing)

    def check_revert(self, name: str) -> Sequence[Finding]:
        vm = self._now()
        kinds = storage_types(self._session, vm)
        return [
            *usable_findings(vm),
            *self._of_name(name),
            *revert_findings(vm, name, self._rows(), kinds),
            *of_privilege(self._session, vm, PRIVILEGE, BACK),
        ]

    def revert(self, name: str, job: Job, seconds: float) -> Sequence[str]:
        vm = self._now()
        insist_on_unlocked(vm)
        row = self._find(name)
        doing = f"Taking {vm.name} back to the snapshot {name}"
        with self._session.doing(doing):
            upid = self._session.post(f"{path_of(vm)}/snapshot/{part(name)}/rollback")
        warnings = self._ended(upid, seconds, doing)
        if vm.power_state == "powered_on" and not int(row.get("vmstate") or 0):
            return [*warnings, f"{vm.name} ran and is off now: the snapshot {name} holds no memory."]
        return warnings

    def needs_consolidation(self) -> bool:
        raise VmferryError(
            "unsupported",
            "Snapshots on Proxmox VE are never merged here: what a removed one held, its storage gives free itself.",
            "Remove those that are not needed with state: absent.",
        )

    def _describe(self, name: str, mark: str, doing: str) -> None:
        with self._session.doing(doing):
            self._session.put(f"{path_of(self._vm)}/snapshot/{part(name)}/config", description=mark)

    def _ended(self, upid: str, seconds: float, doing: str) -> List[str]:
        """A task that takes longer is ended by Proxmox VE, which undoes a snapshot that is not whole."""
        try:
            return self._session.wait(upid, seconds, doing)
        except VmferryError as error:
            if error.kind == "timeout":
                stop(self._session, upid, doing)
            raise

    def _of_name(self, name: str) -> Sequence[Finding]:
        try:
            self._find(name)
        except VmferryError as error:
            return [Finding("error", error.message, error.hint, error.kind)]
        return []

    def _find(self, name: str) -> Mapping[str, Any]:
        for row in snapshots_in(self._rows()):
            if row["name"] == name:
                return row
        hint = "List them with disk_snapshot_info."
        raise VmferryError("not_found", f"{self._vm.name} has no snapshot {name}.", hint)

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        return rows_of(self._session, path_of(self._vm), self._vm.name)

    def _disks(self, row: Mapping[str, Any]) -> Sequence[SnapshotDisk]:
        """Those that the VM had then. Nothing of a snapshot that is gone by now."""
        try:
            with self._session.doing(f"Looking at the snapshot {row['name']} of {self._vm.name}"):
                config = self._session.get(f"{path_of(self._vm)}/snapshot/{part(row['name'])}/config")
        except VmferryError as error:
            if error.kind != "not_found":
                raise
            return ()
        return tuple(SnapshotDisk(one.key, f"{one.volume.text}@{row['name']}") for one in disks_of(config))

    def _snapshot(
        self, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], disks: Sequence[SnapshotDisk]
    ) -> Snapshot:
        mark = mark_in(row)
        ours = mark.get("vm") == self._vm.id
        memory = bool(int(row.get("vmstate") or 0))
        power = mark.get("power", "unknown") if ours else "powered_on" if memory else "unknown"
        name = str(row["name"])
        return Snapshot(
            name=name,
            created=created(row),
            description=description(row),
            current=stands_on(rows) == name,
            parent=str(row.get("parent") or ""),
            children=tuple(str(one["name"]) for one in snapshots_in(rows) if one.get("parent") == name),
            power_state=power,  # type: ignore[arg-type]
            memory=memory,
            method=METHOD if disks else "",
            disks=tuple(disks),
            ours=ours,
            job=mark.get("job", "") if ours else "",
            consistency=mark.get("consistency", "") if ours else "",
            whole=not row.get("snapstate"),
        )

    def _now(self) -> VmSpec:
        self._vm = describe_again(self._session, self._vm)
        return self._vm
