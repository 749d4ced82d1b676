# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations of Proxmox VE become machines: what they say, what they leave unsaid, and what is no such thing."""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.machine import Machine
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.qm_reader import read_config
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError

MIB = 1 << 20
# In the manner of vzdump: comments of people first, then the values, then its own comments; then snapshots.
WHOLE = b"""\
#The shop%3A ask Ada%0Abefore you touch it
agent: 1
bios: ovmf
boot: order=scsi1;ide2;net0
cipassword: hunter2
cores: 4
cpu: host
efidisk0: local-lvm:vm-104-disk-0,efitype=4m,pre-enrolled-keys=1,size=4M
hostpci0: 0000:01:00.0,pcie=1
ide2: none,media=cdrom
machine: pc-q35-8.1+pve0
memory: 4096
meta: creation-qemu=8.1.5,ctime=1720000000
name: shop
net0: virtio=BC:24:11:2E:C3:5A,bridge=vmbr0,firewall=1,tag=100
net10: e1000,bridge=vmbr1
net2: model=rtl8139,macaddr=bc:24:11:00:00:01,bridge=inner
numa: 0
ostype: l26
sata0: tank:vm-104-disk-3,size=1G
scsi0: local-lvm:vm-104-disk-1,iothread=1,size=32G
scsi1: local-lvm:vm-104-disk-2,backup=1,size=1M
scsi10: local-lvm:vm-104-disk-9,backup=0,size=8G
scsihw: virtio-scsi-single
smbios1: uuid=e4c6f3a2-1b0c-4b65-9d4e-0d5e6f7a8b9c
sockets: 2
tpmstate0: local-lvm:vm-104-disk-4,size=4M,version=v2.0
unused0: local-lvm:vm-104-disk-8
usb0: spice
#qmdump#map:efidisk0:drive-efidisk0:local-lvm:raw:
#qmdump#map:scsi0:drive-scsi0:local-lvm:raw:
#qmdump#map:scsi1:drive-other:local-lvm:raw:
#qmdump#map:sata0:drive-sata0:tank:raw:

[before]
memory: 1
scsi0: local-lvm:vm-104-disk-7,size=32G
"""
DEVICES = {
    "drive-efidisk0": 528 * 1024,
    "drive-sata0": 3 * MIB,
    "drive-scsi0": 2 * MIB,
    "drive-other": MIB,
    "drive-tpmstate0": 4 * MIB,
}


def read(text: bytes, devices: dict[str, int] | None = None) -> Machine:
    return read_config(text, {"drive-scsi0": MIB} if devices is None else devices, "of-the-file", "x.vma")


def test_all_that_is_said() -> None:
    found = read(WHOLE, DEVICES)
    assert (found.name, found.cpus, found.memory) == ("shop", 8, 4096 * MIB)
    assert (found.firmware, found.secure_boot, found.tpm, found.machine) == ("uefi", True, True, "q35")
    assert (found.os_name, found.architecture) == ("Linux (l26)", "x86_64")
    assert found.annotation == "The shop: ask Ada\nbefore you touch it"
    assert found.removable == ("cdrom",)
    assert [(one.id, one.file, one.capacity, one.bus) for one in found.disks] == [
        ("scsi1", "drive-other", MIB, "scsi"),  # which it is booted from
        ("scsi0", "drive-scsi0", 2 * MIB, "scsi"),
        ("sata0", "drive-sata0", 3 * MIB, "sata"),
    ]
    assert [(one.name, one.network, one.model, one.mac) for one in found.nics] == [
        ("net0", "vmbr0", "virtio", "BC:24:11:2E:C3:5A"),
        ("net2", "inner", "rtl8139", "bc:24:11:00:00:01"),
        ("net10", "vmbr1", "e1000", ""),
    ]
    said = " ".join(found.warnings)
    for words in ("VLAN '100'", "scsi10 is not in", "hostpci0", "drive-efidisk0 is left", "drive-tpmstate0 is left"):
        assert words in said
    assert "hunter2" not in repr(found)
    assert "usb0" not in said


def test_what_is_left_unsaid_is_what_proxmox_takes() -> None:
    found = read(b"scsi0: local:1/disk.raw\r\n")
    assert (found.name, found.cpus, found.memory) == ("of-the-file", 1, 512 * MIB)
    assert (found.firmware, found.secure_boot, found.tpm, found.machine) == ("bios", False, False, "pc")
    assert (found.nics, found.removable, found.os_name, found.warnings) == ((), (), "", ())


@pytest.mark.parametrize(
    ("lines", "first"),
    [
        (b"", "ide1"),  # in the order of Proxmox VE
        (b"boot: order=net0;virtio0\n", "virtio0"),
        (b"boot: cdn\nbootdisk: scsi0\n", "scsi0"),
        (b"boot: order=sata5\n", "ide1"),
    ],
)
def test_the_first_disk_is_the_one_that_is_booted_from(lines: bytes, first: str) -> None:
    drives = ("scsi0", "virtio0", "ide1")
    text = lines + b"".join(b"%s: a:b\n" % drive.encode() for drive in drives)
    assert read(text, {f"drive-{drive}": MIB for drive in drives}).disks[0].id == first


def test_a_disk_that_is_called_ide_is_where_its_chipset_has_it() -> None:
    devices = {"drive-ide0": MIB}
    assert read(b"ide0: a:b\n", devices).disks[0].bus == "ide"
    assert read(b"ide0: a:b\nmachine: q35\n", devices).disks[0].bus == "sata"
    secure = read(b"ide0: a:b\nbios: ovmf\nefidisk0: a:c,pre-enrolled-keys=1\n", devices)
    assert (secure.machine, secure.disks[0].bus) == ("q35", "sata")
    assert read(b"ide0: a:b\nbios: ovmf\n", devices).machine == "pc"


def test_fewer_processors_than_there_is_room_for() -> None:
    assert read(b"scsi0: a:b\nsockets: 2\ncores: 8\nvcpus: 3\nmemory: current=1024\n").cpus == 3
    assert read(b"scsi0: a:b\nmemory: current=1024\n").memory == 1024 * MIB


def test_what_was_made_for_cloud_init_is_an_empty_drive() -> None:
    found = read(b"scsi0: a:b\nide2: local-lvm:vm-104-cloudinit,media=cdrom,size=4M\n")
    assert found.removable == ("cdrom",)
    assert "cloud-init" in found.warnings[0]


@pytest.mark.parametrize(
    ("text", "devices", "words"),
    [
        (b"", {"drive-scsi0": MIB}, "says nothing of"),
        (b"scsi0: a:b\n", {}, "has no disk"),
        (b"scsi0: none,media=cdrom\n", {"drive-scsi0": MIB}, "says nothing of"),
        (b"scsi0: a:b\nscsi1: a:c\n#qmdump#map:scsi1:drive-scsi0:a:raw:\n", None, "two drives"),
        (b"scsi0: a:b\nmemory: lots\n", None, "no number"),
        (b"scsi0: a:b\ncores: 0\n", None, "no number"),
        (b"scsi0: a:b\nsockets: 99999999999999999999\n", None, "no number"),
        ("scsi0: a:b\ncores: ²\n".encode(), None, "no number"),
        (b"scsi0: a:b\narch: vax\n", None, "processors 'vax'"),
    ],
)
def test_what_is_no_machine_of_these_disks_is_refused(text: bytes, devices: dict[str, int] | None, words: str) -> None:
    with pytest.raises(VmferryError, match=words) as refused:
        read(text, devices)
    assert refused.value.kind == "invalid_config"
    assert refused.value.hint
