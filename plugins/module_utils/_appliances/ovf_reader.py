# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The descriptor of an appliance, read: one machine, its hardware, and what it carries besides (DSP0243, OVF 1.x).

What others wrote fails closed where data could be lost or mistaken, and is left out with a warning where it could not.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Dict, List, Mapping, Tuple

from .documents import parse
from .machine import (
    CD,
    DVD,
    FLOPPY,
    FORMAT_URIS,
    IDE,
    MEMORY,
    NIC,
    OVF,
    OWN,
    PROCESSOR,
    SCSI,
    STORAGE,
    USB,
    VMW,
    VSSD,
    Disk,
    Machine,
    Nic,
    Product,
    Property,
)
from .ovf_items import (
    Item,
    attribute,
    disk_items,
    disk_of,
    files,
    hardware_items,
    is_true,
    section,
    stored_disks,
    words,
)
from .packages import check_name
from .passwords import is_password
from .refusals import not_supported, quoted, refused
from .units import byte_count, whole_number

MAX_DISKS = 256
_BUSES: Mapping[str, str] = {IDE: "ide", SCSI: "scsi", USB: "usb"}
_DRIVES: Mapping[str, str] = {FLOPPY: "floppy", CD: "cdrom", DVD: "cdrom"}


def read_descriptor(data: bytes, where: str) -> Machine:
    """Raises `invalid_config`, and `unsupported` for what is sound but more than one machine of files."""
    envelope = parse(data, where)
    if envelope.tag != f"{{{OVF}}}Envelope":
        raise refused(where, f"is no descriptor of OVF 1: it begins with {quoted(envelope.tag)}")
    systems = list(section(envelope, "VirtualSystem"))
    if len(systems) != 1 or next(section(envelope, "VirtualSystemCollection"), None) is not None:
        raise not_supported(
            where, "describes several machines, or none", "Export each machine as an appliance of its own."
        )
    return _Descriptor(envelope, systems[0], where).machine()


