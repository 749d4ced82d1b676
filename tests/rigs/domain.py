# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines on a libvirt rig: their XML, starting them with the console attached, and proof that one boots.

machine = Machine("alpha", disks=(Disk(path, "qcow2"),), boot="disk")
guest = define_and_start(rig, machine)           # paused until the console listens, so that no output is lost
guest.console.wait_for(guests.READY)
guest.domain                                      # looked up anew each time: survives rig.kill() and rig.start()
guest.wait_for_agent()
guest.snapshot_external("before")                 # -> {"vda": overlay path}
guest.destroy()
boot_and_expect(rig, domain_or_xml, "BOOT-OK alpha END", 60)
with booted(rig, domain_or_xml) as console:
    ...
"""

from __future__ import annotations

import secrets
import shutil
import time
import xml.etree.ElementTree as ET
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rigs import guests
from rigs.libvirt import LibvirtRig, best_accelerator
from rigs.serial import Console

if TYPE_CHECKING:
    import libvirt

Bus = Literal["virtio", "scsi", "sata", "ide"]
PREFIXES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "ide": "hd"}
AGENT_CHANNEL = "org.qemu.guest_agent.0"
AGENT_SECONDS = 30


@dataclass(frozen=True)
class Disk:
    """`kind` is "block" for a block device. Guests may discard on every disk."""

    path: Path
    image_format: str = "qcow2"
    bus: Bus = "virtio"
    kind: Literal["file", "block"] = "file"
    serial: str = ""


@dataclass(frozen=True)
class Machine:
    """`boot`: the first disk by BIOS ("disk") or UEFI ("uefi"), or the Linux guest's kernel directly ("kernel")."""

    name: str
    disks: tuple[Disk, ...] = ()
    boot: Literal["disk", "uefi", "kernel"] = "disk"
    memory_mib: int = 192
    chipset: Literal["q35", "pc"] = "q35"
    agent: bool = False
    network: bool = False


@dataclass(frozen=True)
class Guest:
    """A machine that define_and_start made."""

    rig: LibvirtRig
    name: str
    console: Console

    @property
    def domain(self) -> libvirt.virDomain:
        return self.rig.connect().lookupByName(self.name)

    def wait_for_agent(self, timeout: float = AGENT_SECONDS) -> None:
        """Until libvirt sees the guest agent and it answers."""
        import libvirt
        import libvirt_qemu

        deadline = time.monotonic() + timeout
        while True:
            try:
                libvirt_qemu.qemuAgentCommand(self.domain, '{"execute": "guest-ping"}', 5, 0)
                return
            except libvirt.libvirtError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def snapshot_external(self, name: str, quiesce: bool = False) -> dict[str, Path]:
        """Put a qcow2 overlay `<disk>.<name>` on every disk; the overlays by target."""
        import libvirt

        flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        if quiesce:
            flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE
        domain = self.domain
        snapshot = ET.Element("domainsnapshot")
        ET.SubElement(snapshot, "name").text = name
        disks = ET.SubElement(snapshot, "disks")
        overlays = {}
        for target, source in disk_sources(domain.XMLDesc()).items():
            overlays[target] = self.rig.directory / f"{Path(source).name}.{name}"
            disk = ET.SubElement(disks, "disk", name=target, snapshot="external", type="file")
            ET.SubElement(disk, "driver", type="qcow2")
            ET.SubElement(disk, "source", file=str(overlays[target]))
        domain.snapshotCreateXML(ET.tostring(snapshot, "unicode"), flags)
        return overlays

    def destroy(self) -> None:
        """Power off and forget, with all snapshots and checkpoints; disks stay."""
        self.console.close()
        remove_domain(self.domain)


def remove_domain(domain: libvirt.virDomain) -> None:
    import libvirt

    if domain.isActive():
        persistent = domain.isPersistent()
        domain.destroy()
        if not persistent:
            return
    domain.undefineFlags(
        libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )


def domain_xml(machine: Machine, directory: Path) -> str:
    """The machine's XML. Sockets and variables of the firmware lie in `directory`, named after the machine."""
    root = ET.Element("domain", type="kvm" if best_accelerator() == "kvm" else "qemu")
    ET.SubElement(root, "name").text = machine.name
    ET.SubElement(root, "memory", unit="MiB").text = str(machine.memory_mib)
    ET.SubElement(root, "vcpu").text = "1"
    system = ET.SubElement(root, "os")
    ET.SubElement(system, "type", arch="x86_64", machine=machine.chipset).text = "hvm"
    if machine.boot == "kernel":
        files = guests.kernel_files()
        ET.SubElement(system, "kernel").text = str(files.kernel)
        ET.SubElement(system, "initrd").text = str(files.initramfs)
        ET.SubElement(system, "cmdline").text = files.command_line
    if machine.boot == "uefi":
        ET.SubElement(system, "loader", readonly="yes", type="pflash").text = str(guests.OVMF_CODE)
        variables = ET.SubElement(system, "nvram", template=str(guests.OVMF_VARIABLES))
        variables.text = str(directory / f"{machine.name}.nvram")
    ET.SubElement(ET.SubElement(root, "features"), "acpi")
    ET.SubElement(root, "on_reboot").text = "destroy"
    devices = ET.SubElement(root, "devices")
    counts: dict[str, int] = {}
    for disk in machine.disks:
        prefix = PREFIXES[disk.bus]
        letter = chr(ord("a") + counts.setdefault(prefix, 0))
        counts[prefix] += 1
        devices.append(_disk_xml(disk, prefix + letter))
    if any(disk.bus == "scsi" for disk in machine.disks):
        ET.SubElement(devices, "controller", type="scsi", model="virtio-scsi")
    devices.append(_serial_xml(directory / f"{machine.name}.console"))
    if machine.agent:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "source", mode="bind", path=str(directory / f"{machine.name}.agent"))
        ET.SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
    if machine.network:
        ET.SubElement(ET.SubElement(devices, "interface", type="user"), "model", type="virtio")
    ET.SubElement(devices, "memballoon", model="none")
    return ET.tostring(root, "unicode")


