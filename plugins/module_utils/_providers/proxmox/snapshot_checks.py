# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop or weaken work on the snapshots of a VM, found without changing anything."""

from __future__ import annotations

import re
from typing import Any, Iterator, List, Mapping, Sequence

from ..._errors import VmferryError
from ..finding import Finding
from ..snapshots import SnapshotWish
from ..spec import VmSpec
from .drives import Volume
from .errors import grant, locked
from .session import Session, part
from .snapshot_list import NOW, created, snapshots_in

LONGEST_NAME = 40  # characters (PVE::JSONSchema, pve-snapshot-name)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]+")
_RESERVED = (NOW, "pending")
_IN_IMAGES = ("dir", "nfs", "cifs", "glusterfs", "cephfs", "btrfs")  # storages of files
_BY_THEMSELVES = ("lvmthin", "zfspool", "rbd", "btrfs", "zfs")  # storages that make snapshots of any volume
_NEWEST_ALONE = ("zfspool", "zfs")  # storages that go back to the newest snapshot, or destroy those after it
PRIVILEGE, BACK = "VM.Snapshot", "VM.Snapshot.Rollback"


def usable_findings(vm: VmSpec) -> Iterator[Finding]:
    if vm.details["template"]:
        text = f"{vm.name} is a template, which has no snapshots."
        yield Finding("error", text, "Clone it first.", "unsupported")
    if vm.details["lock"]:
        error = locked(f"{vm.name} ({vm.id})", vm.details["lock"], vm.id)
        yield Finding("error", error.message, error.hint, error.kind)


def create_findings(session: Session, vm: VmSpec, wish: SnapshotWish) -> Iterator[Finding]:
    yield from _of_wish(wish)
    yield from _of_guest(vm, wish)
    kinds = storage_types(session, vm)
    yield from disk_findings(vm, kinds)


def disk_findings(vm: VmSpec, kinds: Mapping[str, str]) -> Iterator[Finding]:
    """`kinds`: of its storages, as far as this user may know. Which of them make snapshots:
    https://pve.proxmox.com/wiki/Storage"""
    volumes = {disk.name: disk.source for disk in vm.disks}
    volumes.update((name, vm.details[name]) for name in ("efi_disk", "tpm_state") if vm.details[name])
    for name, source in volumes.items():
        volume = Volume(source)
        kind = kinds.get(volume.storage, "")
        label = f"{name} of {vm.name} ({source})"
        if not volume.storage:
            text = f"{label} is no volume of Proxmox VE's, of which it makes no snapshots."
            yield Finding("error", text, "Detach it meanwhile.", "unsupported")
        elif kind and not makes_snapshots(kind, volume):
            text = f"{label} is {volume.format} on a storage of type {kind}, which makes no snapshots of it."
            hint = "Move it to one that does, or in a storage of files to the format qcow2: qm disk move."
            yield Finding("error", text, hint, "unsupported")


def makes_snapshots(kind: str, volume: Volume) -> bool:
    """LVM does from Proxmox VE 9 on, of volumes in the format qcow2."""
    return kind in _BY_THEMSELVES or (kind in (*_IN_IMAGES, "lvm") and volume.format == "qcow2")


def revert_findings(
    vm: VmSpec, name: str, rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]
) -> Iterator[Finding]:
    newer = _after(rows, name)
    hard = sorted({disk.storage for disk in vm.disks if kinds.get(disk.storage) in _NEWEST_ALONE})
    if newer and hard:
        text = (
            f"{', '.join(newer)} of {vm.name} came after {name}, and ZFS on {', '.join(hard)} goes back to the newest."
        )
        yield Finding("error", text, "Remove those first, if they may go.", "conflict")


def of_privilege(session: Session, vm: VmSpec, *privileges: str) -> List[Finding]:
    """One of them is enough. Nothing where it cannot be asked: then the real call tells."""
    path = f"/vms/{vm.id}"
    try:
        with session.doing(f"Looking at privileges on {vm.name}"):
            told = session.get("access/permissions", path=path)
    except VmferryError as error:
        if error.kind not in ("unsupported", "permission_denied"):
            raise
        return []
    granted = told.get(path) or {}  # what each privilege has there is whether it is handed down
    if not granted or any(one in granted for one in privileges):
        return []
    who = session.settings.who
    wanted = " or ".join(privileges)
    text = f"{who} lacks the privilege {wanted} on {path}."
    return [Finding("error", text, grant(who, path, wanted), "permission_denied")]


def storage_types(session: Session, vm: VmSpec) -> Mapping[str, str]:
    """By name, of those that this user may look at."""
    with session.doing(f"Looking at the storages of {vm.name}"):
        rows = session.get(f"nodes/{part(vm.details['node'])}/storage")
    return {row["storage"]: str(row.get("type") or "") for row in rows}


def _of_wish(wish: SnapshotWish) -> Iterator[Finding]:
    if wish.method != "auto":
        text = "Which kind of snapshot it is, on Proxmox VE only the storage decides."
        yield Finding("error", text, "Leave method out.", "unsupported")
    if wish.temporary:
        yield Finding("error", "Temporary snapshots on Proxmox VE are not supported.", "", "unsupported")
    if not _NAME.fullmatch(wish.name) or len(wish.name) > LONGEST_NAME or wish.name in _RESERVED:
        text = f"{wish.name} cannot be the name of a snapshot on Proxmox VE."
        hint = f"It has 2 to {LONGEST_NAME} letters, digits, hyphens and underscores, and begins with a letter."
        yield Finding("error", text, hint, "invalid_config")


def is_frozen(vm: VmSpec) -> bool:
    """Whether Proxmox VE freezes its file systems for a snapshot without memory: nobody can tell it not to."""
    return vm.power_state == "powered_on" and vm.guest_agent and bool(vm.details["agent_freezes"])


def _of_guest(vm: VmSpec, wish: SnapshotWish) -> Iterator[Finding]:
    if wish.memory or vm.power_state != "powered_on":
        return
    if is_frozen(vm) and wish.quiesce == "never":
        text = f"Proxmox VE itself freezes the file systems of {vm.name} for the moment, since its agent answers."
        yield Finding("warning", text, "Switch the option agent of the VM off, if it must not.")
    elif not is_frozen(vm) and wish.quiesce != "never":
        why = "may not freeze" if vm.guest_agent else "does not answer, so it cannot freeze"
        text = f"The guest agent of {vm.name} {why} its file systems."
        if wish.quiesce == "required":
            hint = "Start qemu-guest-agent in the guest, and switch the option agent of the VM on."
            yield Finding("error", text, hint, "unsupported")
        else:
            yield Finding("warning", text, "The snapshot will be crash-consistent.")


def _after(rows: Sequence[Mapping[str, Any]], name: str) -> List[str]:
    """Names of those that were made later."""
    when = {row["name"]: created(row) for row in snapshots_in(rows)}
    order = list(when)
    return order[order.index(name) + 1 :] if name in when else []
