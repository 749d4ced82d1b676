# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The descriptor of an appliance, written: what vSphere, VirtualBox and libvirt's tools agree on (DSP0243, OVF 1.1).

A disk or an adapter that only some of them have (virtio) is written as one that all have; what it really was stands in
a section of ours that others leave out, and comes back when we read it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Dict, List, Mapping, Optional, Sequence, Set, Tuple

from .machine import (
    CD,
    DISK,
    FLOPPY,
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
from .ovf_elements import document, indent, info, plain, sub
from .refusals import not_supported

# Of a bus: the resource type, the model that VMware, VirtualBox and virt-v2v all take, and disks that one has room for.
_CONTROLLERS: Mapping[str, Tuple[str, str, int]] = {
    "ide": (IDE, "PIIX4", 2),
    "scsi": (SCSI, "lsilogic", 15),
    "sata": (STORAGE, "vmware.sata.ahci", 30),
    "nvme": (STORAGE, "vmware.nvme.controller", 15),
}
_SCSI_HOST = 7  # the address of the controller itself
_TAKEN_AS: Mapping[str, str] = {"virtio": "scsi", "usb": "scsi", "": "scsi"}
BUSES = (*_CONTROLLERS, "virtio", "usb")  # that a disk can be said to be on
_SCSI_MODELS = ("lsilogic", "lsilogicsas", "buslogic", "virtualscsi")
_ADAPTERS: Mapping[str, str] = {
    "e1000": "E1000",
    "e1000e": "E1000e",
    "vmxnet3": "VmxNet3",
    "pcnet": "PCNet32",
    "pcnet32": "PCNet32",
}
_ANY_ADAPTER = "E1000"
_ANY_CDROM = "vmware.cdrom.remotepassthrough"  # of whoever looks at the VM's screen, if anybody puts something in


def write_descriptor(machine: Machine, sizes: Optional[Mapping[str, int]] = None) -> bytes:
    """UTF-8. `sizes`: of the files, by name, where they are known."""
    return _Descriptor(machine, sizes or {}).written()


class _Descriptor:
    def __init__(self, machine: Machine, sizes: Mapping[str, int]) -> None:
        self._machine, self._sizes = machine, sizes
        self._instance = 0
        self._controllers: Dict[Tuple[str, str], Tuple[str, int]] = {}  # by bus and model: its number, units taken
        self._made: List[Tuple[str, str]] = []  # controllers, by bus and model
        self._disk_items: List[Tuple[str, Disk]] = []
        self._nic_items: List[Tuple[str, str]] = []

    def written(self) -> bytes:
        root = ET.Element(f"{{{OVF}}}Envelope")
        self._files(root)
        self._disks(root)
        self._networks(root)
        system = sub(root, "VirtualSystem", id=self._machine.name)
        info(system, "A virtual machine")
        sub(system, "Name").text = self._machine.name
        self._system(system)
        self._hardware(system)
        self._carried(system)
        self._own(system)
        plain(root)
        indent(root)
        return document(root)

    # --- files, disks, networks -------------------------------------------------------------------------------------

    def _files(self, root: ET.Element) -> None:
        references = sub(root, "References")
        for number, disk in enumerate(self._machine.disks):
            if disk.file:
                size = self._sizes.get(disk.file)
                known = {"size": str(size)} if size is not None else {}
                sub(references, "File", href=disk.file, id=f"file{number}", **known)
        if self._machine.nvram:
            sub(references, "File", href=self._machine.nvram, id="nvram")

    def _disks(self, root: ET.Element) -> None:
        element = sub(root, "DiskSection")
        info(element, "Virtual disks")
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
            sub(element, "Disk", **values)

    def _networks(self, root: ET.Element) -> None:
        names = dict.fromkeys(nic.network for nic in self._machine.nics)
        names.update(self._machine.networks)
        element = sub(root, "NetworkSection")
        info(element, "Logical networks")
        for name, description in names.items():
            network = sub(element, "Network", name=name)
            sub(network, "Description").text = description or f"The network {name}"

    # --- the machine ------------------------------------------------------------------------------------------------

    def _system(self, system: ET.Element) -> None:
        element = sub(system, "OperatingSystemSection", id=str(self._machine.os_type))
        info(element, "The guest's operating system")
        if self._machine.os_name:
            sub(element, "Description").text = self._machine.os_name

    def _hardware(self, system: ET.Element) -> None:
        hardware = sub(system, "VirtualHardwareSection")
        info(hardware, "Virtual hardware")
        kind = sub(hardware, "System")
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
        if self._machine.nvram:
            self._config(hardware, "nvram", "ovf:/file/nvram", "ExtraConfig")

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
        for disk in self._machine.disks:
            bus = _TAKEN_AS.get(disk.bus, disk.bus)
            if bus not in _CONTROLLERS:
                raise not_supported("An appliance", f"has no disks on the bus {disk.bus}")
            model = disk.controller if bus == "scsi" and disk.controller.lower() in _SCSI_MODELS else ""
            number, unit = self._place(hardware, bus, model)
            self._item(
                hardware,
                DISK,
                f"Hard disk {len(self._disk_items) + 1}",
                AddressOnParent=str(unit),
                HostResource=f"ovf:/disk/{disk.id}",
                Parent=number,
            )
            self._disk_items.append((str(self._instance), disk))
        for count, what in enumerate(self._machine.removable, 1):
            self._drive(hardware, count, what)

    def _place(self, hardware: ET.Element, bus: str, wanted: str = "") -> Tuple[str, int]:
        """The number of a controller with room, and the unit on it; of the model that all take, or the one `wanted`."""
        kind, model, room = _CONTROLLERS[bus]
        model = wanted or model
        number, taken = self._controllers.get((bus, model), ("", room))
        if taken == room:
            address = sum(1 for other, _model in self._made if other == bus)
            self._made.append((bus, model))
            taken = 0
            self._item(
                hardware, kind, f"{bus.upper()} controller {address}", Address=str(address), ResourceSubType=model
            )
            number = str(self._instance)
        self._controllers[bus, model] = (number, taken + 1)
        return number, taken + 1 if bus == "scsi" and taken >= _SCSI_HOST else taken

    def _drive(self, hardware: ET.Element, count: int, what: str) -> None:
        """Empty, and connected to nothing."""
        if what == "floppy":
            self._item(hardware, FLOPPY, f"Floppy drive {count}", AutomaticAllocation="false")
            return
        number, unit = self._place(hardware, "ide")
        self._item(
            hardware,
            CD,
            f"CD/DVD drive {count}",
            AddressOnParent=str(unit),
            AutomaticAllocation="false",
            Parent=number,
            ResourceSubType=_ANY_CDROM,
        )

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
        item = sub(hardware, "Item")
        for key in sorted(values):
            ET.SubElement(item, f"{{{RASD}}}{key}").text = values[key]
        return item

    def _config(self, hardware: ET.Element, key: str, value: str, tag: str = "Config") -> None:
        ET.SubElement(
            hardware,
            f"{{{VMW}}}{tag}",
            {f"{{{OVF}}}required": "false", f"{{{VMW}}}key": key, f"{{{VMW}}}value": value},
        )

    # --- what it carries --------------------------------------------------------------------------------------------

    def _carried(self, system: ET.Element) -> None:
        if self._machine.annotation:
            element = sub(system, "AnnotationSection")
            info(element, "A note")
            sub(element, "Annotation").text = self._machine.annotation
        asked: Set[Tuple[str, str]] = set()  # classes and instances whose properties are written
        for product in [*self._machine.products, *self._needed_products()]:
            self._product(system, product, (product.class_, product.instance) not in asked)
            asked.add((product.class_, product.instance))
        for eula in self._machine.eulas:
            element = sub(system, "EulaSection")
            info(element, "A licence to be agreed to")
            sub(element, "License").text = eula

    def _needed_products(self) -> Sequence[Product]:
        """For properties that belong to none of those that it has."""
        there = {(one.class_, one.instance) for one in self._machine.products}
        named = dict.fromkeys((one.class_, one.instance) for one in self._machine.properties)
        return [Product(class_=kind, instance=instance) for kind, instance in named if (kind, instance) not in there]

    def _product(self, system: ET.Element, product: Product, asks: bool) -> None:
        known = {"class": product.class_, "instance": product.instance}
        element = sub(system, "ProductSection", **{key: value for key, value in known.items() if value})
        info(element, "The product")
        for tag, text in (
            ("Product", product.name),
            ("Vendor", product.vendor),
            ("Version", product.version),
            ("FullVersion", product.full_version),
        ):
            if text:
                sub(element, tag).text = text
        for one in self._machine.properties:
            if not asks or (one.class_, one.instance) != (product.class_, product.instance):
                continue
            values = {"key": one.key, "type": one.type, "userConfigurable": str(one.user_configurable).lower()}
            if one.password:  # nobody could give one to the machine otherwise
                values.update(password="true", userConfigurable="true")
            elif one.value:
                values["value"] = one.value
            asked = sub(element, "Property", **values)
            if one.label:
                sub(asked, "Label").text = one.label
            if one.description:
                sub(asked, "Description").text = one.description

    def _own(self, system: ET.Element) -> None:
        machine = self._machine
        known = {
            "architecture": machine.architecture,
            "machine": machine.machine,
            "made_of": machine.made_of,
            "made_as": machine.made_as,
        }
        own = ET.SubElement(
            system,
            f"{{{OWN}}}MachineSection",
            {f"{{{OVF}}}required": "false", **{key: value for key, value in known.items() if value}},
        )
        info(own, "What the words above leave out")
        for instance, disk in self._disk_items:
            words = {"instance": instance, "bus": disk.bus, "controller": disk.controller}
            ET.SubElement(own, f"{{{OWN}}}Disk", words)
        for instance, model in self._nic_items:
            if model:
                ET.SubElement(own, f"{{{OWN}}}Nic", {"instance": instance, "model": model})
