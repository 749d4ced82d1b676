# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop an import into vSphere, found without changing anything: all of it at once."""

from __future__ import annotations

import re
from functools import partial
from typing import Callable, Iterable, Iterator, Sequence, Tuple

from ..._errors import WAIT_OR_CANCEL, VmferryError
from ..base import Placement
from ..finding import Finding
from ..network_names import unknown_networks
from ..placement_options import IN_A_CLOUD, ON_PROXMOX, unknown_options
from ..spec import VmSpec
from .import_hardware import hardware_findings, uuid_of
from .import_leftovers import called, machines
from .import_places import ImportPlaces, name_of
from .import_spec import PROVISIONING
from .privileges import of_privileges
from .properties import Row
from .session import Session

MIB = 1 << 20
LONGEST_NAME = 80  # characters of a VM's name
_NO_NAME = re.compile(r"[/\\%]")  # which vSphere writes in another way
# Of what is named by the task, and what ImportVApp and the calls after it ask for on it.
ON_FOLDER = (
    "VirtualMachine.Inventory.Create",
    "VirtualMachine.Inventory.Delete",
    "VirtualMachine.Config.AddNewDisk",
    "VirtualMachine.Config.Annotation",
    "VirtualMachine.Config.Settings",
)
ON_POOL = ("VApp.Import", "Resource.AssignVMToPool")
ON_DATASTORE, ON_NETWORK, TO_START = "Datastore.AllocateSpace", "Network.Assign", "VirtualMachine.Interact.PowerOn"
_Check = Callable[[], Iterable[Finding]]


def import_findings(session: Session, vm: VmSpec, placement: Placement, export_id: str) -> list[Finding]:
    places = ImportPlaces(session, placement)
    checks: Sequence[_Check] = (
        lambda: _of_name(session, placement, export_id, places),
        lambda: unknown_options(placement, "vsphere", (*IN_A_CLOUD, *ON_PROXMOX)),
        lambda: _of_options(vm, placement),
        lambda: unknown_networks(vm, placement),
        lambda: hardware_findings(vm, placement),
        _Places(session, vm, placement, places).findings,
    )
    findings: list[Finding] = []
    for check in checks:
        findings += _told(check)
    return list(dict.fromkeys(findings))  # two may fail over the same place


def _told(check: _Check) -> Iterator[Finding]:
    try:
        yield from check()
    except VmferryError as error:
        yield Finding("error", error.message, error.hint, error.kind)


def _of_name(session: Session, placement: Placement, export_id: str, places: ImportPlaces) -> Iterator[Finding]:
    name = placement.name
    if len(name) > LONGEST_NAME:
        text = f"{name} has {len(name)} characters, and vSphere's names of VMs up to {LONGEST_NAME}."
        yield Finding("error", text, "Give it a shorter name.", "invalid_config")
    if _NO_NAME.search(name):
        text = f"{name} has a slash, a backslash or a percent sign, which names of VMs on vSphere have not."
        yield Finding(
            "error", text, "Give it a name without. Its folder is said by placement.folder.", "invalid_config"
        )
    for found in called(machines(session), name, places.folder):
        mark = found.mark
        if mark is not None and mark.export == export_id and not found.is_unfinished:
            continue
        if mark is not None and found.is_unfinished and mark.alive is not False:
            hint = WAIT_OR_CANCEL
            if mark.alive is None:
                hint += " If it died there, vSphere removes the VM some minutes later by itself. If not, do it with "
                hint += "vmferry.migrate.vm and state: absent."
            yield Finding("error", f"{name} is being made by {mark.describe()}.", hint, "busy")
        elif mark is None or not found.is_unfinished:  # or the import itself removes it before it begins
            hint = "Import under another name or into another folder, or remove that VM first."
            yield Finding(
                "error", f"A VM named {name} exists already in {places.path_of(found.folder)}.", hint, "conflict"
            )


def _of_options(vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    if placement.disk_provisioning not in ("", *PROVISIONING):
        hint = f"Use one of {', '.join(PROVISIONING)}."
        yield Finding(
            "error", f"{placement.disk_provisioning} is no way to make disks on vSphere.", hint, "invalid_config"
        )
    if placement.keep_uuid and not uuid_of(vm):
        text = f"Nobody knows the UUID that {vm.name} had, which placement.keep_uuid asks to keep."
        yield Finding("error", text, "Leave it out.", "invalid_config")


class _Places:
    """Where it is to go, and what the user may do there."""

    def __init__(self, session: Session, vm: VmSpec, placement: Placement, places: ImportPlaces) -> None:
        self._session, self._vm, self._placement, self._places = session, vm, placement, places
        self._wanted: dict[str, Tuple[str, str, Sequence[str]]] = {}  # by MoRef: type, name, and privileges on it

    def findings(self) -> Iterator[Finding]:
        for check in (self._of_folder, self._of_pool, self._of_datastores, self._of_networks):
            yield from _told(check)
        for moref, (kind, name, privileges) in self._wanted.items():
            yield from _told(partial(of_privileges, self._session, kind, moref, name, privileges))

    def _of_folder(self) -> Iterable[Finding]:
        folder = self._places.folder
        more = (TO_START,) if self._placement.power_on else ()
        self._wanted[folder] = ("Folder", self._places.path_of(folder), (*ON_FOLDER, *more))
        return ()

    def _of_pool(self) -> Iterable[Finding]:
        pool, _chosen = self._places.pool, self._places.host
        self._wanted[pool] = ("ResourcePool", self._places.path_of(pool), ON_POOL)
        return ()

    def _of_networks(self) -> Iterator[Finding]:
        for nic in self._vm.nics:
            try:
                found = self._places.network_of(nic)
            except VmferryError as error:
                yield Finding("error", error.message, error.hint, error.kind)
            else:
                self._wanted[found.moref] = (found.kind, name_of(found), (ON_NETWORK,))

    def _of_datastores(self) -> Iterator[Finding]:
        """What thin disks take at first, and what they may take one day."""
        thin = self._placement.disk_provisioning in ("", "thin")
        needed: dict[str, Tuple[Row, int, int]] = {}
        for disk in self._vm.disks:
            store = self._places.datastore_of(disk)
            _unused, least, most = needed.get(store.moref, (store, 0, 0))
            takes = disk.size if disk.allocated is None or not thin else min(disk.size, disk.allocated)
            needed[store.moref] = (store, least + takes, most + disk.size)
        for moref, (store, least, most) in needed.items():
            name, free = name_of(store), int(store.get("summary.freeSpace") or 0)
            self._wanted[moref] = ("Datastore", name, (ON_DATASTORE,))
            between = f"{least // MIB} to {most // MIB}" if least < most else f"{most // MIB}"
            text = f"{name} has {free // MIB} MiB free; {self._vm.name} needs {between} MiB there."
            if free < least:
                yield Finding("error", text, "Free some space, or choose another datastore.", "no_space")
            elif free < most:
                yield Finding("warning", text, "Thin disks may fill it later.", "no_space")
