# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From libvirt's description of a VM to ours."""

from __future__ import annotations

import re
import stat
import xml.etree.ElementTree as ET
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping

from ..._errors import VmferryError
from ..spec import DiskSpec, PowerState, SnapshotSpec, VmSpec
from . import domain_xml
from .connection import LONG_CALL_LIMIT, Connection
from .errors import is_disconnect
from .import_leftovers import NAMESPACE

if TYPE_CHECKING:
    import libvirt

UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
# virDomainState: nostate, running, blocked, paused, shutting down, shut off, crashed, suspended by the guest
STATES: tuple[PowerState, ...] = (
    "unknown",
    "powered_on",
    "powered_on",
    "paused",
    "powered_on",
    "powered_off",
    "crashed",
    "suspended",
)
KIB = 1024
SECTOR = 512  # bytes; of stat(2)'s st_blocks on every file system
Statistics = Mapping[str, Any]


def describe_all(connection: Connection) -> list[VmSpec]:
    """One round trip for every VM's state and its disks' sizes, two more for each VM."""

    def work(opened: libvirt.virConnect) -> list[VmSpec]:
        import libvirt

        wanted = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_BLOCK
        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT  # a VM whose job takes long must not hold up the rest
        host, found = opened.getHostname(), []
        for domain, statistics in opened.getAllDomainStats(wanted, flags):
            try:
                found.append(_Description(opened, domain, host, statistics).spec())
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it may be gone by now
                    raise
        return found

    return connection.call("Listing the VMs", work, limit=LONG_CALL_LIMIT)


def describe(connection: Connection, vm: str) -> VmSpec:
    """By name or UUID. Raises `not_found`."""

    def work(opened: libvirt.virConnect) -> VmSpec:
        return _Description(opened, lookup(opened, vm), opened.getHostname(), {}).spec()

    return connection.call(f"Describing {vm}", work)


def lookup(opened: libvirt.virConnect, vm: str) -> libvirt.virDomain:
    import libvirt

    ways = [opened.lookupByName]
    if UUID.fullmatch(vm):
        ways.insert(0, opened.lookupByUUIDString)
    for way in ways:
        try:
            return way(vm)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    raise VmferryError(
        "not_found",
        f"There is no VM {vm} at {opened.getURI()}.",
        "List the VMs that are there with vmferry.migrate.vm_info.",
    )


