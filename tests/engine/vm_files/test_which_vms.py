# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VMs there are among files, and what they are."""

from __future__ import annotations

import errno
import gzip
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances import gzip_reader
from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files import place
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem import folders
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.folders import Folders
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.mounts import Mount

from ..images.disks import MIB
from .shelf import GUEST, SIZE, Shelf, refused


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
    assert [disk["details"]["controller_model"] for disk in web["disks"]] == ["VirtualSCSI"] * 2
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


@pytest.mark.parametrize("name", ["disk[1].raw", "a?b.raw", "db[1]/"])
def test_a_name_with_signs_of_a_pattern_is_found_as_it_is(shelf: Shelf, name: str) -> None:
    for path in ("disk[1].raw", "disk1.raw", "a?b.raw", "aXb.raw", "db[1]/x.raw", "db1/x.raw"):
        shelf.raw(path)
    (vm,) = shelf.vms(name)
    assert vm["path"] == name
    assert shelf.vms(vm["id"]) == shelf.vms(vm["name"]) == [vm]
    assert shelf.export(name)["changed"]


def test_brackets_in_a_pattern_are_brackets(shelf: Shelf) -> None:
    for path in ("web[1]-a.raw", "web[1]-b.raw", "web1-a.raw"):
        shelf.raw(path)
    assert [disk["name"] for disk in shelf.vms("web[1]-?.raw")[0]["disks"]] == ["web[1]-a.raw", "web[1]-b.raw"]
    refused(lambda: shelf.vms("web[12]-a.raw"), "not_found", "no VM")


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


