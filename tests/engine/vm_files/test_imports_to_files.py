# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM of any source becomes an OVA, an OVF with its files, or images with a descriptor, on a path."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances import gzip_reader
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.encryption import Keyring
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import Seals
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
    VerifyLevel,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.read_appliance import (
    open_disk,
    stored_appliance,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.layouts import DISK_FORMATS
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from ..appliances.archives import archive, descriptor
from ..images.disks import MIB, content_of
from ..images.test_vma import disks, shuffled
from .shelf import GUEST, SIZE, refused
from .written import WritingShelf, assert_same, assert_summed_up

__all__ = ["disks"]
PROXMOX = b"""\
boot: order=virtio1
name: web
scsi0: a:vm-1-disk-0,size=5M
virtio1: a:vm-1-disk-1
#qmdump#map:scsi0:drive-scsi0:a:raw:
"""
BEFORE = (GUEST, b"x" * 1000, b"y" * (MIB + 511))
DISKS = (GUEST[:MIB] + b"new" + GUEST[MIB + 3 :], *BEFORE[1:])
SAME = ("cpu", "memory_mb", "firmware", "secure_boot", "guest_os", "nics")


@pytest.fixture
def shelf(writing: WritingShelf) -> WritingShelf:
    return writing


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> WritingShelf:
    """A full export and an increment of a VM with three disks, two of which end within a sector."""
    shelf = WritingShelf(tmp_path_factory.mktemp("exports"))
    shelf.images.mkdir()
    for number, disk in enumerate(BEFORE):
        shelf.raw(f"web/disk{number}.raw", disk)
    shelf.export("web")
    shelf.raw("web/disk0.raw", DISKS[0])
    shelf.export("web", mode="incremental")
    return shelf


def padded(disk: bytes, unit: int) -> bytes:
    return disk.ljust(-(-len(disk) // unit) * unit, b"\0")


@pytest.mark.parametrize("disk_format", DISK_FORMATS)
def test_a_chain_of_exports_is_written_in_every_format(
    shelf: WritingShelf, exports: WritingShelf, disk_format: str
) -> None:
    """QEMU finds the disks in it, and so do we: a disk that ends within a sector is filled up."""
    made = shelf.bring(exports.exports, disk_format=disk_format)
    assert (made["changed"], len(made["export"]["structure"])) == (True, 2)
    files = shelf.members()
    assert_summed_up(files)
    images = [files[name] for name in sorted(files) if "-disk" in name]
    unit = {"raw": 1, "vhd": MIB}.get(disk_format, 512)
    (told,) = shelf.told()
    assert told == made["vm"]
    assert [disk["size"] for disk in told["disks"]] == [len(padded(disk, unit)) for disk in DISKS]
    with closing(open_store(str(shelf.written), {})) as store:
        appliance = stored_appliance(store, told["path"])
        assert appliance.proves
        for number, disk in enumerate(DISKS):
            with open_disk(appliance, appliance.machine.disks[number]) as source:
                assert content_of(source) == padded(disk, unit)
    for number in (0, 2):
        assert_same(images[number], disk_format, shelf.raw("expected.raw", padded(DISKS[number], unit)))
    assert told["details"]["appliance"]["made_of"] == made["export"]["id"]


@pytest.mark.parametrize("disk_format", ["ova", "qcow2"])
def test_an_appliance_is_written_with_the_disk_that_begins_empty(shelf: WritingShelf, disk_format: str) -> None:
    shelf.ova("app.ova")
    made = shelf.bring(shelf.at("app.ova"), disk_format=disk_format)
    (told,), (before,) = shelf.told(), shelf.vms()
    assert told == made["vm"]
    assert [told[name] for name in SAME] == [before[name] for name in SAME]
    assert [(disk["size"], disk["bus"]) for disk in told["disks"]] == [(SIZE, "scsi"), (MIB, "scsi")]
    exported = shelf.again().export("web")
    assert (shelf.content(exported, 0), shelf.content(exported, 1)) == (GUEST, bytes(MIB))


def test_a_compressed_ova_is_an_export_like_any_other(shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disks are read where they lie in it, by their digests."""
    shelf.raw("web.raw")
    made = shelf.export("web.raw", format="ova_gz", verify="content")["export"]
    (disk,), (archive,) = made["disks"], (shelf.folder / "store").rglob("web.ova.gz")
    assert (made["format"], disk["url"]) == ("ova_gz", archive.as_uri())
    image = gzip.decompress(archive.read_bytes())[disk["offset"] : disk["offset"] + disk["bytes_stored"]]
    assert hashlib.sha256(image).hexdigest() == disk["sha256"]
    monkeypatch.delattr(gzip_reader, "GzipReader")
    shelf.bring(shelf.exports, vm="web", disk_format="raw")
    assert (shelf.written / "web" / "web-disk1.raw").read_bytes() == GUEST
    assert shelf.bring(archive.as_uri(), "alone", disk_format="ova_gz")["vm"]["path"] == "alone.ova.gz"
    again = shelf.again().export("alone", verify="stored")
    assert shelf.content(again) == GUEST


@pytest.mark.parametrize("at", [GUEST[MIB * 7 // 4 :][:16], b"\0\0\xfe\xff\1"], ids=["disk", "block"])
def test_damage_of_a_compressed_ova_is_found(shelf: WritingShelf, at: bytes, tmp_path: Path) -> None:
    """Of a disk in it, or of what leads to that: the start of a block."""
    shelf.raw("web.raw")
    shelf.export("web.raw", format="ova_gz")
    (archive,) = (shelf.folder / "store").rglob("web.ova.gz")
    data = bytearray(archive.read_bytes())
    data[data.index(at, len(data) // 2)] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(VmferryError, match=r"is damaged|has no compressed grain"):
        shelf.bring(shelf.exports, vm="web", disk_format="raw")
    assert shelf.files() == []
    for level in get_args(VerifyLevel)[1:3]:
        asked = VerifyRequest(StoreSpec(shelf.exports), level, transfer=TransferOptions(state_dir=str(tmp_path / "s")))
        with pytest.raises(VmferryError) as raised:
            verify_export(asked, False)
        assert raised.value.kind == "checksum_mismatch"
        assert {problem["object"] for problem in raised.value.done["problems"]} <= {"web.ova.gz", ""}


@pytest.mark.parametrize("disk_format", ["ova", "qcow2"])
def test_an_archive_of_proxmox_ve_is_written_disk_by_disk(
    shelf: WritingShelf, disk_format: str, disks: dict[str, bytes]
) -> None:
    """Its pieces lie in it in no order."""
    made = shuffled(disks)
    made.configs = [("qemu-server.conf", PROXMOX)]
    shelf.raw("web.vma", made.whole())
    result = shelf.bring(shelf.at("web.vma"), disk_format=disk_format)
    assert [disk["bus"] for disk in result["vm"]["disks"]] == ["virtio", "scsi"]
    with closing(open_store(str(shelf.written), {})) as store:
        appliance = stored_appliance(store, result["vm"]["path"])
        for one, name in zip(appliance.machine.disks, ("drive-virtio1", "drive-scsi0")):
            with open_disk(appliance, one) as source:
                assert content_of(source) == disks[name]
    assert not shelf.bring(shelf.at("web.vma"), disk_format=disk_format)["changed"]


def test_a_packed_archive_of_proxmox_ve_is_refused_before_anything_is_written(
    shelf: WritingShelf, disks: dict[str, bytes]
) -> None:
    made = shuffled(disks)
    made.configs = [("qemu-server.conf", PROXMOX)]
    shelf.raw("web.vma.gz", gzip.compress(made.whole(), 1))
    error = refused(lambda: shelf.bring(shelf.at("web.vma.gz")), "unsupported", "is packed, its disks in turn")
    assert error.hint.startswith("Unpack it")
    assert shelf.files() == []


def test_an_archive_of_proxmox_ve_that_lacks_a_piece_leaves_nothing(
    shelf: WritingShelf, disks: dict[str, bytes]
) -> None:
    made = shuffled(disks)
    made.configs = [("qemu-server.conf", PROXMOX)]
    made.clusters = made.clusters[:-1]
    shelf.raw("web.vma", made.whole())
    refused(lambda: shelf.bring(shelf.at("web.vma")), "invalid_config", "ends without all of its disk")
    assert shelf.files() == []


def test_an_encrypted_export_is_written_in_the_clear(shelf: WritingShelf) -> None:
    """Its digests are keyed, so that they are none of the bytes that are written."""
    ring = Keyring(b"correct horse")
    seals = Seals(signers=(ring,), keyring=ring)
    shelf.raw("web.raw")
    shelf.export("web.raw", seals=seals)
    shelf.bring(shelf.exports, vm="web", seals=seals, disk_format="raw")
    assert (shelf.written / "web" / "web-disk1.raw").read_bytes() == GUEST
    assert_summed_up(shelf.members())


@pytest.mark.parametrize("disk_format", ["ova", "ovf", "qcow2"])
def test_damage_of_an_export_is_found_and_nothing_is_written(shelf: WritingShelf, disk_format: str) -> None:
    shelf.raw("web.raw")
    shelf.export("web.raw")
    (image,) = (shelf.folder / "store").rglob("*.qcow2")
    data = image.read_bytes()
    at = data.index(GUEST[MIB : MIB + 512])
    image.write_bytes(data[:at] + b"?" + data[at + 1 :])
    refused(lambda: shelf.bring(shelf.exports, vm="web", disk_format=disk_format), "checksum_mismatch", "is damaged")
    assert shelf.files() == []


def test_a_raw_image_has_its_holes(shelf: WritingShelf) -> None:
    shelf.image("web.qcow2", "qcow2")
    shelf.bring(shelf.at("web.qcow2"), disk_format="raw")
    seen = (shelf.written / "web" / "web-disk1.raw").stat()
    assert seen.st_size == SIZE
    assert seen.st_blocks * 512 < SIZE - MIB


def with_hardware(shelf: WritingShelf) -> str:
    """An appliance with a network card and a drive."""
    nic = (
        "<Item><rasd:Address>00:50:56:AA:BB:01</rasd:Address><rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>"
        "<rasd:Connection>VM Network</rasd:Connection><rasd:ElementName>nic</rasd:ElementName>"
        "<rasd:InstanceID>20</rasd:InstanceID><rasd:ResourceSubType>E1000</rasd:ResourceSubType>"
        "<rasd:ResourceType>10</rasd:ResourceType></Item>"
        "<Item><rasd:ElementName>floppy</rasd:ElementName><rasd:InstanceID>21</rasd:InstanceID>"
        "<rasd:ResourceType>14</rasd:ResourceType></Item>"
    )
    (shelf.images / "app.ova").write_bytes(archive({"app.ovf": descriptor([("", "d1", str(MIB))], items=nic)}))
    return shelf.at("app.ova")


def test_the_task_has_the_last_word_on_hardware_and_networks(shelf: WritingShelf) -> None:
    made = shelf.bring(
        with_hardware(shelf),
        cpu=3,
        memory_mb=640,
        firmware="bios",
        disk_bus="nvme",
        network_map={"VM Network": "lab"},
    )
    (told,) = shelf.told()
    assert told == made["vm"]
    assert (told["cpu"], told["memory_mb"], told["firmware"], told["secure_boot"]) == (3, 640, "bios", False)
    assert [disk["bus"] for disk in told["disks"]] == ["nvme"]
    assert [nic["network"] for nic in told["nics"]] == ["lab"]
    assert told["details"]["appliance"]["networks"] == {"lab": "of VMs"}
    assert "may not boot" in "".join(made["warnings"])


@pytest.mark.parametrize(("keep_mac", "mac"), [(True, "00:50:56:aa:bb:01"), (False, "")])
def test_a_mac_address_is_kept_where_that_is_asked(shelf: WritingShelf, keep_mac: bool, mac: str) -> None:
    shelf.bring(with_hardware(shelf), keep_mac=keep_mac)
    assert [nic["mac"] for nic in shelf.told()[0]["nics"]] == [mac]


@pytest.mark.parametrize(("detach", "floppies"), [((), 1), (("floppy",), 0)])
def test_drives_are_left_out_where_that_is_asked(shelf: WritingShelf, detach: tuple[str, ...], floppies: int) -> None:
    shelf.bring(with_hardware(shelf), detach=detach)
    assert len(shelf.told()[0]["details"]["floppies"]) == floppies


def test_an_image_alone_gets_the_networks_of_the_task(shelf: WritingShelf) -> None:
    shelf.raw("one.raw", b"x" * 512)
    shelf.bring(shelf.at("one.raw"), networks=("lab", "wan"), disk_format="ova")
    assert [nic["network"] for nic in shelf.told()[0]["nics"]] == ["lab", "wan"]


@pytest.mark.parametrize("disk_format", ["ova", "ovf", "vmdk_sparse", "vhdx"])
def test_identifiers_are_of_one_import(disk_format: str, shelf: WritingShelf) -> None:
    shelf.raw("web.raw")
    images = set()
    for _time in range(3):
        shelf.bring(shelf.at("web.raw"), disk_format=disk_format)
        (image,) = [path for name, path in shelf.members().items() if "-disk1." in name]
        images.add(image.read_bytes())
        for folder in ("written", "unpacked"):
            shutil.rmtree(shelf.folder / folder, ignore_errors=True)
    assert len(images) == 3
