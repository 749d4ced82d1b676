# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM that was exported in each format boots again, from whichever bus its disks are put on."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import libvirt
import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._images.formats import NAMES
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec
from rigs import guests
from rigs.domain import Bus, Disk, Machine, booted, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig
from rigs.vsphere import VSphere

from .exports import MIB, Bench

BUSES = ("virtio", "scsi", "sata", "ide")
# A handful: a boot sector has seen every format on every bus, and a kernel does not know what it was booted from.
LINUX = [
    ("bios", "vmdk", "scsi"),
    ("bios", "vhdx", "virtio"),
    ("bios", "vhd_dynamic", "ide"),
    ("uefi", "vmdk_sparse", "virtio"),
]
PATIENCE = 300.0  # seconds; a quiet machine is there after ten
READ = 2 * MIB


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


def test_a_boot_sector_from_vsphere_boots_whether_its_vm_was_off_or_ran(
    bench: Bench, made: list[str], tmp_path: Path
) -> None:
    disk = guests.mbr_disk(tmp_path / "there.raw", "from vsphere", 3 * MIB)
    with VSphere() as server:
        settings = {"hostname": server.host, "port": server.port, "ca_path": str(server.certificate)}
        vsphere = ProviderSpec("vsphere", {**settings, "username": server.user, "password": server.password})
        for power in ("off", "on"):
            server.make_vm(f"there-{power}", [disk], running=power == "on", networks=())
            bench.export(f"there-{power}", provider=vsphere)
    for power in ("off", "on"):
        made.append(f"back-{power}")
        bench.import_(made[-1], vm=f"there-{power}", placement={"disk_bus": "virtio"})
        with booted(bench.rig, bench.rig.connect().lookupByName(made[-1])) as console:
            assert "READ-ERROR" not in console.wait_for(guests.boot_marker("from vsphere")), power
            console.type("x")


@pytest.mark.parametrize(("firmware", "format_", "bus"), LINUX)
def test_linux_boots_and_reads_and_writes_its_disk(
    bench: Bench, made: list[str], firmware: Literal["bios", "uefi"], format_: str, bus: Bus
) -> None:
    image = guests.uefi_disk() if firmware == "uefi" else guests.linux_disk()
    off = defined(bench, f"linux-{firmware}", image, firmware)
    made += [off, "back"]
    bench.export(off, format=format_)
    bench.import_("back", placement={"disk_bus": bus})
    domain = bench.rig.connect().lookupByName("back")
    assert disk_buses(domain) == [bus]
    with booted(bench.rig, domain) as console:
        console.wait_for(guests.READY, PATIENCE)
        disk = "/dev/vda" if bus == "virtio" else "/dev/sda"
        assert console.run("grep ' /mnt ' /proc/mounts").split()[:3] == [f"{disk}2", "/mnt", "ext4"]
        assert console.run("ls -d /sys/firmware/efi || true").endswith("/efi") == (firmware == "uefi")
        with image.open("rb") as source:
            source.seek(MIB)
            read = hashlib.md5(source.read(READ), usedforsecurity=False).hexdigest()
        assert console.run(f"dd if={disk}1 bs={READ} count=1 2>/dev/null | md5sum").split()[0] == read
        console.run("echo written > /mnt/file && sync && umount /mnt")
        console.run(f"mount {disk}2 /mnt && [ $(cat /mnt/file) = written ]")


def defined(bench: Bench, name: str, image: Path, firmware: str) -> str:
    """A machine that is off, with the image as its disk, which nobody writes."""
    machine = Machine(
        name,
        (Disk(image, "raw"),),
        boot="uefi" if firmware == "uefi" else "disk",
        memory_mib=256 if firmware == "uefi" else 192,
        chipset="q35" if firmware == "uefi" else "pc",
    )
    bench.rig.connect().defineXML(domain_xml(machine, bench.rig.directory))
    return name


def disk_buses(domain: libvirt.virDomain) -> list[str]:
    return [target.attrib["bus"] for target in ET.fromstring(domain.XMLDesc()).iterfind("devices/disk/target")]
