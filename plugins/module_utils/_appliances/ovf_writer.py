# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The descriptor of an appliance, written: what vSphere, VirtualBox and libvirt's tools agree on (DSP0243, OVF 1.1).

A disk or an adapter that only some of them have (virtio) is written as one that all have; what it really was stands in
a section of ours that others leave out, and comes back when we read it.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from .machine import (
    DISK,
    FORMAT_URIS,
    IDE,
    MEMORY,
    NIC,
    OVF,
    OWN,
    PROCESSOR,
    RASD,
    SCSI,
    STORAGE,
    VMW,
    VSSD,
    WRITTEN_AS,
    Disk,
    Machine,
    Product,
)
from .refusals import not_supported

_PREFIXES: Mapping[str, str] = {"ovf": OVF, "rasd": RASD, "vssd": VSSD, "vmw": VMW, "vmferry": OWN}
# Of a bus: the resource type, the model that VMware, VirtualBox and virt-v2v all take, and disks that one has room for.
_CONTROLLERS: Mapping[str, Tuple[str, str, int]] = {
    "ide": (IDE, "PIIX4", 2),
    "scsi": (SCSI, "lsilogic", 15),
    "sata": (STORAGE, "vmware.sata.ahci", 30),
    "nvme": (STORAGE, "vmware.nvme.controller", 15),
}
_SCSI_HOST = 7  # the address of the controller itself
_TAKEN_AS: Mapping[str, str] = {"virtio": "scsi", "usb": "scsi", "": "scsi"}
_SCSI_MODELS = ("lsilogic", "lsilogicsas", "buslogic", "virtualscsi")
_ADAPTERS: Mapping[str, str] = {
    "e1000": "E1000",
    "e1000e": "E1000e",
    "vmxnet3": "VmxNet3",
    "pcnet": "PCNet32",
    "pcnet32": "PCNet32",
}
_ANY_ADAPTER = "E1000"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_descriptor(machine: Machine, sizes: Optional[Mapping[str, int]] = None) -> bytes:
    """UTF-8. `sizes`: of the files, by name, where they are known."""
    return _Descriptor(machine, sizes or {}).written()


