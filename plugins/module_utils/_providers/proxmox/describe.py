# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs described: what is asked for of each, several at a time, and what is made of the answers.

https://pve.proxmox.com/pve-docs/api-viewer/#/nodes/{node}/qemu/{vmid}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..._appliances.qm_words import DEFAULT_MEMORY_MB, EFI_DISK, TPM_STATE
from ..._errors import VmferryError
from ..import_mark import WHOLE, mark_in
from ..spec import DiskSpec, PowerState, VmSpec
from .drives import Drive, disks_of, drives_of, nics_of, own_state, properties, unused_volumes
from .inventory import Guest, at_once, guests, tags_in
from .lookup import found
from .session import Session, part
from .snapshot_list import listed, rows_of

FEW = 8  # VMs of which the storages are asked, too: that takes them long where they are many
# Of QEMU, as `qmpstatus` tells them: https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html (RunState)
_STATES: Mapping[str, PowerState] = {
    "running": "powered_on",
    "stopped": "powered_off",
    "paused": "paused",
    "prelaunch": "paused",
    "io-error": "paused",
    "watchdog": "paused",
    "debug": "paused",
    "suspended": "suspended",
    "internal-error": "paused",  # its process is there, and holds its disks
    "guest-panicked": "paused",
    "shutdown": "powered_on",
    "colo": "powered_on",
    "save-vm": "powered_on",
    "restore-vm": "powered_on",
    "postmigrate": "paused",
    "finish-migrate": "paused",
    "inmigrate": "paused",
}
_HIBERNATED = "suspended"  # the lock of a VM whose memory lies on a disk
_SYSTEMS = {"l": "Linux", "w": "Microsoft Windows", "solaris": "Solaris"}  # by what `ostype` begins with
_OF_HOST = re.compile(r"(hostpci|usb|virtiofs|ivshmem)\d*")


def describe_all(session: Session, filters: Mapping[str, str]) -> List[VmSpec]:
    """All that are there and may fit; the filters are those of `vm_info`."""
    doing = "Listing the VMs"
    chosen = [guest for guest in guests(session, doing) if _may_fit(guest, filters)]
    return [vm for vm in at_once(lambda guest: _described(session, guest, doing), chosen) if vm is not None]


def describe_each(session: Session, vms: Sequence[str]) -> List[VmSpec]:
    """In the order asked for. Raises `not_found`, `conflict` of a name that is not one VM's alone, and `network` for a
    VM whose node is away."""
    doing = f"Describing {vms[0]}" if len(vms) == 1 else f"Describing {len(vms)} VMs"
    chosen = found(session, vms, doing)
    for guest in chosen:
        if not guest.reachable:
            text = f"{guest.name} ({guest.vmid}) is on {guest.node}, which cannot be reached in its cluster."
            raise VmferryError("network", text, "Start that node. If it is lost for good, see ha-manager(1).")
    few = len(chosen) <= FEW
    specs = at_once(lambda guest: _described(session, guest, doing, with_storages=few), chosen)
    for guest, vm in zip(chosen, specs):
        if vm is None:
            raise VmferryError("not_found", f"{doing} failed: {guest.name} ({guest.vmid}) was just removed or moved.")
    return [vm for vm in specs if vm is not None]


def describe_again(session: Session, vm: VmSpec) -> VmSpec:
    """As it is now, by its vmid, wherever it is now."""
    return describe_each(session, [vm.id])[0]


def _may_fit(guest: Guest, filters: Mapping[str, str]) -> bool:
    """As far as lists tell. A state that only QEMU knows is not among what they tell of one that runs."""
    name, tag, state = (filters.get(one) or "" for one in ("name", "tag", "power_state"))
    if (name and not fnmatchcase(guest.name, name)) or (tag and tag not in guest.tags):
        return False
    return not state or guest.status == "unknown" or (guest.status == "stopped") == (state in _WHEN_STOPPED)


_WHEN_STOPPED = ("powered_off", "suspended")


@dataclass(frozen=True)
class _Facts:
    guest: Guest
    config: Mapping[str, Any]  # as it runs now, not as it will after its next start
    current: Mapping[str, Any]
    snapshots: Sequence[Mapping[str, Any]]
    agent: bool
    volumes: Mapping[str, Mapping[str, Any]]  # by their ids, as their storages tell


