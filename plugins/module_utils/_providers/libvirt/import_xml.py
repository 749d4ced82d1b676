# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain XML of an imported VM: built anew, with those parts of an exported domain that mean the same elsewhere."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

from ..._errors import VmferryError
from ..base import Placement
from ..network_names import mapped_network
from ..spec import NicSpec, VmSpec
from . import domain_xml
from .host import Host
from .import_drives import drives
from .import_leftovers import mark

KEPT = ("title", "description", "iothreads", "clock", "pm", "on_poweroff", "on_reboot", "on_crash", "cpu", "features")
# Devices that need nothing of the host they came from. Unix sockets, ports and host devices do.
KEPT_DEVICES = (
    "controller",
    "input",
    "video",
    "sound",
    "memballoon",
    "watchdog",
    "panic",
    "rng",
    "tpm",
    "hub",
    "iommu",
)
HOST_DEVICES = ("hostdev", "filesystem", "shmem", "vsock", "smartcard", "redirdev", "lease", "nvram", "memory")
PREFIXES: Mapping[str, str] = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd", "nvme": "nvme"}
DISK_BUSES = ("virtio", "scsi", "sata", "ide", "usb")
DISK_DRIVER = ("cache", "io", "discard", "detect_zeroes", "error_policy", "rerror_policy")
AGENT = "org.qemu.guest_agent.0"
OF_VSPHERE = "vmx-"  # how machines are called there: versions of its virtual hardware, and nothing that QEMU has
DEFAULT_MACHINE: Mapping[str, str] = {"x86_64": "q35", "aarch64": "virt"}


@dataclass(frozen=True)
class PlacedDisk:
    name: str  # of the exported disk
    path: Path
    format: str


