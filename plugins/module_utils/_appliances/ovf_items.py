# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elements of a descriptor, by the namespaces of DSP0243: hardware items, and the files and disks that they name."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Dict, Iterator, List

from .machine import DISK, OVF, RASD
from .refusals import not_supported, quoted, refused
from .units import byte_count

MAX_TEXT = 256 * 1024  # characters of one text: licences are the longest


@dataclass(frozen=True)
class Item:
    """Of the hardware section. Texts as they are, empty where there is none."""

    element: ET.Element
    id: str
    kind: str  # CIM's resource type

    def text(self, name: str) -> str:
        return words(self.element, f"{{{RASD}}}{name}")


@dataclass(frozen=True)
class StoredDisk:
    id: str
    file: str
    capacity: int
    format_uri: str
    populated: int | None


def attribute(element: ET.Element, name: str) -> str:
    """Of OVF's namespace, or of none, as some write them."""
    return element.get(f"{{{OVF}}}{name}", element.get(name, ""))


def is_true(element: ET.Element, name: str) -> bool:
    return attribute(element, name).strip().lower() in ("true", "1")


def words(element: ET.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()[:MAX_TEXT]


def section(element: ET.Element, name: str) -> Iterator[ET.Element]:
    return element.iterfind(f"{{{OVF}}}{name}")


def hardware_items(hardware: ET.Element, where: str) -> List[Item]:
    """Those of the default configuration, in their order."""
    found: List[Item] = []
    seen = set()
    for tag in ("Item", "StorageItem", "EthernetPortItem"):
        for element in section(hardware, tag):
            if attribute(element, "configuration") or attribute(element, "bound"):
                continue  # another configuration, or the limits of a quantity
            kind = words(element, f"{{{RASD}}}ResourceType")
            if tag != "Item":
                raise not_supported(where, f"describes hardware by {tag}, as OVF 2 does", "Export it as OVF 1.1.")
            number = words(element, f"{{{RASD}}}InstanceID") or words(element, f"{{{RASD}}}InstanceId")
            if not number or number in seen:
                raise refused(where, f"has the hardware {quoted(number)} twice, or without a number")
            seen.add(number)
            found.append(Item(element, number, kind))
    return found


def files(envelope: ET.Element, where: str) -> Dict[str, str]:
    """Names in the package by id."""
    found: Dict[str, str] = {}
    for reference in section(envelope, "References"):
        for element in section(reference, "File"):
            number, name = attribute(element, "id"), attribute(element, "href")
            if not number or number in found:
                raise refused(where, f"has the file {quoted(number)} twice, or without an id")
            if attribute(element, "compression") not in ("", "identity"):
                raise not_supported(
                    where, f"has a compressed file {quoted(name)}", "Unpack the file, or export without compression."
                )
            if attribute(element, "chunkSize"):
                raise not_supported(where, f"has its file {quoted(name)} in several pieces", "Export it in one piece.")
            found[number] = name
    return found


def stored_disks(envelope: ET.Element, named: Dict[str, str], where: str) -> Dict[str, StoredDisk]:
    """By id."""
    found: Dict[str, StoredDisk] = {}
    for disks in section(envelope, "DiskSection"):
        for element in section(disks, "Disk"):
            number, reference = attribute(element, "diskId"), attribute(element, "fileRef")
            if not number or number in found:
                raise refused(where, f"has the disk {quoted(number)} twice, or without an id")
            if attribute(element, "parentRef"):
                raise not_supported(where, f"has a disk {quoted(number)} that stands on another one")
            if reference and reference not in named:
                raise refused(where, f"has a disk {quoted(number)} in a file {quoted(reference)} that it does not name")
            capacity = byte_count(
                attribute(element, "capacity"),
                attribute(element, "capacityAllocationUnits"),
                f"capacity of the disk {quoted(number)}",
                where,
            )
            populated = attribute(element, "populatedSize")
            found[number] = StoredDisk(
                number,
                named.get(reference, ""),
                capacity,
                attribute(element, "format"),
                int(populated) if populated.isascii() and populated.isdigit() and len(populated) < 20 else None,
            )
    return found


def disk_of(item: Item, disks: Dict[str, StoredDisk], where: str) -> StoredDisk:
    """By its host resource, `ovf:/disk/id`. Raises `unsupported` for a file that is attached as it is."""
    resource = item.text("HostResource")
    for prefix in ("ovf:/disk/", "ovf://disk/", "/disk/"):
        if resource.startswith(prefix):
            found = disks.get(resource[len(prefix) :])
            if found is not None:
                return found
    raise refused(where, f"has a disk {quoted(item.id)} of {quoted(resource)}, which it does not describe")


def disk_items(items: List[Item]) -> List[Item]:
    return [item for item in items if item.kind == DISK]