def _described(session: Session, guest: Guest, doing: str, with_storages: bool = False) -> Optional[VmSpec]:
    """None of one that is gone meanwhile."""
    if not guest.reachable:
        return _spec(_Facts(guest, {}, {}, (), False, {}))
    try:
        with session.doing(f"{doing}: {guest.name} ({guest.vmid})" if guest.name not in doing else doing):
            config = session.get(f"{guest.path}/config", current=1)
            current = session.get(f"{guest.path}/status/current")
    except VmferryError as error:
        if error.kind == "not_found":
            return None
        raise
    runs = current.get("status") == "running"
    return _spec(
        _Facts(
            guest,
            config,
            current,
            rows_of(session, guest.path, guest.name),
            runs and has_agent(config) and _agent_answers(session, guest),
            _volumes(session, guest, config) if with_storages else {},
        )
    )


def _agent_answers(session: Session, guest: Guest) -> bool:
    """Whoever may not ask is told that it does not."""
    try:
        with session.doing(f"Asking the guest agent of {guest.name}"):
            session.post(f"{guest.path}/agent/ping")
    except VmferryError:
        return False
    return True


def has_agent(config: Mapping[str, Any]) -> bool:
    return properties(config.get("agent"), "enabled").get("enabled") in ("1", "yes", "on", "true")


def agent_freezes(config: Mapping[str, Any]) -> bool:
    """Whether file systems may be frozen by it. The option has had three names."""
    said = properties(config.get("agent"), "enabled")
    names = ("freeze-fs", "guest-fsfreeze", "freeze-fs-on-backup")
    return has_agent(config) and not any(said.get(name) in ("0", "no", "off", "false") for name in names)


def _volumes(session: Session, guest: Guest, config: Mapping[str, Any]) -> Dict[str, Mapping[str, Any]]:
    """Nothing of a storage that this user may not look into, or that does not answer."""
    told: Dict[str, Mapping[str, Any]] = {}
    drives = [drive for drive in drives_of(config) if not drive.is_medium]
    for storage in sorted({drive.volume.storage for drive in drives} - {""}):
        try:
            with session.doing(f"Looking at the disks of {guest.name}"):
                path = f"nodes/{part(guest.node)}/storage/{part(storage)}/content"
                told.update((row["volid"], row) for row in session.get(path, vmid=guest.vmid))
        except VmferryError:
            continue
    return told


def _spec(facts: _Facts) -> VmSpec:
    guest, config = facts.guest, facts.config
    own = own_state(config)
    cdroms = [drive for drive in drives_of(config) if drive.is_medium]
    return VmSpec(
        provider="proxmox",
        id=str(guest.vmid),
        name=str(config.get("name") or guest.name),
        path=f"{guest.node}/{guest.vmid}",
        power_state=power_state(facts.current),
        cpu=_cpus(config),
        memory_mb=_memory(config),
        firmware="uefi" if config.get("bios") == "ovmf" else "bios" if config else "unknown",
        disks=_disks(facts),
        nics=nics_of(config),
        snapshots=listed(facts.snapshots),
        secure_boot=EFI_DISK in own and own[EFI_DISK].is_on("pre-enrolled-keys"),
        tpm=TPM_STATE in own,
        architecture=str(config.get("arch") or "x86_64"),
        machine=properties(config.get("machine"), "type").get("type", ""),
        guest_os=_system(str(config.get("ostype") or "")),
        guest_agent=facts.agent,
        tags=tags_in(config.get("tags")) or guest.tags,
        host=guest.node,
        details=_details(facts, own, cdroms),
    )


def power_state(current: Mapping[str, Any]) -> PowerState:
    """Of what `status/current` tells."""
    if current.get("status") == "stopped":
        return "suspended" if current.get("lock") == _HIBERNATED else "powered_off"
    return _STATES.get(str(current.get("qmpstatus") or current.get("status")), "unknown")


def _cpus(config: Mapping[str, Any]) -> int:
    most = int(config.get("sockets") or 1) * int(config.get("cores") or 1)
    return int(config.get("vcpus") or most) if config else 0


def _memory(config: Mapping[str, Any]) -> int:
    said = properties(config.get("memory"), "current").get("current", "")
    return int(said) if said.isdigit() else DEFAULT_MEMORY_MB if config else 0


