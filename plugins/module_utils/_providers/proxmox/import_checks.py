# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop an import into Proxmox VE, found without changing anything: all of it at once."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Callable, Dict, Iterable, Iterator, List, Tuple

from ..._errors import WAIT_OR_CANCEL, VmferryError
from ..base import Placement
from ..finding import Finding
from ..import_mark import ImportMark
from ..network_names import unknown_networks
from ..placement_options import IN_A_CLOUD, unknown_options
from ..spec import VmSpec
from .choose_node import open_node
from .import_hardware import PlacedDisk, drives_of, hardware_findings
from .import_leftovers import made_by, unfinished
from .import_places import ImportPlaces, Storage
from .import_privileges import privilege_findings
from .import_state import state_findings
from .inventory import Guest, guests
from .node import CommandFailed
from .session import Session

MEANS_NOTHING = ("folder", "cluster", "disk_provisioning", *IN_A_CLOUD)
NODE_COMMANDS = ("pvesm", "qemu-nbd", "python3")
MIB = 1 << 20
LONGEST_NAME = 63  # characters between two dots
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")  # dns-name
_Check = Callable[[], Iterable[Finding]]


def import_findings(session: Session, vm: VmSpec, placement: Placement, export_id: str) -> List[Finding]:
    checks = _Checks(session, vm, placement, export_id)
    steps: Tuple[_Check, ...] = (
        checks.of_name,
        lambda: unknown_options(placement, "proxmox", MEANS_NOTHING),
        lambda: unknown_networks(vm, placement),
        lambda: hardware_findings(vm, placement),
        lambda: state_findings(vm, placement),
        checks.of_vmid,
        checks.of_pool,
        checks.of_storages,
        checks.of_networks,
        checks.of_privileges,
        checks.of_node,
    )
    findings: List[Finding] = []
    for step in steps:
        findings += _told(step)
    return list(dict.fromkeys(findings))  # two may fail over the same thing


def insist_on_name(name: str) -> None:
    """Raises `invalid_config`."""
    if not _NAME.fullmatch(name) or any(len(part) > LONGEST_NAME for part in name.split(".")):
        text = f"{name} is no name of a VM on Proxmox VE, where names are as those of hosts."
        hint = f"Give it a name of letters, digits and hyphens, with at most {LONGEST_NAME} between two dots."
        raise VmferryError("invalid_config", text, hint)


def _told(check: _Check) -> Iterator[Finding]:
    try:
        yield from check()
    except VmferryError as error:
        yield Finding("error", error.message, error.hint, error.kind)


class _Checks:
    def __init__(self, session: Session, vm: VmSpec, placement: Placement, export_id: str) -> None:
        self._session, self._vm, self._placement, self._export = session, vm, placement, export_id
        self._places = ImportPlaces(session, placement)
        self._known: List[Guest] = []

    def of_name(self) -> Iterator[Finding]:
        name = self._placement.name
        yield from _told(self._of_its_form)
        self._known = guests(self._session, "Looking for VMs of that name")
        for made in unfinished(self._session, self._known):
            mark = made.mark
            if mark is not None and mark.name == name and mark.alive is not False:
                yield _under_way(mark, made.guest)
        for guest in self._known:
            if guest.name != name:
                continue
            there = made_by(self._session, guest) if guest.reachable else None
            mark = there.mark if there is not None else None
            if mark is None or mark.export != self._export:
                hint = "Import under another name, or remove that VM first."
                text = f"A VM named {name} exists already: {guest.vmid} on {guest.node}."
                yield Finding("error", text, hint, "conflict")

    def of_vmid(self) -> Iterator[Finding]:
        wanted = self._placement.vmid
        if not wanted:
            return
        try:
            with self._session.doing(f"Asking whether the vmid {wanted} is free"):
                self._session.get("cluster/nextid", vmid=wanted)
        except VmferryError as error:
            if error.kind not in ("invalid_config", "conflict"):
                raise
            owner = next((guest for guest in self._known if guest.vmid == wanted), None)
            text = f"The vmid {wanted} is taken" + (f" by {owner.name} on {owner.node}." if owner else ".")
            yield Finding("error", text, "Give another one, or leave placement.vmid out for the next free.", "conflict")

    def of_pool(self) -> Iterator[Finding]:
        wanted = self._placement.resource_pool
        if not wanted:
            return
        with self._session.doing("Listing the pools"):
            there = sorted(str(row["poolid"]) for row in self._session.get("pools"))
        if wanted not in there:
            text = f"There is no pool {wanted}, or none that {self._session.settings.who} may see."
            yield Finding("error", text, f"There are {', '.join(there) or 'none'}.", "not_found")

    def of_storages(self) -> Iterator[Finding]:
        """What thin disks take at first, and what they may take one day."""
        needed: Dict[str, Tuple[Storage, int, int]] = {}
        for disk in drives_of(self._vm, self._placement).disks:
            storage = self._places.storage_of(disk.spec)
            storage.format_of(self._placement.disk_format)
            _unused, least, most = needed.get(storage.name, (storage, 0, 0))
            needed[storage.name] = (storage, least + _at_first(disk, storage), most + disk.size)
        for name, (storage, least, most) in needed.items():
            if storage.avail is None:
                continue
            between = f"{least // MIB} to {most // MIB}" if least < most else f"{most // MIB}"
            text = f"{name} has {storage.avail // MIB} MiB free; {self._vm.name} needs {between} MiB there."
            if storage.avail < least:
                yield Finding("error", text, "Free some space, or choose another storage.", "no_space")
            elif storage.avail < most:
                yield Finding("warning", text, "Thin disks may fill it later.", "no_space")

    def of_networks(self) -> Iterator[Finding]:
        for nic in self._vm.nics:
            try:
                self._places.network_of(nic)
            except VmferryError as error:
                yield Finding("error", error.message, error.hint, error.kind)

    def of_privileges(self) -> Iterator[Finding]:
        with self._session.doing("Asking for a vmid"):
            vmid = self._placement.vmid or int(self._session.get("cluster/nextid"))
        storages = sorted({self._places.storage_of(disk).name for disk in self._vm.disks})
        bridges = self._places.bridge_paths(self._vm.nics)
        yield from privilege_findings(self._session, self._vm, self._placement, vmid, storages, bridges)

    def of_node(self) -> Iterator[Finding]:
        """Whether it lets us in, and has what writes volumes."""
        with closing(open_node(self._session, self._session.settings, self._places.node)) as node:
            try:
                node.run(["which", *NODE_COMMANDS])
            except CommandFailed as error:
                text = f"{node.name} lacks one of {', '.join(NODE_COMMANDS)} for {self._session.settings.ssh_user}."
                raise VmferryError("unsupported", text, "Is it a node of Proxmox VE, and is the user root?") from error
        return iter(())

    def _of_its_form(self) -> Iterator[Finding]:
        insist_on_name(self._placement.name)
        return iter(())


def _at_first(disk: PlacedDisk, storage: Storage) -> int:
    """Bytes: a storage without holes takes all of a disk at once."""
    if disk.spec.allocated is None or not storage.reads_zero("raw"):
        return disk.size
    return min(disk.size, disk.spec.allocated)


def _under_way(mark: ImportMark, guest: Guest) -> Finding:
    hint = WAIT_OR_CANCEL
    if mark.alive is None:
        hint += (
            f" If it died there, the next import takes that for granted 20 minutes later, and removes VM {guest.vmid}."
        )
    return Finding("error", f"{mark.name} is being made by {mark.describe()}.", hint, "busy")
