# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives and network cards as configurations have them, and the volumes of every kind of storage."""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.drives import (
    Volume,
    bridge_and_vlan,
    disks_of,
    drive_of,
    drives_of,
    network_name,
    nics_of,
    own_state,
    size_in_bytes,
    unused_volumes,
)

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "storage", "owner", "format", "stands_on"),
    [
        ("local:100/vm-100-disk-0.qcow2", "local", 100, "qcow2", ""),
        ("nfs:100/vm-100-disk-1.raw", "nfs", 100, "raw", ""),
        ("local:100/vm-100-disk-2.vmdk", "local", 100, "vmdk", ""),
        ("local-lvm:vm-100-disk-0", "local-lvm", 100, "raw", ""),
        ("san:vm-100-disk-0.qcow2", "san", 100, "qcow2", ""),  # LVM from Proxmox VE 9 on
        ("local-zfs:vm-100-disk-0", "local-zfs", 100, "raw", ""),
        ("ceph:vm-100-disk-0", "ceph", 100, "raw", ""),
        ("local-zfs:base-9000-disk-0/vm-101-disk-0", "local-zfs", 101, "raw", "local-zfs:base-9000-disk-0"),
        (
            "local:9000/base-9000-disk-0.qcow2/101/vm-101-disk-0.qcow2",
            "local",
            101,
            "qcow2",
            "local:9000/base-9000-disk-0.qcow2",
        ),
        ("local:9000/base-9000-disk-0.qcow2", "local", 9000, "qcow2", ""),
        ("local-lvm:vm-100-my-own-name", "local-lvm", 100, "raw", ""),
        ("iscsi:0.0.1.scsi-36001405", "iscsi", 0, "raw", ""),
        ("/dev/disk/by-id/ata-X:1", "", 0, "raw", ""),
    ],
)
def test_a_volume_tells_its_storage_owner_format_and_what_it_stands_on(
    text: str, storage: str, owner: int, format: str, stands_on: str
) -> None:
    volume = Volume(text)
    assert (volume.storage, volume.owner, volume.format, volume.stands_on) == (storage, owner, format, stands_on)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("32G", 32 * GIB), ("528K", 528 << 10), ("4M", 4 << 20), ("1.5T", 3 << 39), ("1000", 1000), ("", 0), ("big", 0)],
)
def test_sizes_are_read_as_proxmox_writes_them(text: str, wanted: int) -> None:
    assert size_in_bytes(text) == wanted


def test_a_drive_is_read_with_its_volume_named_or_first() -> None:
    for text in ("local:100/a.raw,size=1G,ssd=1", "file=local:100/a.raw,size=1G,ssd=1"):
        drive = drive_of("scsi10", text)
        assert (drive.bus, drive.volume.text, drive.size, drive.is_on("ssd")) == ("scsi", "local:100/a.raw", GIB, True)
    assert drive_of("scsi0", "a:b").is_on("backup", default=True)
    assert not drive_of("scsi0", "a:b,backup=0").is_on("backup", default=True)


CONFIG = {
    "scsi1": "a:vm-1-disk-1,size=2G",
    "scsi10": "a:vm-1-disk-3,size=2G",
    "scsi0": "a:vm-1-disk-0,size=1G",
    "ide2": "a:iso/debian.iso,media=cdrom",
    "ide0": "none,media=cdrom",
    "sata0": "a:vm-1-cloudinit,media=cdrom",
    "virtio0": "a:vm-1-disk-2,size=3G",
    "efidisk0": "a:vm-1-disk-4,efitype=4m,pre-enrolled-keys=1,size=4M",
    "tpmstate0": "a:vm-1-disk-5,size=4M,version=v2.0",
    "unused0": "a:vm-1-disk-6",
    "scsihw": "virtio-scsi-single",
    "name": "web01",
}


def test_disks_are_in_their_order_with_the_boot_disk_first_and_without_media() -> None:
    assert [drive.key for drive in disks_of(CONFIG)] == ["scsi0", "scsi1", "scsi10", "virtio0"]
    ordered = {**CONFIG, "boot": "order=ide2;virtio0;scsi0"}
    assert [drive.key for drive in disks_of(ordered)] == ["virtio0", "scsi0", "scsi1", "scsi10"]
    legacy = {**CONFIG, "boot": "cdn", "bootdisk": "scsi10"}
    assert [drive.key for drive in disks_of(legacy)] == ["scsi10", "scsi0", "scsi1", "virtio0"]


def test_media_state_and_unused_volumes_are_no_disks() -> None:
    assert [drive.key for drive in drives_of(CONFIG) if drive.is_medium] == ["ide0", "ide2", "sata0"]
    assert [drive.key for drive in drives_of(CONFIG) if drive.volume.is_cloud_init] == ["sata0"]
    assert {key: drive.size for key, drive in own_state(CONFIG).items()} == {"efidisk0": 4 << 20, "tpmstate0": 4 << 20}
    assert unused_volumes(CONFIG) == ["a:vm-1-disk-6"]


def test_network_cards_are_read_in_both_ways_of_writing_them() -> None:
    config = {
        "net1": "e1000=BC:24:11:00:00:02,bridge=vmbr1,tag=30,firewall=1",
        "net0": "model=virtio,macaddr=BC:24:11:00:00:01,bridge=vmbr0",
        "net2": "virtio",
        "net10": "virtio=no-mac,bridge=vnet1",
    }
    found = [(nic.id, nic.mac, nic.network, nic.model, nic.kind) for nic in nics_of(config)]
    assert found == [
        ("nic-0", "bc:24:11:00:00:01", "vmbr0", "virtio", "bridge"),
        ("nic-1", "bc:24:11:00:00:02", "vmbr1.30", "e1000", "bridge"),
        ("nic-2", "", "", "virtio", "user"),
        ("nic-3", "", "vnet1", "virtio", "bridge"),
    ]


@pytest.mark.parametrize(("bridge", "vlan"), [("vmbr0", ""), ("vmbr0", "30"), ("vnet1", ""), ("bond0", "4094")])
def test_the_name_of_a_network_tells_bridge_and_vlan(bridge: str, vlan: str) -> None:
    assert bridge_and_vlan(network_name(bridge, vlan)) == (bridge, int(vlan) if vlan else None)