class _Descriptor:
    def __init__(self, envelope: ET.Element, system: ET.Element, where: str) -> None:
        self._envelope, self._system, self._where = envelope, system, where
        hardware = list(section(system, "VirtualHardwareSection"))
        if len(hardware) != 1:
            raise refused(where, f"has {len(hardware)} descriptions of its hardware")
        self._hardware = hardware[0]
        self._items = hardware_items(self._hardware, where)
        self._by_id = {item.id: item for item in self._items}
        self._own = next(system.iterfind(f"{{{OWN}}}MachineSection"), ET.Element("none"))
        self._strings = {
            attribute(element, "msgid"): (element.text or "").strip()
            for element in envelope.iterfind(f"{{{OVF}}}Strings/{{{OVF}}}Msg")
        }
        self._warnings: List[str] = []

    def machine(self) -> Machine:
        config = {
            element.get(f"{{{VMW}}}key", ""): element.get(f"{{{VMW}}}value", "")
            for element in self._hardware.iterfind(f"{{{VMW}}}Config")
        }
        system = next(section(self._system, "OperatingSystemSection"), ET.Element("none"))
        number = attribute(system, "id")
        products, properties = self._products()
        return Machine(
            name=words(self._system, f"{{{OVF}}}Name") or attribute(self._system, "id"),
            cpus=self._cpus(),
            memory=self._memory(),
            disks=self._disks(),
            nics=tuple(self._nic(item) for item in self._items if item.kind == NIC),
            firmware="uefi" if config.get("firmware", "").lower() == "efi" else "bios",
            secure_boot=config.get("bootOptions.efiSecureBootEnabled", "").lower() == "true",
            tpm=any("vtpm" in item.text("ResourceSubType").lower() for item in self._items),
            os_type=int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 1,
            os_name=system.get(f"{{{VMW}}}osType", "") or self._told(system, "Description"),
            virtual_system_type=words(self._hardware, f"{{{OVF}}}System/{{{VSSD}}}VirtualSystemType"),
            architecture=self._own.get("architecture", ""),
            machine=self._own.get("machine", ""),
            made_of=self._own.get("made_of", ""),
            made_as=self._own.get("made_as", ""),
            cores_per_socket=self._cores(),
            networks=self._networks(),
            annotation=self._told(next(section(self._system, "AnnotationSection"), ET.Element("none")), "Annotation"),
            eulas=tuple(
                self._told(element, "License")
                for place in (self._envelope, self._system)
                for element in section(place, "EulaSection")
            ),
            products=products,
            properties=properties,
            removable=tuple(_DRIVES[item.kind] for item in self._items if item.kind in _DRIVES),
            warnings=tuple(self._warnings),
        )

    # --- processors and memory --------------------------------------------------------------------------------------

    def _cpus(self) -> int:
        cpus = sum(self._quantity(item, "number of processors") for item in self._items if item.kind == PROCESSOR)
        if not 1 <= cpus <= 4096:
            raise refused(self._where, f"has {cpus} processors")
        return cpus

    def _cores(self) -> int:
        """Of one socket, as VMware says it; 0 where nobody does."""
        for item in self._items:
            text = words(item.element, f"{{{VMW}}}CoresPerSocket") if item.kind == PROCESSOR else ""
            if text.isascii() and text.isdigit() and len(text) < 5:
                return int(text)
        return 0

    def _memory(self) -> int:
        found = [item for item in self._items if item.kind == MEMORY]
        total = sum(
            byte_count(
                item.text("VirtualQuantity"), item.text("AllocationUnits") or "byte * 2^20", "memory", self._where
            )
            for item in found
        )
        if not 1 << 20 <= total <= 1 << 50:
            raise refused(self._where, f"has {total} bytes of memory")
        return total

    def _quantity(self, item: Item, what: str) -> int:
        return whole_number(item.text("VirtualQuantity"), what, self._where)

    # --- disks ------------------------------------------------------------------------------------------------------

    def _disks(self) -> Tuple[Disk, ...]:
        named = files(self._envelope, self._where)
        for name in named.values():
            check_name(name, self._where)
        stored = stored_disks(self._envelope, named, self._where)
        attached = disk_items(self._items)
        if len(attached) > MAX_DISKS:
            raise refused(self._where, f"has {len(attached)} disks")
        found: List[Disk] = []
        for item in attached:
            disk = disk_of(item, stored, self._where)
            if any(disk.id == other.id for other in found):
                raise not_supported(self._where, f"attaches its disk {quoted(disk.id)} twice")
            bus, model, number = self._controller(item)
            address = item.text("AddressOnParent")
            unit = whole_number(address, "address of a disk", self._where) if address else 0
            uri = disk.format_uri.strip()
            format = next((name for name, uris in FORMAT_URIS.items() if uri in uris), "")
            found.append(Disk(disk.id, disk.file, disk.capacity, format, bus, model, number, unit, disk.populated))
        for left in stored.keys() - {disk.id for disk in found}:
            self._warnings.append(f"Its disk {quoted(left)} is attached to nothing and is left out.")
        return tuple(found)

    def _controller(self, disk: Item) -> Tuple[str, str, int]:
        """The bus, the controller's model, its number among those of its kind."""
        parent = self._by_id.get(disk.text("Parent"))
        if parent is None:
            return "scsi", "", 0
        address = parent.text("Address")
        number = int(address) if address.isascii() and address.isdigit() and len(address) < 4 else 0
        model = parent.text("ResourceSubType")
        own = self._own_words("Disk").get(disk.id, {})
        if parent.kind == STORAGE:
            name = model.lower()
            bus = "nvme" if "nvme" in name else "scsi" if "scsi" in name else "sata"
        elif parent.kind in _BUSES:
            bus = _BUSES[parent.kind]
        else:
            bus = "scsi"
        return own.get("bus") or bus, own.get("controller", model) if own else model, number

    # --- networks ---------------------------------------------------------------------------------------------------

    def _nic(self, item: Item) -> Nic:
        own = self._own_words("Nic").get(item.id, {})
        return Nic(
            item.text("ElementName"),
            item.text("Connection"),
            own.get("model") or item.text("ResourceSubType"),
            item.text("Address"),
        )

    def _networks(self) -> Dict[str, str]:
        return {
            attribute(element, "name"): self._told(element, "Description")
            for networks in section(self._envelope, "NetworkSection")
            for element in section(networks, "Network")
        }

    def _own_words(self, tag: str) -> Dict[str, Dict[str, str]]:
        """By the number of the hardware item."""
        return {element.get("instance", ""): dict(element.attrib) for element in self._own.iterfind(f"{{{OWN}}}{tag}")}

    # --- what it carries --------------------------------------------------------------------------------------------

    def _told(self, element: ET.Element, name: str) -> str:
        """A text, or the default one of those in several languages."""
        found = element.find(f"{{{OVF}}}{name}")
        if found is None:
            return ""
        return words(element, f"{{{OVF}}}{name}") or self._strings.get(attribute(found, "msgid"), "")

    def _products(self) -> Tuple[Tuple[Product, ...], Tuple[Property, ...]]:
        products, properties = [], []
        for element in section(self._system, "ProductSection"):
            kind, instance = attribute(element, "class"), attribute(element, "instance")
            products.append(
                Product(
                    self._told(element, "Product"),
                    self._told(element, "Vendor"),
                    self._told(element, "Version"),
                    self._told(element, "FullVersion"),
                    kind,
                    instance,
                )
            )
            for one in section(element, "Property"):
                password = is_password(one)
                properties.append(
                    Property(
                        attribute(one, "key"),
                        attribute(one, "type") or "string",
                        "" if password else attribute(one, "value"),
                        self._told(one, "Label"),
                        self._told(one, "Description"),
                        is_true(one, "userConfigurable"),
                        kind,
                        instance,
                        password,
                    )
                )
        return tuple(products), tuple(properties)