def _system(kind: str) -> str:
    for start, name in _SYSTEMS.items():
        if kind.startswith(start):
            return f"{name} ({kind})"
    return ""


def _disks(facts: _Facts) -> Tuple[DiskSpec, ...]:
    disks = disks_of(facts.config)
    boots = bool(properties(facts.config.get("boot"), "legacy").get("order") or facts.config.get("bootdisk"))
    return tuple(_disk(number, drive, facts, number == 0 and boots) for number, drive in enumerate(disks))


def _disk(number: int, drive: Drive, facts: _Facts, boot: bool) -> DiskSpec:
    told = facts.volumes.get(drive.volume.text, {})
    used = told.get("used")
    return DiskSpec(
        id=f"disk-{number}",
        name=drive.key,
        size=int(told.get("size") or 0) or drive.size,
        format=drive.options.get("format") or str(told.get("format") or drive.volume.format),
        bus=drive.bus,
        source=drive.volume.text,
        storage=drive.volume.storage,
        allocated=int(used) if used is not None else None,
        boot=boot,
        change_tracking=bool(drive.volume.storage),
        read_only=drive.is_on("ro"),
        serial=drive.options.get("serial", ""),
        details={
            "owner": drive.volume.owner,
            "in_backups": drive.is_on("backup", default=True),
            "shared": drive.is_on("shared"),
            "in_snapshots": drive.is_on("snapshot", default=True),
            "stands_on": drive.volume.stands_on,
            "options": dict(drive.options),
        },
    )


def _details(facts: _Facts, own: Mapping[str, Drive], cdroms: Sequence[Drive]) -> Dict[str, Any]:
    guest, config, current = facts.guest, facts.config, facts.current
    return {
        "vmid": guest.vmid,
        "node": guest.node,
        "reachable": guest.reachable,
        "template": guest.template or bool(int(config.get("template") or 0)),
        "pool": guest.pool,
        "lock": str(current.get("lock") or config.get("lock") or guest.lock),
        "qmp_status": str(current.get("qmpstatus") or ""),
        "qemu": str(current.get("running-qemu") or ""),
        "running_machine": str(current.get("running-machine") or ""),
        "uuid": properties(config.get("smbios1")).get("uuid", ""),
        "generation_id": str(config.get("vmgenid") or ""),
        "agent_enabled": has_agent(config),
        "agent_freezes": agent_freezes(config),
        "description": str(config.get("description") or ""),
        "boot": str(config.get("boot") or ""),
        "bios": str(config.get("bios") or "seabios"),
        "scsi_controller": str(config.get("scsihw") or "lsi"),
        "cpu_type": properties(config.get("cpu"), "cputype").get("cputype", ""),
        "sockets": int(config.get("sockets") or 1),
        "cores": int(config.get("cores") or 1),
        "os_type": str(config.get("ostype") or ""),
        "start_at_boot": bool(int(config.get("onboot") or 0)),
        "protected": bool(int(config.get("protection") or 0)),
        "ha": str((current.get("ha") or {}).get("state") or "") if _is_ha(current) else "",
        "efi_disk": own[EFI_DISK].volume.text if EFI_DISK in own else "",
        "tpm_state": own[TPM_STATE].volume.text if TPM_STATE in own else "",
        "cloud_init": next((drive.volume.text for drive in cdroms if drive.volume.is_cloud_init), ""),
        "cdroms": [{"name": drive.key, "source": drive.volume.text} for drive in cdroms],
        "floppies": [],
        "unused_volumes": unused_volumes(config),
        "of_its_node": sorted(key for key in config if _OF_HOST.fullmatch(key)),
        "arguments": str(config.get("args") or ""),
        "config_digest": str(config.get("digest") or ""),
        "imported_from": _imported_from(str(config.get("description") or "")),
    }


def _imported_from(notes: str) -> Dict[str, str]:
    """The export, and the VM that was exported; empty for a VM that no import of ours made, or has not made yet."""
    mark = mark_in(notes)
    return mark.imported_from if mark is not None and mark.state == WHOLE else {}


def _is_ha(current: Mapping[str, Any]) -> bool:
    return bool(int((current.get("ha") or {}).get("managed") or 0))
