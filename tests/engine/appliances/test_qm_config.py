# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations of Proxmox VE become machines, and machines configurations: what they say, what they leave unsaid, and
what is no such thing.
"""

from __future__ import annotations

import re
import time

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.machine import Disk, Machine, Nic
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.qm_reader import read_config
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.qm_writer import drives_of, write_config
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


# Machines that become configurations.


def machine(**changes: object) -> Machine:
    disks = [Disk(f"d{number}", "", MIB + 512, bus=bus) for number, bus in enumerate(("virtio", "nvme", "sata"))]
    nics = (Nic("a", "default", "virtio", "52:54:00:00:00:01"), Nic("b", "vmbr7", "vmxnet3", ""), Nic("c", "lan", "?"))
    given = {"name": "wéb 1", "cpus": 3, "memory": 1536 * MIB, "disks": tuple(disks), "nics": nics, **changes}
    return Machine(**given)  # type: ignore[arg-type]


def devices_of(made: Machine) -> dict[str, int]:
    return {f"drive-{drive}": disk.capacity for drive, disk in zip(drives_of(made), made.disks)}


def test_a_machine_comes_back_as_it_was() -> None:
    made = machine(firmware="uefi", secure_boot=True, tpm=True, machine="pc-q35-7.2", removable=("cdrom",))
    text = write_config(made)
    found = read(text, devices_of(made))
    assert (found.name, found.cpus, found.memory) == ("w-b-1", 3, 1536 * MIB)
    assert (found.firmware, found.machine, found.removable) == ("uefi", "q35", ("cdrom",))
    assert [(one.id, one.capacity, one.bus) for one in found.disks] == [
        ("virtio0", MIB + 512, "virtio"),
        ("scsi0", MIB + 512, "scsi"),  # what it has no bus for
        ("sata0", MIB + 512, "sata"),
    ]
    assert [(one.network, one.model, one.mac) for one in found.nics] == [
        ("vmbr0", "virtio", "52:54:00:00:00:01"),
        ("vmbr7", "vmxnet3", ""),
        ("vmbr0", "e1000", ""),
    ]
    for words in ("net0 was in the network default.", "net2 was in the network lan.", "Secure Boot", "a TPM"):
        assert words in found.annotation
    assert "vmbr7" not in found.annotation
    assert b"\nscsihw: virtio-scsi-pci\n" in text
    assert found.warnings == ()


# What `qmrestore` makes of each line (PVE/QemuServer.pm): its own words for a map, a drive and a value.
LINES = re.compile(
    r"#(qmdump#map:\S+:\S+:\S*:\S*:|(?!qmdump|vzdump)[ -~]*)"
    r"|(ide|scsi|virtio|sata)\d+: \S+"
    r"|[a-z][a-z0-9_]*: [ -~]*\S"
)


def test_every_line_is_one_that_qmrestore_takes() -> None:
    text = write_config(machine(annotation="Ünïcode\n#qmdump#map:x:y:z:raw:\n" + 9000 * "long " + "\nscsi0: a:b"))
    assert len(text) < 10_000
    for line in text.decode("ascii").splitlines():
        assert LINES.fullmatch(line), line
    drives = re.findall(rb"^#qmdump#map:(\S+):drive-(\S+)::raw:$", text, re.MULTILINE)
    assert drives == [(b"virtio0", b"virtio0"), (b"scsi0", b"scsi0"), (b"sata0", b"sata0")]
    assert b"boot: order=virtio0\n" in text


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"os_name": "Microsoft Windows Server 2022"}, b"ostype: win10"),
        ({"os_name": "Debian GNU/Linux 12"}, b"ostype: l26"),
        ({"os_name": ""}, b"ostype: other"),
        ({"architecture": "aarch64", "machine": "virt-7.2"}, b"arch: aarch64"),
        ({"name": "///"}, b"name: vm"),
        ({"memory": 1}, b"memory: 16"),
    ],
)
def test_what_a_value_becomes(changes: dict[str, object], line: bytes) -> None:
    assert line in write_config(machine(**changes)).splitlines()


def test_disks_that_a_bus_has_no_place_for_are_on_scsi() -> None:
    disks = tuple(Disk(f"d{number}", "", MIB, bus="sata") for number in range(8))
    assert drives_of(machine(disks=disks)) == [*(f"sata{number}" for number in range(6)), "scsi0", "scsi1"]
    with pytest.raises(VmferryError, match="no places for 38 disks") as refused:
        drives_of(machine(disks=tuple(Disk(f"d{number}", "", MIB, bus="sata") for number in range(38))))
    assert refused.value.kind == "unsupported"


DISK = b"scsi0: x:y\n"
LONG = 64 << 10  # bytes: no file in an archive is longer


@pytest.mark.parametrize(
    "line",
    [
        b"#qmdump#map:" + b":" * LONG + b" ",
        b"#qmdump#map:a:" + b"b:" * (LONG // 2) + b" ",
        b"#qmdump#map:" + b"a" * LONG,
        b"a:" + b" " * LONG,
        b"a:" + b" b" * (LONG // 2),
        b"a" * LONG,
        b"boot: order=" + b";" * LONG,
    ],
    ids=["colons", "pairs", "no colon", "blanks", "words", "key", "order"],
)
def test_hostile_lines_cost_no_more_than_their_length(line: bytes) -> None:
    started = time.thread_time()
    read(DISK + line + b"\n")
    assert time.thread_time() - started < 1  # of squares it were minutes


@pytest.mark.parametrize("key", [b"memory", b"cores", b"sockets", b"vcpus"])
def test_numbers_of_thousands_of_digits_are_refused(key: bytes) -> None:
    with pytest.raises(VmferryError, match="no number of any") as caught:
        read(DISK + key + b": " + b"1" * 5000 + b"\n")
    assert caught.value.kind == "invalid_config"


def test_drives_and_cards_of_thousands_of_digits_are_none() -> None:
    digits = b"1" * 5000
    found = read(DISK + b"scsi" + digits + b": x:y\nnet" + digits + b": virtio\n")
    assert [one.id for one in found.disks] == ["scsi0"]
    assert found.nics == ()


def test_control_characters_do_not_enter_the_machine() -> None:
    text = DISK + b"name: a\x01\x1b[2Jb\nnet0: virtio,bridge=vm\x02br\n#a%00b%1bc%0Ad%E2%80%AEe%09f \xc3\xa9\n"
    found = read(text)
    assert found.name == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[2Jb"
    assert found.nics[0].network == "vm\N{REPLACEMENT CHARACTER}br"
    assert (
        found.annotation.replace("\N{REPLACEMENT CHARACTER}", "?") == "a?b?c\nd?e f \N{LATIN SMALL LETTER E WITH ACUTE}"
    )
