# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The definition of an imported VM: what was exported from libvirt, or a plain one, with the new disks in it.

Every value goes in through ElementTree, so nothing of a manifest can become markup.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Mapping, Optional, Sequence

from ..base import Placement
from ..spec import NicSpec, VmSpec

NAMESPACE = "https://vmferry.github.io/migrate/1"
IMPORT = f"{{{NAMESPACE}}}import"
PREFIXES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd"}
# What names things of the host that the VM was exported from. They are made anew by libvirt, or were passed through.
OF_THE_OLD_HOST = ("hostdev", "redirdev", "filesystem", "shmem", "lease", "smartcard", "panic")
CONSOLES = ("serial", "console", "parallel", "channel")

ET.register_namespace("vmferry", NAMESPACE)


@dataclass(frozen=True)
class NewDisk:
    path: str
    format: str
    block_device: bool = False


def import_definition(
    vm: VmSpec,
    exported: Optional[bytes],
    disks: Sequence[NewDisk],
    placement: Placement,
    domain_type: str,
    nvram: str,
    mark: Mapping[str, str],
) -> str:
    """`exported`: the domain XML of a VM that came from libvirt. `nvram`: where the firmware's variables are, or ''."""
    root = _of_export(exported) if exported is not None else _plain(vm)
    root.set("type", domain_type)
    root.attrib.pop("id", None)
    _set(root, "name", placement.name)
    for gone in ("uuid", "seclabel", "resource", "keywrap"):
        for element in root.findall(gone):
            root.remove(element)
    devices = root.find("devices")
    assert devices is not None
    _firmware(root, placement.firmware or vm.firmware, nvram, vm)
    _disks(devices, vm, disks, placement.disk_bus)
    _nics(devices, vm.nics, placement)
    _mark(root, mark)
    return ET.tostring(root, "unicode")


def imported_from(xml: str) -> str:
    """The export that an import of ours made this domain from, or ''."""
    found = ET.fromstring(xml).find(f"metadata/{IMPORT}")  # libvirt's own output
    return "" if found is None else found.get("export", "")


def _of_export(exported: bytes) -> ET.Element:
    root = ET.fromstring(exported)  # expat expands no external entities, and the file's digest was checked
    devices = root.find("devices")
    if root.tag != "domain" or devices is None:
        raise ValueError("not a domain")
    for name in OF_THE_OLD_HOST:
        for element in devices.findall(name):
            devices.remove(element)
    for disk in devices.findall("disk"):
        devices.remove(disk)
    for nic in devices.findall("interface"):
        devices.remove(nic)
    for name in CONSOLES:
        for console in devices.findall(name):
            _without_path(console)
    for name in ("kernel", "initrd", "cmdline", "dtb"):
        for element in root.findall(f"os/{name}"):
            element_parent = root.find("os")
            assert element_parent is not None
            element_parent.remove(element)
    return root


def _without_path(console: ET.Element) -> None:
    """A socket or file of the old host becomes what it can be anywhere: the agent's channel without a path, or a pty."""
    source = console.find("source")
    if source is not None:
        console.remove(source)
    if console.tag != "channel" and console.get("type") not in ("pty", "spicevmc"):
        console.set("type", "pty")


def _plain(vm: VmSpec) -> ET.Element:
    root = ET.Element("domain")
    ET.SubElement(root, "memory", unit="MiB").text = str(vm.memory_mb)
    ET.SubElement(root, "vcpu").text = str(vm.cpu)
    system = ET.SubElement(root, "os")
    ET.SubElement(system, "type", arch=vm.architecture or "x86_64", machine="q35").text = "hvm"
    features = ET.SubElement(root, "features")
    for feature in ("acpi", "apic"):
        ET.SubElement(features, feature)
    devices = ET.SubElement(root, "devices")
    console = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(console, "target", port="0")
    return root


def _firmware(root: ET.Element, wanted: str, nvram: str, vm: VmSpec) -> None:
    """libvirt finds the firmware by itself; the variables, where the export has them, keep its boot entries."""
    system = root.find("os")
    assert system is not None
    had_loader = system.find("loader")
    template = system.find("nvram")
    for name in ("loader", "nvram", "firmware"):
        for element in system.findall(name):
            system.remove(element)
    system.attrib.pop("firmware", None)
    for boot in system.findall("boot"):
        system.remove(boot)
    ET.SubElement(system, "boot", dev="hd")
    if wanted != "uefi":
        return
    if had_loader is not None and had_loader.text:
        system.append(had_loader)
        variables = ET.SubElement(system, "nvram")
        if template is not None and template.get("template"):
            variables.set("template", template.get("template", ""))
        if nvram:
            variables.text = nvram
        return
    system.set("firmware", "efi")
    if vm.secure_boot:
        ET.SubElement(system, "loader", secure="yes")
    if nvram:
        ET.SubElement(system, "nvram").text = nvram


def _disks(devices: ET.Element, vm: VmSpec, disks: Sequence[NewDisk], bus: str) -> None:
    taken: dict[str, int] = {}
    for spec, new in zip(vm.disks, disks):
        on = bus or (spec.bus if spec.bus in PREFIXES else "virtio")
        prefix = PREFIXES[on]
        name = prefix + chr(ord("a") + taken.get(prefix, 0))
        taken[prefix] = taken.get(prefix, 0) + 1
        disk = ET.SubElement(devices, "disk", type="block" if new.block_device else "file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type=new.format, discard="unmap")
        ET.SubElement(disk, "source", {"dev" if new.block_device else "file": new.path})
        ET.SubElement(disk, "target", dev=name, bus=on)
        if spec.serial:
            ET.SubElement(disk, "serial").text = spec.serial


def _nics(devices: ET.Element, nics: Sequence[NicSpec], placement: Placement) -> None:
    for nic in nics:
        network = placement.network_map.get(nic.mac) or placement.network_map.get(nic.network) or nic.network
        kind = nic.kind if nic.kind in ("network", "bridge", "user") else "network"
        if nic.mac in placement.network_map or nic.network in placement.network_map:
            kind = "network"
        element = ET.SubElement(devices, "interface", type=kind)
        if kind != "user":
            ET.SubElement(element, "source", {kind: network})
        if placement.keep_mac and nic.mac:
            ET.SubElement(element, "mac", address=nic.mac)
        if nic.model:
            ET.SubElement(element, "model", type=nic.model)


def _mark(root: ET.Element, mark: Mapping[str, str]) -> None:
    metadata = root.find("metadata")
    if metadata is None:
        metadata = ET.SubElement(root, "metadata")
    for element in metadata.findall(IMPORT):
        metadata.remove(element)
    ET.SubElement(metadata, IMPORT, dict(mark))


def _set(root: ET.Element, name: str, text: str) -> None:
    element = root.find(name)
    if element is None:
        element = ET.Element(name)
        root.insert(0, element)
    element.text = text
