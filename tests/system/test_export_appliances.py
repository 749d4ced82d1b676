# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running VM becomes an OVA or an OVF in a store: an export like any other, and an appliance to all others."""

from __future__ import annotations

import hashlib
import random
import re
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dissect.archive.vma import VMA
from engine.images.disks import run

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from rigs import guests
from rigs.domain import Disk, Guest, Machine, boot_and_expect, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .conftest import small_disk
from .exports import MIB, SLOW, Bench, compare
from .test_documented_results import assert_documented
from .test_jobs import end
from .test_resume import kill

DRIVES = (
    '<disk type="file" device="cdrom"><target dev="sdc" bus="sata"/><readonly/></disk>'
    '<disk type="file" device="floppy"><target dev="fda" bus="fdc"/></disk>'
)


@pytest.fixture
def back(bench: Bench) -> Iterator[str]:
    """A name for an import; the machine that it may become is removed afterwards."""
    yield "appliance-back"
    for domain in bench.rig.connect().listAllDomains():
        if domain.name() == "appliance-back":
            remove_domain(domain)


@pytest.fixture(scope="module")
def double(rig: LibvirtRig) -> Iterator[str]:
    """The name of a machine that is off and has two disks, a CD and a floppy drive."""
    system, data = rig.directory / "double.qcow2", rig.directory / "double-data.qcow2"
    small_disk(system, "double", "qcow2")
    raw = data.with_suffix(".seed")
    raw.write_bytes(random.Random("double").randbytes(3 * MIB) + bytes(5 * MIB + 512))
    guests.place(raw, data, "qcow2")
    raw.unlink()
    machine = Machine("double", disks=(Disk(system), Disk(data)), memory_mib=32)
    domain = rig.connect().defineXML(domain_xml(machine, rig.directory).replace("</devices>", f"{DRIVES}</devices>"))
    yield "double"
    remove_domain(domain)
    for disk in (system, data):
        disk.unlink(missing_ok=True)


def restored_alike(bench: Bench, back: str, **options: Any) -> None:
    made = bench.import_(back, placement={"disk_format": "raw"}, **options)
    for disk, source in zip(made["vm"]["disks"], ("double", "double-data")):
        compare(Path(disk["source"]), "raw", bench.rig.directory / f"{source}.qcow2", "qcow2")


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]


def told_of(export: dict[str, Any], path: str) -> tuple[int, str]:
    (file,) = (one for one in export["files"] if one["path"] == path)
    assert file["url"] == f"{export['url']}/{path}"
    return file["size"], file["sha256"]


def assert_checked(files: dict[str, bytes], stem: str) -> None:
    listed = dict(re.findall(r"SHA256\((.*)\)= ([0-9a-f]{64})\n", files[f"{stem}.mf"].decode()))
    assert listed.keys() == files.keys() - {f"{stem}.mf"}
    assert listed == {name: hashlib.sha256(files[name]).hexdigest() for name in listed}


def assert_same_disk(bench: Bench, result: dict[str, Any], tmp_path: Path, image: bytes) -> None:
    (tmp_path / "disk.vmdk").write_bytes(image)
    run("qemu-img", "check", "-f", "vmdk", tmp_path / "disk.vmdk")
    compare(tmp_path / "disk.vmdk", "vmdk", bench.rig.directory / "small.qcow2", "qcow2")