class DomainBuilder:
    """`build` once; `warnings` then says what was left behind."""

    def __init__(self, vm: VmSpec, native: ET.Element | None, placement: Placement, host: Host) -> None:
        self._vm, self._placement, self._host = vm, placement, host
        self._native = ET.Element("domain") if native is None else native
        self._has_native = native is not None
        self.warnings: list[str] = []

    def build(self, uuid: str, disks: Sequence[PlacedDisk], nvram: Path | None, export_id: str, attempt: str) -> str:
        kind = self._native.get("type", "")
        root = ET.Element("domain", type=self._host.domain_type(self._vm.architecture, kind))
        if kind and root.get("type") != kind:
            self.warnings.append(f"This host has no {kind}: the VM runs, more slowly, under {root.get('type')}.")
        ET.SubElement(root, "name").text = self._placement.name
        ET.SubElement(root, "uuid").text = uuid
        root.append(self._metadata(export_id, attempt))
        self._add_size(root)
        system = self._system(nvram)
        root.append(system)
        self._add_kept(root)
        root.append(self._devices(disks, domain_xml.attribute(system, "type", "machine")))
        return ET.tostring(root, "unicode")

    def _metadata(self, export_id: str, attempt: str) -> ET.Element:
        metadata = ET.Element("metadata")
        system = self._native.find(f"metadata/{domain_xml.LIBOSINFO}libosinfo")
        if system is not None:
            metadata.append(copy.deepcopy(system))
        if self._vm.tags:
            metadata.append(domain_xml.tags_element(self._vm.tags))
        metadata.append(mark(export_id, attempt, self._vm))
        return metadata

    def _add_size(self, root: ET.Element) -> None:
        ET.SubElement(root, "memory", unit="MiB").text = str(self._placement.memory_mb or self._vm.memory_mb)
        exported = self._native.find("vcpu")
        count = ET.SubElement(root, "vcpu")
        if self._placement.cpu:
            count.text = str(self._placement.cpu)
        elif exported is not None and exported.text:  # without cpuset: the other host has other cores
            count.text = exported.text
            if exported.get("current"):
                count.set("current", exported.get("current", ""))
        else:
            count.text = str(self._vm.cpu)

    def _add_kept(self, root: ET.Element) -> None:
        for tag in KEPT:
            for element in self._native.findall(tag):
                kept = copy.deepcopy(element)
                if tag == "cpu" and (self._placement.cpu or self._placement.memory_mb):
                    for arrangement in kept.findall("topology") + kept.findall("numa"):
                        kept.remove(arrangement)  # of so many processors, and so much memory, as it has no more
                root.append(kept)
        if not self._has_native:
            features = ET.SubElement(root, "features")
            ET.SubElement(features, "acpi")
            ET.SubElement(features, "apic")

    # --- firmware ---------------------------------------------------------------------------------------------------

    def _system(self, nvram: Path | None) -> ET.Element:
        system = ET.Element("os")
        kind = ET.SubElement(system, "type", arch=self._vm.architecture or "x86_64", machine=self.machine())
        kind.text = "hvm"
        if (self._placement.firmware or self._vm.firmware) == "uefi":
            self._add_uefi(system, nvram)
        for tag in ("boot", "bootmenu", "smbios", "bios"):
            for element in self._native.findall(f"os/{tag}"):
                system.append(copy.deepcopy(element))
        if system.find("boot") is None and not self._native.findall("devices/*/boot"):
            ET.SubElement(system, "boot", dev="hd")
        if self._native.find("os/kernel") is not None:
            self.warnings.append("It was booted from a kernel file of its host, which was not exported.")
        return system

    def machine(self) -> str:
        known = "" if self._vm.machine.startswith(OF_VSPHERE) else self._vm.machine
        wanted = known or DEFAULT_MACHINE.get(self._vm.architecture, "")
        if not known and wanted == "q35" and any(self.bus(disk.name) == "ide" for disk in self._vm.disks):
            wanted = "pc"  # q35 has no IDE
        if wanted in self._host.machines(self._vm.architecture):
            return wanted
        family = "q35" if "q35" in wanted else "pc" if wanted.startswith(("pc", "i440fx")) else "virt"
        self.warnings.append(f"This host has no machine {wanted}; it is now {family}.")
        return family

    def _add_uefi(self, system: ET.Element, nvram: Path | None) -> None:
        loader, variables = self._native.find("os/loader"), self._native.find("os/nvram")
        chosen_by_libvirt = self._native.find("os") is not None and self._native.find("os").get("firmware") == "efi"  # type: ignore[union-attr]
        if loader is not None and loader.text and Path(loader.text).exists() and not chosen_by_libvirt:
            system.append(copy.deepcopy(loader))
            element = ET.Element("nvram")
            if nvram is not None:
                element.text = str(nvram)
            if variables is not None and variables.get("template") and not (nvram is not None and nvram.exists()):
                element.set("template", variables.get("template", ""))
            if element.text or element.attrib:
                system.append(element)
            return
        # https://libvirt.org/formatdomain.html#bios-bootloader: libvirt picks a firmware that this host has
        system.set("firmware", "efi")
        if self._vm.secure_boot:
            firmware = ET.SubElement(system, "firmware")
            ET.SubElement(firmware, "feature", name="secure-boot", enabled="yes")
        if nvram is not None:
            ET.SubElement(system, "nvram").text = str(nvram)

    # --- devices ----------------------------------------------------------------------------------------------------

    def _devices(self, disks: Sequence[PlacedDisk], machine: str) -> ET.Element:
        devices = ET.Element("devices")
        self._add_disks(devices, disks)
        used = {domain_xml.attribute(disk, "target", "dev") for disk in devices}
        moved = bool(self._placement.disk_bus)
        devices.extend(drives(self._vm, self._native, machine, used, letters, moved=moved))
        for tag in KEPT_DEVICES:
            for element in self._native.findall(f"devices/{tag}"):
                if not self._needs_host(element):
                    devices.append(copy.deepcopy(element))
        if any(self.bus(disk.name) == "scsi" for disk in disks) and devices.find("controller[@type='scsi']") is None:
            ET.SubElement(devices, "controller", type="scsi", model="virtio-scsi")
        for nic in self._vm.nics:
            devices.append(self._interface(nic))
        self._add_consoles(devices)
        self._add_screens(devices)
        left = sorted({element.tag for tag in HOST_DEVICES for element in self._native.findall(f"devices/{tag}")})
        if left:
            self.warnings.append(f"Left behind, since they belong to the host: {', '.join(left)}.")
        return devices

    def _needs_host(self, element: ET.Element) -> bool:
        if element.tag == "rng":
            return domain_xml.text_of(element, "backend") not in ("/dev/urandom", "/dev/random", "")
        if element.tag == "tpm" and domain_xml.attribute(element, "backend", "type") != "emulator":
            self.warnings.append("Its TPM was the host's own; it has none now.")
            return True
        return element.tag == "input" and element.get("type") in ("passthrough", "evdev")

    def bus(self, name: str) -> str:
        exported = next(disk.bus for disk in self._vm.disks if disk.name == name)
        bus = self._placement.disk_bus or exported
        return bus if bus in DISK_BUSES else "virtio"

    def _add_disks(self, devices: ET.Element, disks: Sequence[PlacedDisk]) -> None:
        exported = {
            domain_xml.attribute(element, "target", "dev"): element for element in self._native.findall("devices/disk")
        }
        used: dict[str, int] = {}
        for placed in disks:
            old, bus = exported.get(placed.name), self.bus(placed.name)
            same_bus = old is not None and domain_xml.attribute(old, "target", "bus") == bus
            number = used.setdefault(PREFIXES[bus], 0)
            used[PREFIXES[bus]] += 1
            target = placed.name if same_bus else f"{PREFIXES[bus]}{letters(number)}"
            devices.append(self._disk(placed, old, bus, target, same_bus))
        targets = [domain_xml.attribute(disk, "target", "dev") for disk in devices]
        if len(set(targets)) != len(targets):  # some kept their names, and others got one of these
            for number, disk in enumerate(devices):
                found = disk.find("target")
                if found is not None:
                    found.set("dev", f"{PREFIXES[found.get('bus', 'virtio')]}{letters(number)}")

    def _disk(self, placed: PlacedDisk, old: ET.Element | None, bus: str, target: str, same_bus: bool) -> ET.Element:
        disk = ET.Element("disk", type="file", device="disk")
        driver = ET.SubElement(disk, "driver", name="qemu", type=placed.format)
        ET.SubElement(disk, "source", file=str(placed.path))
        ET.SubElement(disk, "target", dev=target, bus=bus)
        spec = next(one for one in self._vm.disks if one.name == placed.name)
        if spec.read_only:
            ET.SubElement(disk, "readonly")
        if spec.serial:
            ET.SubElement(disk, "serial").text = spec.serial
        if old is None:
            driver.set("discard", "unmap")
            return disk
        for name in DISK_DRIVER:
            value = domain_xml.attribute(old, "driver", name)
            if value:
                driver.set(name, value)
        kept = ("wwn", "boot", "blockio", "iotune") + (("address",) if same_bus else ())
        disk.extend(copy.deepcopy(element) for tag in kept for element in old.findall(tag))
        return disk

    def _interface(self, nic: NicSpec) -> ET.Element:
        wanted = mapped_network(nic, self._placement)
        old = next(
            (one for one in self._native.findall("devices/interface") if mac_of(one) == nic.mac.lower() and nic.mac),
            None,
        )
        kind = "network" if wanted else nic.kind or "network"
        if kind not in ("network", "bridge", "user"):
            raise VmferryError(
                "invalid_config",
                f"{nic.id} of {self._vm.name} was attached to {kind} {nic.network}, which belongs to its host.",
                "Name a network of this host for it in network_map.",
            )
        interface = ET.Element("interface", type=kind)
        if self._placement.keep_mac and nic.mac:
            ET.SubElement(interface, "mac", address=nic.mac)
        if kind == "network":
            ET.SubElement(interface, "source", network=wanted or nic.network)
        elif kind == "bridge":
            ET.SubElement(interface, "source", bridge=nic.network)
        if nic.model:
            ET.SubElement(interface, "model", type=nic.model)
        if old is not None:  # the slot names the interface inside the guest
            kept = [element for tag in ("boot", "mtu", "link", "address") for element in old.findall(tag)]
            interface.extend(copy.deepcopy(element) for element in kept)
        return interface

    def _add_consoles(self, devices: ET.Element) -> None:
        """Sockets, files and ports of the old host become pseudo terminals of the new one."""
        for element in self._native.findall("devices/serial"):
            serial = ET.SubElement(devices, "serial", type="pty")
            target = element.find("target")
            if target is not None:
                serial.append(copy.deepcopy(target))
        if not self._has_native:
            ET.SubElement(devices, "serial", type="pty")
        if self._native.find(f"devices/channel/target[@name='{AGENT}']") is not None or not self._has_native:
            channel = ET.SubElement(devices, "channel", type="unix")
            ET.SubElement(channel, "target", type="virtio", name=AGENT)

    def _add_screens(self, devices: ET.Element) -> None:
        screens = self._native.findall("devices/graphics")
        for element in screens[:1]:
            kind = element.get("type", "vnc")
            if kind in ("vnc", "spice"):
                ET.SubElement(devices, "graphics", type=kind, autoport="yes", listen="127.0.0.1")
        if not self._has_native:
            ET.SubElement(devices, "graphics", type="vnc", autoport="yes", listen="127.0.0.1")


def mac_of(interface: ET.Element) -> str:
    return domain_xml.attribute(interface, "mac", "address").lower()


def letters(number: int) -> str:
    """a … z, aa, ab …, as Linux and libvirt count disks."""
    name = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(ord("a") + rest) + name
    return name