def _disk_xml(disk: Disk, target: str) -> ET.Element:
    element = ET.Element("disk", type=disk.kind, device="disk")
    ET.SubElement(element, "driver", name="qemu", type=disk.image_format, discard="unmap")
    ET.SubElement(element, "source", {"file" if disk.kind == "file" else "dev": str(disk.path)})
    ET.SubElement(element, "target", dev=target, bus=disk.bus)
    if disk.serial:
        ET.SubElement(element, "serial").text = disk.serial
    return element


def _serial_xml(path: Path) -> ET.Element:
    element = ET.Element("serial", type="unix")
    ET.SubElement(element, "source", mode="bind", path=str(path))
    ET.SubElement(element, "target", port="0")
    return element


def disk_sources(xml: str) -> dict[str, str]:
    """Path by target of every disk (not CD-ROM) that is a file or block device."""
    sources = {}
    for disk in ET.fromstring(xml).iterfind("devices/disk[@device='disk']"):
        target, source = disk.find("target"), disk.find("source")
        if target is not None and source is not None:
            sources[target.attrib["dev"]] = source.get("file") or source.attrib["dev"]
    return sources


def define_and_start(rig: LibvirtRig, machine: Machine) -> Guest:
    domain = rig.connect().defineXML(domain_xml(machine, rig.directory))
    return Guest(rig, machine.name, start_with_console(domain))


def start_with_console(domain: libvirt.virDomain) -> Console:
    """Start a defined domain whose first serial port is a unix socket, and listen from its first instruction on."""
    import libvirt

    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    console = Console(_console_path(domain.XMLDesc()))
    domain.resume()
    return console


def _console_path(xml: str) -> Path:
    source = ET.fromstring(xml).find("devices/serial[@type='unix']/source")
    if source is None:
        raise RuntimeError("the domain has no serial port on a unix socket")
    return Path(source.attrib["path"])


def boot_and_expect(rig: LibvirtRig, domain: libvirt.virDomain | str, marker: str, timeout: float = 60) -> str:
    """Boot a domain (or its XML) and wait for a text on its serial port; what it printed up to there.

    The domain itself is left as it is and must be off: a twin that lives only for this call boots in its place, with
    the same disks and hardware, and with its first serial port led here.
    """
    with booted(rig, domain) as console:
        return console.wait_for(marker, timeout)


def booted(rig: LibvirtRig, domain: libvirt.virDomain | str) -> AbstractContextManager[Console]:
    """As `boot_and_expect`, with the serial port of the twin for as long as the context lasts."""
    xml = domain if isinstance(domain, str) else domain.XMLDesc()
    if not isinstance(domain, str) and domain.isActive():
        raise RuntimeError(f"{domain.name()} runs; its twin must not write to the same disks")
    return _Twin(rig, xml)


class _Twin:
    def __init__(self, rig: LibvirtRig, xml: str) -> None:
        self._rig = rig
        self._name = f"twin-{secrets.token_hex(4)}"
        self._nvram = rig.directory / f"{self._name}.nvram"
        self._socket = rig.directory / f"{self._name}.console"
        self._xml = self._changed(xml)

    def _changed(self, xml: str) -> str:
        root = ET.fromstring(xml)
        root.set("type", "kvm" if best_accelerator() == "kvm" else "qemu")
        name = root.find("name")
        devices = root.find("devices")
        if name is None or devices is None:
            raise ValueError("this is not the XML of a domain")
        name.text = self._name
        for tag in ("uuid", "cpu"):
            for element in root.findall(tag):
                root.remove(element)
        variables = root.find("os/nvram")
        if variables is not None and variables.text:
            if Path(variables.text).exists():
                shutil.copy(variables.text, self._nvram)
            variables.text = str(self._nvram)
        for tag in ("serial", "console", "interface", "channel", "graphics"):
            for element in devices.findall(tag):
                devices.remove(element)
        devices.append(_serial_xml(self._socket))
        return ET.tostring(root, "unicode")

    def __enter__(self) -> Console:
        import libvirt

        self._domain = self._rig.connect().createXML(
            self._xml, libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
        )
        try:
            self._console = Console(self._socket)
            self._domain.resume()
        except BaseException:
            self._domain.destroy()
            raise
        return self._console

    def __exit__(self, *_unused: object) -> None:
        import libvirt

        self._console.close()
        try:
            self._domain.destroy()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it may have powered itself off
                raise
        self._nvram.unlink(missing_ok=True)