def test_a_running_machine_becomes_one_ova_and_comes_back(
    bench: Bench, small: Guest, back: str, tmp_path: Path
) -> None:
    foreseen = bench.export("small", format="ova", check_mode=True)
    assert [one for one in foreseen["findings"] if one["severity"] == "error"] == []
    result = bench.export("small", format="ova")
    assert_documented("vm_export", result, "export", "job", "diff")
    bench.assert_nothing_left("small")
    export = result["export"]
    ova = bench.stored(result)
    assert (export["format"], export["mode"], ova.name) == ("ova", "full", "small.ova")
    keys = bench.keys()
    assert {key.rpartition("/")[2] for key in keys} == {
        "disk-0.digests", "domain.xml", "manifest.json", "small.ova", "vm.json",
    }  # fmt: skip
    files = members(ova)
    assert list(files) == ["small.ovf", "small-disk1.vmdk", "small.mf"]
    assert_checked(files, "small")
    assert_same_disk(bench, result, tmp_path, files["small-disk1.vmdk"])
    assert bench.verify(level="content")["level"] == "content"
    (disk,) = export["disks"]
    assert disk["sha256"] == hashlib.sha256(files["small-disk1.vmdk"]).hexdigest()
    assert ova.read_bytes()[disk["offset"] :].startswith(files["small-disk1.vmdk"])
    assert told_of(export, "small.ova") == (ova.stat().st_size, "")
    whole = hashlib.sha256(ova.read_bytes()).hexdigest()
    assert told_of(bench.verify(level="stored")["export"], "small.ova") == (ova.stat().st_size, whole)
    made = bench.import_(back)
    assert made["export"]["id"] == export["id"]
    boot_and_expect(bench.rig, bench.rig.connect().lookupByName(back), guests.boot_marker("small"))


def test_the_ova_of_an_export_is_an_appliance_for_everybody(bench: Bench, small: Guest, back: str) -> None:
    url = bench.export("small", format="ova")["export"]["disks"][0]["url"]
    made = bench.import_(back, store=replace(bench.store, url=url))
    assert made["appliance"]["has_checksums"]
    assert (made["vm"]["cpu"], made["vm"]["memory_mb"]) == (1, 32)
    boot_and_expect(bench.rig, bench.rig.connect().lookupByName(back), guests.boot_marker("small"))


def test_a_machine_becomes_an_ovf_with_its_files_beside_it(
    bench: Bench, small: Guest, back: str, tmp_path: Path
) -> None:
    result = bench.export("small", format="ovf", verify="content")
    assert_documented("vm_export", result, "export")
    bench.assert_nothing_left("small")
    folder = bench.stored(result).parent
    files = {name: (folder / name).read_bytes() for name in ("small.ovf", "small-disk1.vmdk", "small.mf")}
    assert_checked(files, "small")
    assert_same_disk(bench, result, tmp_path, files["small-disk1.vmdk"])
    for name, data in files.items():
        assert told_of(result["export"], name) == (len(data), hashlib.sha256(data).hexdigest())
    assert not bench.verify(level="stored")["problems"]
    made = bench.import_(back, store=replace(bench.store, url=f"file://{folder}/small.ovf"))
    assert made["appliance"]["has_checksums"]
    boot_and_expect(bench.rig, bench.rig.connect().lookupByName(back), guests.boot_marker("small"))


def test_a_running_machine_becomes_an_archive_of_proxmox_ve_and_comes_back(
    bench: Bench, small: Guest, back: str, tmp_path: Path
) -> None:
    result = bench.export("small", format="vma", verify="content")
    assert_documented("vm_export", result, "export")
    bench.assert_nothing_left("small")
    export, archive = result["export"], bench.stored(result)
    assert (export["format"], archive.name) == ("vma", "small.vma")
    with archive.open("rb") as file:
        found = VMA(file)
        assert list(found.configs()) == ["qemu-server.conf"]
        assert b"\nname: small\n" in b"\n" + found.configs()["qemu-server.conf"]
        (device,) = found.devices()
        (tmp_path / "disk.raw").write_bytes(device.open().read())
    compare(tmp_path / "disk.raw", "raw", bench.rig.directory / "small.qcow2", "qcow2")
    (disk,) = export["disks"]
    stored = archive.read_bytes()[disk["offset"] : disk["offset"] + disk["bytes_stored"]]
    assert disk["sha256"] == hashlib.sha256(stored).hexdigest()
    whole = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert told_of(bench.verify(level="stored")["export"], "small.vma") == (archive.stat().st_size, whole)
    made = bench.import_(back, store=replace(bench.store, url=disk["url"]))
    assert (made["vm"]["cpu"], made["vm"]["memory_mb"]) == (1, 32)
    boot_and_expect(bench.rig, bench.rig.connect().lookupByName(back), guests.boot_marker("small"))


