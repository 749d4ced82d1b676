# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain's XML in normalised words. https://libvirt.org/formatdomain.html"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Optional

from ..spec import DiskSpec, Firmware, NicSpec, PowerState, SnapshotSpec, VmSpec

if TYPE_CHECKING:
    import libvirt

# virDomainState: https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainState
POWER_STATES: dict[int, PowerState] = {1: "on", 2: "on", 3: "paused", 4: "on", 5: "off", 6: "crashed", 7: "suspended"}
CRASHED_REASON = 3  # virDomainShutoffReason: off, because it crashed
UNITS = {
    "b": 1,
    "bytes": 1,
    "KB": 1000,
    "k": 1024,
    "KiB": 1024,
    "M": 1 << 20,
    "MiB": 1 << 20,
    "G": 1 << 30,
    "GiB": 1 << 30,
}
LIBOSINFO = "{http://libosinfo.org/xmlns/libvirt/domain/1.0}os"


def parse(text: str) -> ET.Element:
    """libvirt's own output: no DTD, no entities."""
    return ET.fromstring(text)


def describe(domain: libvirt.virDomain) -> VmSpec:
    """Raises libvirtError."""
    root = parse(domain.XMLDesc())
    state, _ = domain.state()
    disks = describe_disks(domain, root)
    return VmSpec(
        provider="libvirt",
        id=domain.UUIDString(),
        name=domain.name(),
        path=domain.name(),
        power_state=POWER_STATES.get(state, "unknown"),
        cpu=int(root.findtext("vcpu", "1")),
        memory_mb=_bytes(root.find("memory")) >> 20,
        firmware=firmware(root),
        secure_boot=root.find("os/loader[@secure='yes']") is not None,
        tpm=root.find("devices/tpm") is not None,
        architecture=_attribute(root, "os/type", "arch"),
        machine=_attribute(root, "os/type", "machine"),
        guest_os=_attribute(root, f"metadata//{LIBOSINFO}", "id"),
        guest_agent=agent_connected(root),
        disks=disks,
        nics=tuple(_nic(number, nic) for number, nic in enumerate(root.findall("devices/interface"))),
        snapshots=_snapshots(domain),
        host=domain.connect().getHostname(),
        details={"persistent": bool(domain.isPersistent()), "removable": _removable(root)},
    )


def disk_elements(root: ET.Element) -> list[ET.Element]:
    """Hard disks, the one that is booted from first, else in the XML's order."""
    disks = [disk for disk in root.findall("devices/disk") if disk.get("device", "disk") == "disk"]
    return sorted(disks, key=lambda disk: int(_attribute(disk, "boot", "order") or 1 << 30))


def describe_disks(domain: libvirt.virDomain, root: ET.Element) -> tuple[DiskSpec, ...]:
    import libvirt

    found = []
    for number, disk in enumerate(disk_elements(root)):
        name, format = _attribute(disk, "target", "dev"), _attribute(disk, "driver", "type") or "raw"
        size, allocated = 0, None  # type: int, Optional[int]
        try:
            size, allocated, _ = domain.blockInfo(name)
        except libvirt.libvirtError:  # a file that is missing, or a network disk of a VM that is off
            pass
        source, storage = disk_source(domain.connect(), disk)
        found.append(
            DiskSpec(
                id=f"disk-{number}",
                name=name,
                size=size,
                format=format,
                bus=_attribute(disk, "target", "bus"),
                source=source,
                storage=storage,
                allocated=allocated,
                boot=number == 0,
                change_tracking=format == "qcow2",
                read_only=disk.find("readonly") is not None,
                serial=disk.findtext("serial", ""),
            )
        )
    return tuple(found)


def disk_source(connection: libvirt.virConnect, disk: ET.Element) -> tuple[str, str]:
    """A path (or a name, for a network disk), and the pool it lies in, if the XML names one."""
    source = disk.find("source")
    if source is None:
        return "", ""
    if disk.get("type") == "volume":
        pool, volume = source.get("pool", ""), source.get("volume", "")
        return connection.storagePoolLookupByName(pool).storageVolLookupByName(volume).path(), pool
    return source.get("file") or source.get("dev") or source.get("name") or "", ""


def firmware(root: ET.Element) -> Firmware:
    loader = root.find("os/loader")
    uefi = root.find("os[@firmware='efi']") is not None or (loader is not None and loader.get("type") == "pflash")
    return "uefi" if uefi else "bios"


def agent_connected(root: ET.Element) -> bool:
    return root.find("devices/channel/target[@name='org.qemu.guest_agent.0'][@state='connected']") is not None


def _nic(number: int, nic: ET.Element) -> NicSpec:
    source = nic.find("source")
    network = "" if source is None else source.get("network") or source.get("bridge") or source.get("dev") or ""
    return NicSpec(
        id=f"nic-{number}",
        mac=_attribute(nic, "mac", "address"),
        network=network,
        model=_attribute(nic, "model", "type"),
        kind=nic.get("type", ""),
    )


def _snapshots(domain: libvirt.virDomain) -> tuple[SnapshotSpec, ...]:
    found = []
    for snapshot in domain.listAllSnapshots():
        root = parse(snapshot.getXMLDesc())
        created = _iso_time(int(root.findtext("creationTime", "0")))
        current = bool(snapshot.isCurrent())
        found.append(SnapshotSpec(snapshot.getName(), created, root.findtext("description", ""), current))
    return tuple(sorted(found, key=lambda one: (one.created, one.name)))


def _iso_time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def _removable(root: ET.Element) -> list[dict[str, Any]]:
    return [
        {
            "name": _attribute(disk, "target", "dev"),
            "device": disk.get("device"),
            "source": _attribute(disk, "source", "file"),
        }
        for disk in root.findall("devices/disk")
        if disk.get("device") in ("cdrom", "floppy")
    ]


def _attribute(root: ET.Element, path: str, name: str) -> str:
    found = root.find(path)
    return "" if found is None else found.get(name, "")


def _bytes(element: Optional[ET.Element]) -> int:
    if element is None or element.text is None:
        return 0
    return int(element.text) * UNITS.get(element.get("unit", "KiB"), 1024)