def test_what_others_compressed_is_told_and_not_read_through(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.ova()
    shelf.raw("packed.ova.gz", gzip.compress((shelf.images / "app.ova").read_bytes(), 1))
    shelf.raw("good.img")
    (shelf.images / "app.ova").unlink()
    monkeypatch.delattr(gzip_reader, "GzipReader")
    good, packed = sorted(shelf.vms(), key=lambda vm: str(vm["path"]))
    assert "problem" not in good["details"]["image"]
    assert "all of it would have to be read" in packed["details"]["image"]["problem"]
    error = refused(lambda: shelf.export("packed.ova.gz"), "unsupported", "is compressed")
    assert "gunzip, or give vm_import its URL" in error.hint


def test_a_file_that_may_not_be_read_is_told_among_the_others(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("good.raw", "secret.qcow2", "secret.ova"):
        shelf.raw(name)
    opened = Folders._opened

    def denied(folders: Folders, folder: int, name: str) -> int:
        if name.startswith("secret"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(folders, folder, name)

    monkeypatch.setattr(Folders, "_opened", denied)
    problems = {vm["path"]: vm["details"]["image"].get("problem", "") for vm in shelf.vms()}
    assert problems.pop("good.raw") == ""
    assert sorted(problems) == ["secret.ova", "secret.qcow2"]
    assert all("permission was denied" in problem for problem in problems.values())
    assert shelf.vms("good")[0]["path"] == "good.raw"
    refused(lambda: shelf.vms("secret.ova"), "permission_denied", "secret.ova")


@pytest.mark.parametrize("denies", ["list", "search"])
def test_a_folder_that_may_not_be_read_is_told_among_the_others(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, denies: str
) -> None:
    for name in ("good.raw", "db/a.raw", "db/deep/a.raw", "lost+found/a.raw", "web/a.raw"):
        shelf.raw(name)
    closed = {(shelf.images / name).stat().st_ino for name in ("db/deep", "lost+found")}

    def denied(folder: int, what: Callable[[], Any]) -> Any:
        if os.fstat(folder).st_ino in closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return what()

    names, status = folders._sorted_names, Folders._status
    if denies == "list":
        monkeypatch.setattr(folders, "_sorted_names", lambda folder: denied(folder, lambda: names(folder)))
    else:
        looked = lambda self, folder, name: denied(folder, lambda: status(self, folder, name))  # noqa: E731
        monkeypatch.setattr(Folders, "_status", looked)
    problems = {vm["path"]: vm["details"]["image"].get("problem", "") for vm in shelf.vms()}
    assert sorted(problems) == ["db/", "good.raw", "lost+found/", "web/"]
    assert [path for path, problem in problems.items() if problem] == ["lost+found/"]
    assert "lost+found/ failed: permission was denied" in problems["lost+found/"]
    refused(lambda: shelf.vms("lost+found"), "permission_denied", "lost+found")


def test_a_folder_of_more_images_than_a_vm_has_disks_is_told_among_the_others(shelf: Shelf) -> None:
    shelf.raw("good.raw")
    for number in range(257):
        shelf.raw(f"lib/{number}.img", b"")
    good, many = shelf.vms()
    assert (good["path"], many["path"]) == ("good.raw", "lib/")
    assert "257 images" in many["details"]["image"]["problem"]
    for name in ("lib", many["id"]):
        refused(lambda name=name: shelf.vms(name), "unsupported", "257 images")
    assert shelf.vms("good") == [good]


@pytest.mark.parametrize("told", ["machine-id", "hostname"])
def test_the_same_path_on_another_host_is_another_vm(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    shelf.raw("web.raw")
    shelf.raw("db/a.raw")
    ids = []
    for host in ("a", "b", "a"):
        number = shelf.folder / f"machine-id-{host}"
        if told == "machine-id":
            number.write_text(f"{host * 32}\n", encoding="ascii")
        monkeypatch.setattr(place, "MACHINE_ID", number)
        monkeypatch.setattr(platform, "node", lambda host=host: f"kvm-{host}" if told == "hostname" else "localhost")
        ids.append([vm["id"] for vm in shelf.vms()])
    assert ids[0] == ids[2]
    assert not set(ids[0]) & set(ids[1])


def test_what_another_host_has_in_the_same_path_is_exported_in_full(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.raw("web.raw")
    shelf.export("web.raw")
    other = shelf.folder / "machine-id"
    other.write_text("b" * 32, encoding="ascii")
    monkeypatch.setattr(place, "MACHINE_ID", other)
    shelf.raw("web.raw", GUEST[::-1])
    made = shelf.export("web.raw", max_age=3600.0)
    assert (made["changed"], made["export"]["mode"]) == (True, "full")


def test_files_of_a_server_are_the_same_vms_on_each_host_that_mounts_it(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As each host sees it: another machine-id, and the export mounted at another place, or from further up."""
    shelf.raw("web.raw")
    shelf.raw("db/a.raw")

    def ids(host: str, fstype: str, source: str, point: Path) -> list[str]:
        number = shelf.folder / f"machine-id-{host}"
        number.write_text(host * 32, encoding="ascii")
        monkeypatch.setattr(place, "MACHINE_ID", number)
        monkeypatch.setattr(place, "mount_of", lambda file: Mount(str(point), fstype, source, "/"))
        return [vm["id"] for vm in shelf.vms()]

    here = ids("a", "nfs4", "nas:/srv/images", shelf.images)
    assert len(set(here)) == 2
    assert ids("b", "nfs4", "nas:/srv/images", shelf.images) == here
    assert ids("b", "nfs", "nas:/srv", shelf.folder) == here
    assert not set(here) & set(ids("b", "nfs4", "other:/srv/images", shelf.images))
    for fstype, source in (("nfs4", "localhost:/srv"), ("virtiofs", "share"), ("ext4", "/dev/vdb")):
        assert not set(ids("a", fstype, source, shelf.images)) & set(ids("b", fstype, source, shelf.images))


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
    refused(lambda: shelf.vms(tag="prod"), "unsupported", "by a tag")
    refused(lambda: shelf.vms(folder="x"), "unsupported", "by a folder")
    assert shelf.vms(name="db*") == []
    assert len(shelf.vms(name="w*", power_state="powered_off")) == 1


def test_a_thin_image_takes_what_is_in_it(shelf: Shelf) -> None:
    path = shelf.raw("thin.raw", b"one leaf")
    os.truncate(path, 1 << 40)
    (disk,) = shelf.vms("thin.raw")[0]["disks"]
    assert (disk["size"], disk["allocated"]) == (1 << 40, LEAF)
    assert shelf.export("thin.raw", check_mode=True)["plan"]["bytes_to_read"] == LEAF