class _Description:
    def __init__(
        self, opened: libvirt.virConnect, domain: libvirt.virDomain, host: str, statistics: Statistics
    ) -> None:
        self._opened, self._domain, self._host = opened, domain, host
        self._root = domain_xml.parse(domain.XMLDesc())
        self._blocks = _by_disk(statistics)
        state = statistics.get("state.state")
        self._state = STATES[domain.state()[0] if state is None else state]

    def spec(self) -> VmSpec:
        root, name = self._root, self._domain.name()
        all_disks = domain_xml.disks(root)
        machine = root.find("os/type")
        return VmSpec(
            provider="libvirt",
            id=self._domain.UUIDString(),
            name=name,
            path=name,
            power_state=self._state,
            cpu=int(attribute_or_text(root, "vcpu", "current") or 1),
            memory_mb=int(domain_xml.text_of(root, "memory", "0")) // KIB,
            firmware="uefi" if domain_xml.is_uefi(root) else "bios",
            disks=self._disks(all_disks),
            nics=domain_xml.nics(root),
            snapshots=self._snapshots(),
            secure_boot=domain_xml.has_secure_boot(root),
            tpm=root.find("devices/tpm") is not None,
            architecture="" if machine is None else machine.get("arch", ""),
            machine="" if machine is None else machine.get("machine", ""),
            guest_os=domain_xml.guest_os(root),
            guest_agent=domain_xml.agent_connected(root),
            tags=domain_xml.tags(root),
            host=self._host,
            details=self._details(all_disks),
        )

    def _disks(self, all_disks: list[domain_xml.Disk]) -> tuple[DiskSpec, ...]:
        chosen = [disk for disk in all_disks if disk.device == "disk"]
        bootable = any(boot.get("dev") == "hd" for boot in self._root.iterfind("os/boot"))
        found = []
        for number, disk in enumerate(chosen):
            size, allocated = self._size(disk)
            found.append(
                DiskSpec(
                    id=f"disk-{number}",
                    name=disk.target,
                    size=size,
                    format=disk.format,
                    bus=disk.bus,
                    source=self._path(disk),
                    storage=disk.pool,
                    allocated=allocated,
                    boot=number == 0 and (bootable or disk.order != domain_xml.NO_ORDER),
                    change_tracking=disk.format == "qcow2",
                    read_only=disk.read_only,
                    serial=disk.serial,
                )
            )
        return tuple(found)

    def _size(self, disk: domain_xml.Disk) -> tuple[int, int | None]:
        """0 where nobody knows: a volume that is gone, or a network disk of a VM that is off."""
        import libvirt

        known = self._blocks.get(disk.target, {})
        if known.get("capacity"):
            return known["capacity"], self._allocated(disk, known)
        try:
            if disk.kind == "volume" and not self._domain.isActive():
                _unused, capacity, allocation = self._volume(disk).info()
            else:
                capacity, allocation, _unused = self._domain.blockInfo(disk.target)
        except libvirt.libvirtError as error:
            if is_disconnect(error):
                raise
            return 0, None
        return capacity, allocation

    def _allocated(self, disk: domain_xml.Disk, known: Mapping[str, int]) -> int | None:
        """The statistics of a VM that runs tell how far it has written since it was started, not what its image takes:
        https://libvirt.org/html/libvirt-libvirt-domain.html#VIR_DOMAIN_STATS_BLOCK
        """
        if self._state in ("powered_off", "crashed"):
            return known.get("allocation")
        try:
            found = Path(self._path(disk)).stat()
        except OSError:
            return None
        return found.st_blocks * SECTOR if stat.S_ISREG(found.st_mode) else known.get("allocation")

    def _path(self, disk: domain_xml.Disk) -> str:
        import libvirt

        if disk.kind != "volume":
            return disk.source
        try:
            path: str = self._volume(disk).path()
        except libvirt.libvirtError as error:
            if is_disconnect(error):
                raise
            return disk.source
        return path

    def _volume(self, disk: domain_xml.Disk) -> libvirt.virStorageVol:
        return self._opened.storagePoolLookupByName(disk.pool).storageVolLookupByName(disk.source)

    def _snapshots(self) -> tuple[SnapshotSpec, ...]:
        found = []
        for snapshot in self._domain.listAllSnapshots():
            root = domain_xml.parse(snapshot.getXMLDesc())
            seconds = int(domain_xml.text_of(root, "creationTime", "0"))
            found.append(
                SnapshotSpec(
                    name=snapshot.getName(),
                    created=datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    description=domain_xml.text_of(root, "description"),
                    current=bool(snapshot.isCurrent()),
                )
            )
        return tuple(sorted(found, key=lambda one: (one.created, one.name)))

    def _details(self, all_disks: list[domain_xml.Disk]) -> dict[str, Any]:
        return {
            "title": domain_xml.text_of(self._root, "title"),
            "description": domain_xml.text_of(self._root, "description"),
            "persistent": bool(self._domain.isPersistent()),
            "domain_type": self._root.get("type", ""),
            "agent_channel": domain_xml.has_agent_channel(self._root),
            "cdroms": _other(all_disks, "cdrom"),
            "floppies": _other(all_disks, "floppy"),
            "luns": _other(all_disks, "lun"),
            "disk_types": {disk.target: disk.kind for disk in all_disks if disk.device == "disk"},
            "shareable": [disk.target for disk in all_disks if disk.shareable],
            "encrypted": [disk.target for disk in all_disks if disk.encrypted],
            "imported_from": self._imported_from(),
        }

    def _imported_from(self) -> dict[str, str]:
        """The export, and the VM that was exported; empty for a VM that no import of ours made."""
        found = self._root.find(f"metadata/{{{NAMESPACE}}}import")
        return {} if found is None else {key: found.get(key, "") for key in ("export", "vm", "vm_name")}


def attribute_or_text(root: ET.Element, path: str, name: str) -> str:
    return domain_xml.attribute(root, path, name) or domain_xml.text_of(root, path)


def _other(all_disks: list[domain_xml.Disk], device: str) -> list[dict[str, str]]:
    return [{"name": disk.target, "source": disk.source} for disk in all_disks if disk.device == device]


def _by_disk(statistics: Statistics) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for number in range(int(statistics.get("block.count", 0))):
        prefix = f"block.{number}."
        found[statistics.get(f"{prefix}name", "")] = {
            key: statistics[f"{prefix}{key}"] for key in ("capacity", "allocation") if f"{prefix}{key}" in statistics
        }
    return found