def test_an_ova_goes_into_a_bucket_in_one_pass(s3_bench: Bench, small: Guest) -> None:
    result = s3_bench.export("small", format="ova", verify="content")
    s3_bench.assert_nothing_left("small")
    assert not s3_bench.verify(level="stored")["problems"]
    assert result["export"]["disks"][0]["url"].endswith("/small.ova")


@pytest.mark.parametrize("format_", ["ova", "ova_gz", "ovf", "vma"])
def test_two_disks_come_back_as_they_were_also_from_a_copy(format_: str, bench: Bench, double: str, back: str) -> None:
    further = StoreSpec((bench.folder / "further").as_uri())
    made = bench.export(double, format=format_, copies_to=(further,))
    (copy,) = made["copies"]
    assert (copy["holds"], made["export"]["consistency"]) == (True, "powered_off")
    bench.assert_nothing_left(double, runs=False)
    restored_alike(bench, back, store=further)
    assert not bench.verify(store=further, level="stored")["problems"]
    assert bench.export(double, format=format_, max_age=3600.0)["export"]["id"] == made["export"]["id"]


def test_only_the_disks_that_are_asked_for_are_in_it(bench: Bench, double: str) -> None:
    made = bench.export(double, format="ova", disks=("vdb",))
    files = members(bench.stored(made))
    assert list(files) == ["double.ovf", "double-disk1.vmdk", "double.mf"]
    assert files["double.ovf"].count(b"<ovf:Disk ") == 1


@pytest.mark.parametrize("point", ["window-delivered:3", "objects-complete", "manifest"])
def test_one_that_was_killed_begins_anew_and_leaves_nothing(
    point: str, bench: Bench, double: str, back: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, point, vm=double, format="ova")
    made = bench.export(double, format="ova")
    assert (made["changed"], made["resumed"]["export"], made["resumed"]["bytes_kept"]) == (True, "", 0)
    assert "format ova cannot be gone on with" in made["resumed"]["reason"]
    bench.assert_nothing_left(double, runs=False)
    left = bench.keys()
    assert sum(key.endswith("/double.ova") for key in left) == 1
    restored_alike(bench, back)


def test_one_that_is_cancelled_leaves_nothing(s3_bench: Bench, small: Guest) -> None:
    arguments = s3_bench.module_arguments(vm="small", format="ova", bandwidth_limit=SLOW)
    with s3_bench.running_module("vm_export", arguments) as module:
        module.wait_for_bytes()
        end(s3_bench, module.job, "cancelled")
        assert module.result()["error"]["kind"] == "cancelled"
    assert s3_bench.keys() == []
    s3_bench.assert_nothing_left("small")


@pytest.mark.parametrize("format_", ["ova", "ovf", "vma"])
def test_what_makes_no_sense_is_refused_before_anything_is_made(format_: str, bench: Bench, double: str) -> None:
    bench.refused_export(
        double, "conflict", f"format {format_} cannot stand on another", format=format_, mode="incremental"
    )
    bench.refused_export(double, "invalid_config", "cannot be compressed", format=format_, compression="zstd")
    assert bench.keys() == []


def drives_of(bench: Bench, name: str) -> list[tuple[str, str]]:
    root = ET.fromstring(bench.rig.connect().lookupByName(name).XMLDesc())
    assert root.find("devices/disk[@device='cdrom']/source") is None
    found = [disk for disk in root.findall("devices/disk") if disk.get("device") != "disk"]
    return [(disk.get("device", ""), disk.find("target").attrib["dev"]) for disk in found]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("detached", "by_import", "left"),
    [
        ((), (), [("cdrom", "sdc"), ("floppy", "fda")]),
        (("cdrom",), (), [("floppy", "fda")]),
        ((), ("floppy",), [("cdrom", "sdc")]),
        (("floppy",), ("cdrom",), []),
    ],
)
def test_drives_come_back_empty_unless_they_are_detached(
    detached: tuple[Any, ...], by_import: tuple[Any, ...], left: list[tuple[str, str]], bench: Bench, double: str,
    back: str,
) -> None:  # fmt: skip
    made = bench.export(double, format="ova", detach=detached)
    text = members(bench.stored(made))["double.ovf"]
    assert (b"CD/DVD drive" in text, b"Floppy drive" in text) == ("cdrom" not in detached, "floppy" not in detached)
    bench.import_(back, detach=by_import)
    assert drives_of(bench, back) == left