class _Descriptor:
    def __init__(self, machine: Machine, sizes: Mapping[str, int]) -> None:
        self._machine, self._sizes = machine, sizes
        self._instance = 0
        self._disk_items: List[Tuple[str, Disk]] = []
        self._nic_items: List[Tuple[str, str]] = []

    def written(self) -> bytes:
        for prefix, uri in _PREFIXES.items():
            ET.register_namespace(prefix, uri)
        root = ET.Element(f"{{{OVF}}}Envelope")
        self._files(root)
        self._disks(root)
        self._networks(root)
        system = _sub(root, "VirtualSystem", id=self._machine.name)
        _info(system, "A virtual machine")
        _sub(system, "Name").text = self._machine.name
        self._system(system)
        self._hardware(system)
        self._carried(system)
        self._own(system)
        _plain(root)
        _indent(root)
        return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "utf-8", xml_declaration=False) + b"\n"

    # --- files, disks, networks -------------------------------------------------------------------------------------

    def _files(self, root: ET.Element) -> None:
        references = _sub(root, "References")
        for number, disk in enumerate(self._machine.disks):
            if disk.file:
                size = self._sizes.get(disk.file)
                known = {"size": str(size)} if size is not None else {}
                _sub(references, "File", href=disk.file, id=f"file{number}", **known)

    def _disks(self, root: ET.Element) -> None:
        element = _sub(root, "DiskSection")
        _info(element, "Virtual disks")
        for number, disk in enumerate(self._machine.disks):
            format = WRITTEN_AS.get(disk.format, disk.format)
            if format not in FORMAT_URIS:
                raise not_supported("An appliance", f"has no name for disks of the format {disk.format}")
            values = {
                "capacity": str(disk.capacity),
                "capacityAllocationUnits": "byte",
                "diskId": disk.id,
                "format": FORMAT_URIS[format][0],
            }
            if disk.file:
                values["fileRef"] = f"file{number}"
            if disk.populated is not None:
                values["populatedSize"] = str(disk.populated)
            _sub(element, "Disk", **values)

    def _networks(self, root: ET.Element) -> None:
        names = dict.fromkeys(nic.network for nic in self._machine.nics)
        names.update(self._machine.networks)
        element = _sub(root, "NetworkSection")
        _info(element, "Logical networks")
        for name, description in names.items():
            network = _sub(element, "Network", name=name)
            _sub(network, "Description").text = description or f"The network {name}"

    # --- the machine ------------------------------------------------------------------------------------------------

    def _system(self, system: ET.Element) -> None:
        element = _sub(system, "OperatingSystemSection", id=str(self._machine.os_type))
        _info(element, "The guest's operating system")
        if self._machine.os_name:
            _sub(element, "Description").text = self._machine.os_name

    def _hardware(self, system: ET.Element) -> None:
        hardware = _sub(system, "VirtualHardwareSection")
        _info(hardware, "Virtual hardware")
        kind = _sub(hardware, "System")
        for name, text in (
            ("ElementName", "Virtual Hardware Family"),
            ("InstanceID", "0"),
            ("VirtualSystemIdentifier", self._machine.name),
            ("VirtualSystemType", self._machine.virtual_system_type or "vmx-13"),
        ):
            ET.SubElement(kind, f"{{{VSSD}}}{name}").text = text
        self._processors(hardware)
        mebibytes, rest = divmod(self._machine.memory, 1 << 20)
        units, amount = ("byte", self._machine.memory) if rest else ("byte * 2^20", mebibytes)
        self._item(hardware, MEMORY, "Memory", AllocationUnits=units, VirtualQuantity=str(amount))
        self._storage(hardware)
        self._adapters(hardware)
        uefi = self._machine.firmware == "uefi"
        self._config(hardware, "firmware", "efi" if uefi else "bios")
        if uefi:
            self._config(hardware, "bootOptions.efiSecureBootEnabled", str(self._machine.secure_boot).lower())

    def _processors(self, hardware: ET.Element) -> None:
        item = self._item(
            hardware,
            PROCESSOR,
            "Processors",
            AllocationUnits="hertz * 10^6",
            VirtualQuantity=str(self._machine.cpus),
        )
        if self._machine.cores_per_socket:
            cores = ET.SubElement(item, f"{{{VMW}}}CoresPerSocket", {f"{{{OVF}}}required": "false"})
            cores.text = str(self._machine.cores_per_socket)

    def _storage(self, hardware: ET.Element) -> None:
        counts: Dict[str, int] = {}
        open_controllers: Dict[Tuple[str, str], Tuple[str, int]] = {}  # by bus and model: its number, units taken
        for disk in self._machine.disks:
            bus = _TAKEN_AS.get(disk.bus, disk.bus)
            if bus not in _CONTROLLERS:
                raise not_supported("An appliance", f"has no disks on the bus {disk.bus}")
            kind, model, room = _CONTROLLERS[bus]
            if bus == "scsi" and disk.controller.lower() in _SCSI_MODELS:
                model = disk.controller
            number, taken = open_controllers.get((bus, model), ("", room))
            if taken == room:
                address = counts.get(bus, 0)
                counts[bus], taken = address + 1, 0
                self._item(
                    hardware, kind, f"{bus.upper()} controller {address}", Address=str(address), ResourceSubType=model
                )
                number = str(self._instance)
            open_controllers[bus, model] = (number, taken + 1)
            unit = taken + 1 if bus == "scsi" and taken >= _SCSI_HOST else taken
            self._item(
                hardware,
                DISK,
                f"Hard disk {len(self._disk_items) + 1}",
                AddressOnParent=str(unit),
                HostResource=f"ovf:/disk/{disk.id}",
                Parent=number,
            )
            self._disk_items.append((str(self._instance), disk))

    def _adapters(self, hardware: ET.Element) -> None:
        for number, nic in enumerate(self._machine.nics, 1):
            values = {
                "AutomaticAllocation": "true",
                "Connection": nic.network,
                "ResourceSubType": _ADAPTERS.get(nic.model.lower(), _ANY_ADAPTER),
            }
            if nic.mac:
                values["Address"] = nic.mac
            self._item(hardware, NIC, nic.name or f"Network adapter {number}", **values)
            self._nic_items.append((str(self._instance), nic.model))

    def _item(self, hardware: ET.Element, kind: str, name: str, **values: str) -> ET.Element:
        """Its elements in the order of the schema, which is the alphabet's."""
        self._instance += 1
        values.update(ElementName=name, InstanceID=str(self._instance), ResourceType=kind)
        item = _sub(hardware, "Item")
        for key in sorted(values):
            ET.SubElement(item, f"{{{RASD}}}{key}").text = values[key]
        return item

    def _config(self, hardware: ET.Element, key: str, value: str) -> None:
        ET.SubElement(
            hardware,
            f"{{{VMW}}}Config",
            {f"{{{OVF}}}required": "false", f"{{{VMW}}}key": key, f"{{{VMW}}}value": value},
        )

    # --- what it carries --------------------------------------------------------------------------------------------

    def _carried(self, system: ET.Element) -> None:
        if self._machine.annotation:
            element = _sub(system, "AnnotationSection")
            _info(element, "A note")
            _sub(element, "Annotation").text = self._machine.annotation
        for product in self._machine.products or self._needed_products():
            self._product(system, product)
        for eula in self._machine.eulas:
            element = _sub(system, "EulaSection")
            _info(element, "A licence to be agreed to")
            _sub(element, "License").text = eula

    def _needed_products(self) -> Sequence[Product]:
        named = dict.fromkeys((one.class_, one.instance) for one in self._machine.properties)
        return [Product(class_=kind, instance=instance) for kind, instance in named]

    def _product(self, system: ET.Element, product: Product) -> None:
        known = {"class": product.class_, "instance": product.instance}
        element = _sub(system, "ProductSection", **{key: value for key, value in known.items() if value})
        _info(element, "The product")
        for tag, text in (
            ("Product", product.name),
            ("Vendor", product.vendor),
            ("Version", product.version),
            ("FullVersion", product.full_version),
        ):
            if text:
                _sub(element, tag).text = text
        for one in self._machine.properties:
            if (one.class_, one.instance) != (product.class_, product.instance):
                continue
            values = {"key": one.key, "type": one.type, "userConfigurable": str(one.user_configurable).lower()}
            if one.value:
                values["value"] = one.value
            asked = _sub(element, "Property", **values)
            if one.label:
                _sub(asked, "Label").text = one.label
            if one.description:
                _sub(asked, "Description").text = one.description

    def _own(self, system: ET.Element) -> None:
        known = {"architecture": self._machine.architecture, "machine": self._machine.machine}
        own = ET.SubElement(
            system,
            f"{{{OWN}}}MachineSection",
            {f"{{{OVF}}}required": "false", **{key: value for key, value in known.items() if value}},
        )
        _info(own, "What the words above leave out")
        for instance, disk in self._disk_items:
            words = {"instance": instance, "bus": disk.bus, "controller": disk.controller}
            ET.SubElement(own, f"{{{OWN}}}Disk", words)
        for instance, model in self._nic_items:
            if model:
                ET.SubElement(own, f"{{{OWN}}}Nic", {"instance": instance, "model": model})


def _sub(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, f"{{{OVF}}}{tag}", {f"{{{OVF}}}{key}": value for key, value in attributes.items()})


def _info(parent: ET.Element, text: str) -> None:
    _sub(parent, "Info").text = text


def _plain(root: ET.Element) -> None:
    """Without characters that XML has no way to write."""
    for element in root.iter():
        element.text = _NO_XML.sub("\ufffd", element.text) if element.text else element.text
        for key, value in element.attrib.items():
            element.set(key, _NO_XML.sub("\ufffd", value))


def _indent(element: ET.Element, depth: int = 0) -> None:
    """A line for each element, as people read it; texts stay as they are."""
    inner = "\n" + "  " * (depth + 1)
    if len(element):
        element.text = inner
        for child in element:
            _indent(child, depth + 1)
            child.tail = inner
        element[-1].tail = "\n" + "  " * depth
