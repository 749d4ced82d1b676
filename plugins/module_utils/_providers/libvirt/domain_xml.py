# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading domain XML (https://libvirt.org/formatdomain.html) without trusting it: no DTD, no entities."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Iterable

from ..._errors import VmferryError
from ..spec import NicSpec

SOURCE_ATTRIBUTES = {"file": "file", "block": "dev", "dir": "dir", "network": "name", "volume": "volume"}
TAGS = "urn:vmferry:tags:1"  # libvirt has none, so users keep them in the metadata of a VM
LIBOSINFO = "{http://libosinfo.org/xmlns/libvirt/domain/1.0}"


def parse(text: str) -> ET.Element:
    """Raises `invalid_config` for anything that is not one plain document."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise VmferryError("invalid_config", "The domain XML declares a document type, which none of libvirt's does.")
    try:
        return ET.fromstring(text)
    except ET.ParseError as error:
        raise VmferryError("invalid_config", f"The domain XML cannot be parsed: {error}.") from error


def text_of(root: ET.Element, path: str, default: str = "") -> str:
    found = root.find(path)
    return default if found is None or found.text is None else found.text


def attribute(root: ET.Element, path: str, name: str, default: str = "") -> str:
    found = root.find(path)
    return default if found is None else found.get(name, default)


@dataclass(frozen=True)
class Disk:
    """A `<disk>` as written. `order` is its boot order, or a number larger than any."""

    target: str
    kind: str  # file, block, volume, network …
    device: str  # disk, cdrom, floppy, lun
    format: str
    source: str
    pool: str
    bus: str
    serial: str
    order: int
    read_only: bool
    shareable: bool
    encrypted: bool


NO_ORDER = 1 << 30


def disks(root: ET.Element) -> list[Disk]:
    found = [_disk(element) for element in root.iterfind("devices/disk")]
    return sorted(found, key=lambda disk: disk.order)  # stable: the XML's order decides among equals


def _disk(element: ET.Element) -> Disk:
    kind = element.get("type", "file")
    source = element.find("source")
    return Disk(
        target=attribute(element, "target", "dev"),
        kind=kind,
        device=element.get("device", "disk"),
        format=attribute(element, "driver", "type", "raw"),
        source=source_of(kind, source) if source is not None else "",
        pool="" if source is None else source.get("pool", ""),
        bus=attribute(element, "target", "bus"),
        serial=text_of(element, "serial"),
        order=int(attribute(element, "boot", "order") or NO_ORDER),
        read_only=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        encrypted=element.find(".//encryption") is not None,
    )


def disks_with_io_thread(root: ET.Element) -> set[str]:
    """Their targets. A disk has one of its own, or (libvirt 10 and later) several; or its SCSI controller has."""
    scsi = root.findall("devices/controller[@type='scsi']")
    controllers = {element.get("index", "0") for element in scsi if _in_thread(element)}
    found = set()
    for element in root.iterfind("devices/disk"):
        on_scsi = attribute(element, "target", "bus") == "scsi"
        if _in_thread(element) or (on_scsi and attribute(element, "address", "controller", "0") in controllers):
            found.add(attribute(element, "target", "dev"))
    return found


def _in_thread(device: ET.Element) -> bool:
    return bool(attribute(device, "driver", "iothread")) or device.find("driver/iothreads") is not None


def source_of(kind: str, source: ET.Element) -> str:
    """What a `<source>` in a disk, or in a backing store, of this kind names."""
    name = source.get(SOURCE_ATTRIBUTES.get(kind, "file"), "")
    if kind == "network":
        host = source.find("host")
        where = "" if host is None else host.get("name") or host.get("socket", "")
        return f"{source.get('protocol', '')}://{where}/{name}"
    return name


def nics(root: ET.Element) -> tuple[NicSpec, ...]:
    found = []
    for number, element in enumerate(root.iterfind("devices/interface")):
        kind, source = element.get("type", ""), element.find("source")
        network = ""
        if source is not None:
            network = next((source.get(key, "") for key in ("network", "bridge", "dev") if source.get(key)), "")
        mac, model = attribute(element, "mac", "address"), attribute(element, "model", "type")
        found.append(NicSpec(id=f"nic-{number}", mac=mac, network=network, model=model, kind=kind))
    return tuple(found)


def is_uefi(root: ET.Element) -> bool:
    system = root.find("os")
    return system is not None and (system.get("firmware") == "efi" or attribute(root, "os/loader", "type") == "pflash")


def has_secure_boot(root: ET.Element) -> bool:
    wanted = root.find("os/firmware/feature[@name='secure-boot']")
    return attribute(root, "os/loader", "secure") == "yes" or (wanted is not None and wanted.get("enabled") == "yes")


def agent_connected(root: ET.Element) -> bool:
    target = root.find("devices/channel/target[@name='org.qemu.guest_agent.0']")
    return target is not None and target.get("state") == "connected"


def has_agent_channel(root: ET.Element) -> bool:
    return root.find("devices/channel/target[@name='org.qemu.guest_agent.0']") is not None


def guest_os(root: ET.Element) -> str:
    found = root.find(f"metadata/{LIBOSINFO}libosinfo/{LIBOSINFO}os")
    return "" if found is None else found.get("id", "")


def tags(root: ET.Element) -> tuple[str, ...]:
    """Each once, as written. libvirt gives the outer element its namespace, and leaves those in it as they came."""
    texts = [
        (element.text or "").strip()
        for path in ("tag", f"{{{TAGS}}}tag")
        for element in root.iterfind(f"metadata/{{{TAGS}}}tags/{path}")
    ]
    return tuple(dict.fromkeys(text for text in texts if text))


def tags_element(words: Iterable[str]) -> ET.Element:
    element = ET.Element(f"{{{TAGS}}}tags")
    for word in words:
        ET.SubElement(element, "tag").text = word
    return element


def qemu_user(root: ET.Element) -> tuple[int, int] | None:
    """User and group of a running VM's process, where libvirt gave it another than its own."""
    label = text_of(root, "seclabel[@model='dac']/label")
    user, _unused, group = label.partition(":")
    if user.startswith("+") and group.startswith("+"):
        return int(user[1:]), int(group[1:])
    return None


def is_confined(root: ET.Element) -> bool:
    """By AppArmor or SELinux, which let QEMU open what libvirt names, and create a socket in few places only."""
    return any(root.find(f"seclabel[@model='{model}']/label") is not None for model in ("apparmor", "selinux"))
