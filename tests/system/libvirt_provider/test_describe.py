# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM in our words is what libvirt and qemu-img say of it."""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from rigs import guests
from rigs.domain import Disk, Guest, Machine, domain_xml
from rigs.libvirt import LibvirtRig


def test_a_running_vm_is_described_with_its_hardware(provider: LibvirtProvider, busy_guest: Guest) -> None:
    vm = provider.describe("busy")
    assert (vm.id, vm.name, vm.power_state) == (busy_guest.domain.UUIDString(), "busy", "powered_on")
    assert (vm.cpu, vm.memory_mb, vm.firmware, vm.architecture) == (1, 192, "bios", "x86_64")
    assert [(disk.id, disk.name, disk.format, disk.bus) for disk in vm.disks] == [
        ("disk-0", "vda", "qcow2", "virtio"),
        ("disk-1", "vdb", "raw", "virtio"),
    ]
    assert vm.disks[1].size == 64 << 20
    assert [disk.change_tracking for disk in vm.disks] == [True, False]
    assert vm.guest_agent
    assert vm.nics[0].kind == "user"
    assert vm.nics[0].mac
    assert "q35" in vm.machine


def test_all_vms_are_listed_as_each_is_described(provider: LibvirtProvider, rig: LibvirtRig, busy_guest: Guest) -> None:
    path = guests.place(guests.linux_disk(), rig.directory / "off.qcow2")
    domain = rig.connect().defineXML(domain_xml(Machine("off", (Disk(path, serial="S1"),)), rig.directory))
    try:
        found = {vm.name: vm for vm in provider.vms()}
        assert set(found) == {"busy", "off"}
        assert found["off"] == provider.describe("off")
        assert found["off"].power_state == "powered_off"
        assert found["off"].disks[0].size == guests.linux_disk().stat().st_size
        assert found["off"].disks[0].serial == "S1"
        assert found["off"].disks[0].source == str(path)
    finally:
        domain.undefine()


def test_boot_order_decides_which_disk_is_first_and_removable_media_are_no_disks(
    provider: LibvirtProvider, rig: LibvirtRig
) -> None:
    first, second = (guests.mbr_disk(rig.directory / f"{name}.raw", name) for name in ("one", "two"))
    xml = domain_xml(Machine("order", (Disk(first, "raw"), Disk(second, "raw"))), rig.directory)
    xml = xml.replace('<target dev="vdb" bus="virtio" />', '<target dev="vdb" bus="virtio" /><boot order="1" />')
    xml = xml.replace("</devices>", '<disk type="file" device="cdrom"><target dev="sda" bus="sata"/></disk></devices>')
    domain = rig.connect().defineXML(xml)
    try:
        vm = provider.describe("order")
        assert [(disk.id, disk.name, disk.boot) for disk in vm.disks] == [
            ("disk-0", "vdb", True),
            ("disk-1", "vda", False),
        ]
        assert vm.details["cdroms"] == [{"name": "sda", "source": ""}]
    finally:
        domain.undefine()


def test_a_disk_in_a_pool_is_resolved_to_its_file(provider: LibvirtProvider, rig: LibvirtRig) -> None:
    folder = rig.directory / "volumes"
    folder.mkdir()
    guests.mbr_disk(folder / "disk.raw", "pooled")
    pool = rig.connect().storagePoolCreateXML(
        f"<pool type='dir'><name>volumes</name><target><path>{folder}</path></target></pool>"
    )
    xml = domain_xml(Machine("pooled", (Disk(folder / "disk.raw", "raw"),)), rig.directory)
    xml = xml.replace('<disk type="file"', '<disk type="volume"')
    xml = xml.replace(f'<source file="{folder}/disk.raw" />', "<source pool='volumes' volume='disk.raw'/>")
    domain = rig.connect().defineXML(xml)
    try:
        disk = provider.describe("pooled").disks[0]
        assert (disk.storage, disk.source, disk.size) == ("volumes", str(folder / "disk.raw"), 1 << 20)
    finally:
        domain.undefine()
        pool.destroy()


def test_a_libvirt_on_another_host_is_refused() -> None:
    with pytest.raises(VmferryError, match="another host") as caught:
        LibvirtProvider({"uri": "qemu+ssh://kvm.example/system"})
    assert caught.value.kind == "unsupported"
