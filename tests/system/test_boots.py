# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM that was exported in each format boots again, from whichever bus its disks are put on."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack

import libvirt
import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._images.formats import NAMES
from rigs import guests
from rigs.domain import Disk, Machine, booted, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .exports import MIB, Bench

BUSES = ("virtio", "scsi", "sata", "ide")


@pytest.fixture(scope="module")
def bios(rig: LibvirtRig) -> Iterator[str]:
    """Off; of the chipset that has all of these buses. Its boot sector reads back what it prints, from its disk."""
    disk = guests.mbr_disk(rig.directory / "bios.raw", "from bios", 3 * MIB)
    machine = Machine("bios", (Disk(disk, "raw"),), memory_mib=32, chipset="pc")
    domain = rig.connect().defineXML(domain_xml(machine, rig.directory))
    yield "bios"
    remove_domain(domain)


@pytest.fixture
def made(rig: LibvirtRig) -> Iterator[list[str]]:
    """Names of VMs, which are removed afterwards."""
    names: list[str] = []
    yield names
    for domain in rig.connect().listAllDomains():
        if domain.name() in names:
            remove_domain(domain)


@pytest.mark.parametrize("format_", NAMES)
def test_a_boot_sector_boots_from_every_bus(bench: Bench, bios: str, made: list[str], format_: str) -> None:
    bench.export(bios, format=format_)
    with ExitStack() as machines:  # they are gone by themselves, one while the next one boots
        for bus in BUSES:
            made.append(f"{format_}-{bus}")
            bench.import_(made[-1], placement={"disk_bus": bus})
            domain = bench.rig.connect().lookupByName(made[-1])
            assert disk_buses(domain) == [bus]
            console = machines.enter_context(booted(bench.rig, domain))
            assert "READ-ERROR" not in console.wait_for(guests.boot_marker("from bios")), bus
            console.type("x")


def disk_buses(domain: libvirt.virDomain) -> list[str]:
    return [target.attrib["bus"] for target in ET.fromstring(domain.XMLDesc()).iterfind("devices/disk/target")]
