# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VMs there are among files, and what they are."""

from __future__ import annotations

import os
import shutil

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF

from ..images.disks import MIB
from .shelf import SIZE, Shelf, refused


def test_an_image_is_a_vm_of_its_name_and_a_folder_of_images_is_one_with_disks_as_people_count(shelf: Shelf) -> None:
    shelf.raw("web.img")
    for number in (10, 2, 1):
        shelf.raw(f"db/disk{number}.raw", bytes(number * LEAF))
    shelf.raw("db/readme.txt")
    shelf.raw(".hidden.img")
    db, web = shelf.vms()
    assert (web["name"], web["path"], web["power_state"], web["provider"]) == ("web", "web.img", "powered_off", "image")
    assert [disk["size"] for disk in web["disks"]] == [SIZE]
    assert (db["name"], db["path"]) == ("db", "db/")
    assert [(disk["id"], disk["name"], disk["size"]) for disk in db["disks"]] == [
        ("disk-0", "disk1.raw", LEAF),
        ("disk-1", "disk2.raw", 2 * LEAF),
        ("disk-2", "disk10.raw", 10 * LEAF),
    ]
    assert [disk["boot"] for disk in db["disks"]] == [True, False, False]


def test_digits_that_are_no_numbers_are_letters(shelf: Shelf) -> None:
    for name in ("disk²", "disk١", "disk10", "Disk2"):
        shelf.raw(f"db/{name}.raw", bytes(LEAF))
    found = [disk["name"].partition(".")[0] for disk in shelf.vms("db")[0]["disks"]]
    assert found == ["Disk2", "disk10", "disk²", "disk١"]


def test_what_an_image_does_not_say_is_told_to_be_assumed(shelf: Shelf) -> None:
    shelf.raw("web.img")
    (web,) = shelf.vms("web.img")
    assert web["details"]["image"]["assumed"] == ["cpu", "memory_mb", "firmware", "disks.bus"]
    assert (web["cpu"], web["memory_mb"], web["firmware"]) == (2, 2048, "unknown")
    assert web["disks"][0]["bus"] == "virtio"
    shelf.image("old.vhdx", "vhdx")
    assert shelf.vms("old.vhdx")[0]["disks"][0]["bus"] == "sata"


def test_the_hardware_of_an_appliance_is_what_its_descriptor_says(shelf: Shelf) -> None:
    shelf.ova()
    (web,) = shelf.vms()
    assert (web["name"], web["path"]) == ("web", "app.ova")
    assert (web["cpu"], web["memory_mb"], web["firmware"]) == (2, 2048, "uefi")
    assert [(disk["size"], disk["bus"], disk["format"]) for disk in web["disks"]] == [
        (SIZE, "scsi", "vmdk"),
        (MIB, "scsi", "vmdk"),
    ]
    assert web["details"]["appliance"]["controllers"] == ["VirtualSCSI", "VirtualSCSI"]
    assert web["details"]["image"]["files"] == [str(shelf.images / "app.ova")]


def test_the_images_of_an_ovf_are_no_vms_of_their_own(shelf: Shelf) -> None:
    for name, data in shelf.ova().items():
        shelf.raw(f"packed/{name}", data)
    assert sorted(vm["path"] for vm in shelf.vms()) == ["app.ova", "packed/app.ovf"]
    assert len({vm["id"] for vm in shelf.vms()}) == 2


@pytest.mark.parametrize("name", ["web", "app.ova", "./app.ova", "ID"])
def test_a_vm_is_named_by_its_name_its_path_or_its_id(shelf: Shelf, name: str) -> None:
    shelf.ova()
    whole = shelf.vms()[0]
    if name.startswith("./"):
        refused(lambda: shelf.vms(name), "not_found", "no VM ./app.ova")
    else:
        assert shelf.vms(whole["id"] if name == "ID" else name) == [whole]


def test_a_pattern_of_images_is_a_vm(shelf: Shelf) -> None:
    for name in ("web-disk1.raw", "web-disk2.raw", "db.raw"):
        shelf.raw(name)
    (web,) = shelf.vms("web-*.raw")
    assert (web["name"], [disk["name"] for disk in web["disks"]]) == ("web", ["web-disk1.raw", "web-disk2.raw"])
    assert shelf.vms("d?.raw")[0]["name"] == "db"
    refused(lambda: shelf.vms("x*.raw"), "not_found", "no VM x*.raw")
    shelf.ova()
    refused(lambda: shelf.vms("*"), "conflict", "appliances")


@pytest.mark.parametrize("name", ["../images/web", "/etc/passwd", "web/../web", "nothing", "."])
def test_a_name_that_leaves_the_folder_is_no_vm(shelf: Shelf, name: str) -> None:
    shelf.raw("web.img")
    refused(lambda: shelf.vms(name), "not_found", "There is no VM")


def test_two_vms_of_one_name_are_told_apart_by_their_paths(shelf: Shelf) -> None:
    shelf.raw("web.img")
    shelf.raw("web/a.img")
    assert "web.img, web/" in refused(lambda: shelf.vms("web.qcow2"), "not_found", "no VM").hint
    assert [vm["path"] for vm in shelf.vms("web/")] == ["web/"]
    shelf.ova("one.ova")
    shutil.copy(shelf.images / "one.ova", shelf.images / "two.ova")
    (shelf.images / "web.img").unlink()
    shutil.rmtree(shelf.images / "web")
    assert "one.ova, two.ova" in refused(lambda: shelf.vms("web"), "conflict", "2 VMs called web").hint


def test_a_file_that_cannot_be_read_as_what_it_is_called_is_told_among_the_others(shelf: Shelf) -> None:
    shelf.raw("bad.ova", b"no archive" * 100)
    shelf.raw("good.img")
    bad, good = shelf.vms()
    assert "is no tar archive" in bad["details"]["image"]["problem"]
    assert (bad["power_state"], bad["disks"]) == ("unknown", ())
    assert "problem" not in good["details"]["image"]
    refused(lambda: shelf.vms("bad.ova"), "invalid_config", "is no tar archive")


def test_the_parts_of_a_vmdk_in_several_files_are_no_disks(shelf: Shelf) -> None:
    shelf.image("flat/web.vmdk", "vmdk", "-o", "subformat=monolithicFlat")
    (flat,) = shelf.vms()
    assert "extents" in flat["details"]["image"]["problem"]


def test_a_folder_that_is_not_there_is_no_empty_one(shelf: Shelf) -> None:
    shelf.images.rmdir()
    assert "image.url" in refused(lambda: shelf.vms(), "not_found", "does not exist").hint
    shelf.images.touch()
    assert "name one of them with vm" in refused(lambda: shelf.vms("web"), "not_found", "not a folder").hint


def test_files_have_no_tags_and_no_folders(shelf: Shelf) -> None:
    shelf.raw("web.raw")
    refused(lambda: shelf.vms(tag="prod"), "unsupported", "no tags")
    refused(lambda: shelf.vms(folder="x"), "unsupported", "no folders")
    assert shelf.vms(name="db*") == []
    assert len(shelf.vms(name="w*", power_state="powered_off")) == 1


def test_a_thin_image_takes_what_is_in_it(shelf: Shelf) -> None:
    path = shelf.raw("thin.raw", b"one leaf")
    os.truncate(path, 1 << 40)
    (disk,) = shelf.vms("thin.raw")[0]["disks"]
    assert (disk["size"], disk["allocated"]) == (1 << 40, LEAF)
    assert shelf.export("thin.raw", check_mode=True)["plan"]["bytes_to_read"] == LEAF