def test_drives_of_an_appliance_are_made_unless_they_are_detached(bench: Bench, double: str, back: str) -> None:
    url = bench.export(double, format="ova")["export"]["disks"][0]["url"]
    ova = replace(bench.store, url=url)
    bench.import_(back, store=ova, detach=("floppy",), placement={"disk_bus": "sata"})
    assert [kind for kind, _name in drives_of(bench, back)] == ["cdrom"]
    boot_and_expect(bench.rig, bench.rig.connect().lookupByName(back), guests.boot_marker("double"))


@pytest.fixture
def five(rig: LibvirtRig) -> Iterator[str]:
    """The name of a machine with four disks on IDE, which is full, one more, and a CD drive."""
    paths = [rig.directory / f"five-{number}.qcow2" for number in range(5)]
    for path in paths:
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    disks = tuple(Disk(path, bus="ide" if number < 4 else "virtio") for number, path in enumerate(paths))
    machine = Machine("five", disks=disks, memory_mib=32, chipset="pc")
    cd = '<disk type="file" device="cdrom"><target dev="sdc" bus="sata"/><readonly/></disk>'
    domain = rig.connect().defineXML(domain_xml(machine, rig.directory).replace("</devices>", f"{cd}</devices>"))
    yield "five"
    remove_domain(domain)
    for path in paths:
        path.unlink(missing_ok=True)


def test_a_cd_drive_of_an_appliance_finds_a_place_where_disks_fill_ide(bench: Bench, five: str, back: str) -> None:
    ova = replace(bench.store, url=bench.export(five, format="ova")["export"]["disks"][0]["url"])
    bench.import_(back, store=ova)
    assert drives_of(bench, back) == [("cdrom", "sda")]


def test_disks_that_ide_has_no_place_for_are_refused_before_they_are_copied(
    bench: Bench, five: str, double: str, back: str
) -> None:
    ide = {"disk_bus": "ide"}
    ova = replace(bench.store, url=bench.export(five, format="ova")["export"]["disks"][0]["url"])
    found = bench.import_(back, store=ova, check_mode=True, placement=ide)["findings"]
    assert [one["message"] for one in found if one["severity"] == "error"] == [
        "five has 5 disks on IDE, which has 4 places."
    ]
    bench.refused_import(back, "invalid_config", "has 5 disks on IDE", store=ova, placement=ide)
    bench.export(double)
    bench.refused_import(back, "invalid_config", "which has no IDE for its disks", vm=double, placement=ide)
    assert list(bench.images.iterdir()) == []


@pytest.mark.parametrize(("where", "level"), [("descriptor", "stored"), ("disk", "stored"), ("disk", "content")])
def test_damage_anywhere_in_it_is_found_and_its_place_is_told(
    where: str, level: Any, bench: Bench, double: str, back: str
) -> None:
    made = bench.export(double, format="ova")["export"]
    ova, disk = bench.folder / "store" / made["disks"][1]["url"].partition("/store/")[2], made["disks"][1]
    at = 600 if where == "descriptor" else disk["offset"] + disk["bytes_stored"] // 2
    with ova.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))
    with pytest.raises(VmferryError) as raised:
        bench.verify(level=level)
    assert "double.ova" in str(raised.value)
    if level == "stored":
        (problem,) = raised.value.done["problems"]
        assert problem["object_offset"] <= at < problem["object_offset"] + problem["length"]
    else:
        (problem,) = raised.value.done["problems"]
        assert (problem["disk"], problem["object"], problem["length"]) == (disk["id"], "double.ova", LEAF)
        bench.refused_import(back, "checksum_mismatch", f"{disk['id']} is damaged: bytes {problem['offset']} to")
        bench.assert_no_machine(back)
