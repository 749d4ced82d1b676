# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CD and floppy drives of an imported VM. They are empty: what lay in them was its host's, and is in no export."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ET
from typing import Callable, Iterator, Mapping, Set

from ..spec import VmSpec
from . import domain_xml

IDE_PLACES = 4  # of the one IDE controller that a machine has: hda to hdd
FLOPPY_PLACES = 2
PREFIXES: Mapping[str, str] = {"sata": "sd", "scsi": "sd", "usb": "sd", "ide": "hd", "fdc": "fd", "virtio": "vd"}


def drives(
    vm: VmSpec, native: ET.Element, machine: str, used: Set[str], letters: Callable[[int], str], *, moved: bool
) -> Iterator[ET.Element]:
    """As they were attached, where `native` tells. `machine`: the type it becomes; `used`: names that are taken;
    `moved`: disks are on other buses now, so that their places there are libvirt's to choose.
    """
    taken = set(used)
    for kind, name in vm.drives:
        old = next((one for one in native.findall(f"devices/disk[@device='{kind}']") if _name(one) == name), None)
        bus = domain_xml.attribute(old, "target", "bus") if old is not None else ""
        bus = bus if bus in PREFIXES else "fdc" if kind == "floppy" else _cdrom_bus(machine)
        if bus == "ide" and not (has_ide(machine) and _free_on_ide(taken, letters)):
            bus = "scsi" if _cdrom_bus(machine) == "scsi" else "sata"
        free = _free_name(name, bus, letters, taken)
        taken.add(free)
        drive = ET.Element("disk", type="file", device=kind)
        ET.SubElement(drive, "driver", name="qemu", type="raw")
        ET.SubElement(drive, "target", dev=free, bus=bus)
        if kind == "cdrom":
            ET.SubElement(drive, "readonly")
        if old is not None:
            kept = ("boot",) if moved or free != name else ("boot", "address")
            drive.extend(copy.deepcopy(element) for tag in kept for element in old.findall(tag))
        yield drive


def _name(element: ET.Element) -> str:
    return domain_xml.attribute(element, "target", "dev")


def _free_name(name: str, bus: str, letters: Callable[[int], str], taken: Set[str]) -> str:
    return next(found for found in _names(name, bus, letters) if found not in taken)


def _names(name: str, bus: str, letters: Callable[[int], str]) -> Iterator[str]:
    if name.startswith(PREFIXES[bus]):
        yield name
    number = 0
    while True:
        yield f"{PREFIXES[bus]}{letters(number)}"
        number += 1


def has_ide(machine: str) -> bool:
    return machine.startswith("pc") and "q35" not in machine


def _free_on_ide(taken: Set[str], letters: Callable[[int], str]) -> bool:
    return any(f"{PREFIXES['ide']}{letters(number)}" not in taken for number in range(IDE_PLACES))


def _cdrom_bus(machine: str) -> str:
    """That firmware boots from: https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms"""
    if has_ide(machine):
        return "ide"
    return "sata" if "q35" in machine else "scsi"
