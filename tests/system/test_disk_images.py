# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk image that other tools made becomes a VM that boots; and what it is refused for leaves nothing."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from engine.images import hostile_images as hostile
from engine.images.disks import run

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import Seals
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.signing import Lenient
from rigs import guests
from rigs.domain import boot_and_expect, remove_domain
from rigs.libvirt import LibvirtRig

from .exports import MIB, Bench, compare
from .test_documented_results import assert_documented

NAME, LABEL, SIZE = "of-an-image", "out of an image", 4 * MIB
ALONE: dict[str, Any] = {"networks": ()}


@pytest.fixture(autouse=True)
def unmade(rig: LibvirtRig) -> Iterator[None]:
    """The machine that an image may become is removed afterwards."""
    yield
    for domain in rig.connect().listAllDomains():
        if domain.name() == NAME:
            remove_domain(domain)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A disk that boots, with data up to its last sector."""
    disk = guests.mbr_disk(tmp_path / "guest", LABEL, SIZE)
    with disk.open("r+b") as file:
        file.seek(SIZE - 512)
        file.write(b"the end " * 64)
    return disk


def placed(bench: Bench, raw: Path, name: str, format: str, *options: str) -> Bench:
    """With the disk as an image that QEMU wrote, under that name."""
    folder = bench.folder / "elsewhere"
    folder.mkdir(exist_ok=True)
    chosen = ["-o", ",".join(options)] if options else []
    run("qemu-img", "convert", "-f", "raw", "-O", format, *chosen, raw, folder / name)
    return at(bench, folder / name)


def at(bench: Bench, path: Path) -> Bench:
    return replace(bench, store=replace(bench.store, url=f"file://{path}"))


def disk_of(rig: LibvirtRig) -> tuple[Path, str, str]:
    """Of the machine that was made: its file, format and bus."""
    root = ET.fromstring(rig.connect().lookupByName(NAME).XMLDesc())
    (disk,) = root.findall("devices/disk")
    found = {child.tag: child.attrib for child in disk}
    return Path(found["source"]["file"]), found["driver"]["type"], found["target"]["bus"]


FORMATS = [
    ("web.vhdx", "vhdx", "vhdx", "sata", []),
    ("split.vmdk", "vmdk", "vmdk", "sata", ["subformat=twoGbMaxExtentSparse"]),
    ("flat.vmdk", "vmdk", "vmdk", "sata", ["subformat=monolithicFlat"]),
    ("web.vdi", "vdi", "vdi", "sata", []),
    ("web.qed", "qed", "qed", "virtio", []),
    ("web.qcow2", "qcow2", "qcow2", "virtio", ["cluster_size=2M"]),
    ("cloud.img", "qcow2", "qcow2", "virtio", []),
    ("web.raw", "raw", "raw", "virtio", []),
]
BOOTED = ("web.vhdx", "web.qed")  # one of each bus


@pytest.mark.parametrize(("name", "driver", "format_", "bus", "options"), FORMATS, ids=[one[0] for one in FORMATS])
def test_an_image_becomes_the_disk_of_a_vm(
    bench: Bench, rig: LibvirtRig, raw: Path, name: str, driver: str, format_: str, bus: str, options: Sequence[str]
) -> None:
    made = placed(bench, raw, name, driver, *options).import_(NAME, **ALONE)
    assert (made["changed"], made["warnings"], made["image"]["format"]) == (True, [], format_)
    assert made["image"]["size"] == made["vm"]["disks"][0]["size"] == SIZE
    path, made_format, made_bus = disk_of(rig)
    assert (made_format, made_bus) == ("qcow2", bus)
    compare(path, "qcow2", raw, "raw")
    if name in BOOTED:
        boot_and_expect(rig, rig.connect().lookupByName(NAME), guests.boot_marker(LABEL))
    bench.assert_nothing_left()


def test_an_archive_for_compute_engine_becomes_one_too(bench: Bench, rig: LibvirtRig, raw: Path) -> None:
    folder = bench.folder / "elsewhere"
    folder.mkdir()
    run("cp", raw, folder / "disk.raw")
    run("tar", "--format=oldgnu", "-cSzf", folder / "web.tar.gz", "-C", folder, "disk.raw")
    (folder / "cut.tgz").write_bytes((folder / "web.tar.gz").read_bytes()[:-1])
    at(bench, folder / "cut.tgz").refused_import(NAME, "invalid_config", "ends early", **ALONE)
    bench.assert_no_machine(NAME)
    made = at(bench, folder / "web.tar.gz").import_(NAME, **ALONE)
    assert (made["warnings"], made["image"]["format"], made["vm"]["disks"][0]["bus"]) == ([], "raw_tar_gz", "virtio")
    compare(disk_of(rig)[0], "qcow2", raw, "raw")


def test_it_is_looked_at_first_made_once_and_told_as_documented(bench: Bench, rig: LibvirtRig, raw: Path) -> None:
    here = placed(bench, raw, "web.vhdx", "vhdx")
    image = Path(here.store.url.removeprefix("file://"))
    assert_documented("vm_import", here.import_(NAME, check_mode=True), "findings", "plan", "diff")
    foreseen = here.import_(NAME, check_mode=True, **ALONE)
    assert (foreseen["changed"], foreseen["plan"]["bytes_to_read"]) == (True, image.stat().st_size)
    made = here.import_(NAME, **ALONE)
    assert_documented("vm_import", made, "vm", "image", "job", "diff")
    assert (made["image"]["files"], made["vm"]["name"]) == (["web.vhdx"], NAME)
    again = here.import_(NAME, **ALONE)
    assert (again["changed"], again["image"]["id"]) == (False, made["image"]["id"])
    started = here.import_(NAME, placement={"power_on": True}, check_mode=True, **ALONE)
    assert started["diff"]["after"] == {"power_state": "powered_on"}
    with image.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(bytes(MIB))
    here.refused_import(NAME, "conflict", "exists already", **ALONE)


def test_its_hardware_is_what_the_task_says(bench: Bench, rig: LibvirtRig, raw: Path) -> None:
    here = placed(bench, raw, "web.vmdk", "vmdk")
    usual = here.import_(NAME, check_mode=True)
    assert "There is no network default for nic-0" in " ".join(usual["warnings"])
    mapped = here.import_(NAME, check_mode=True, placement={"network_map": {"default": "lab"}}, networks=("default",))
    assert "There is no network lab for nic-0" in " ".join(mapped["warnings"])
    placement = {"cpu": 3, "memory_mb": 96, "disk_bus": "ide", "disk_format": "raw", "firmware": "bios"}
    made = here.import_(NAME, placement=placement, **ALONE)["vm"]
    assert (made["cpu"], made["memory_mb"], made["firmware"], made["nics"]) == (3, 96, "bios", ())
    assert disk_of(rig)[1:] == ("raw", "ide")
    boot_and_expect(rig, rig.connect().lookupByName(NAME), guests.boot_marker(LABEL))


def test_its_hardware_is_usual_where_the_task_says_nothing(bench: Bench, raw: Path) -> None:
    made = placed(bench, raw, "web.vhd", "vpc").import_(NAME, **ALONE)["vm"]
    assert (made["cpu"], made["memory_mb"], made["firmware"]) == (2, 2048, "bios")


def test_an_image_for_uefi_gets_that(bench: Bench, rig: LibvirtRig) -> None:
    folder = bench.folder / "elsewhere"
    folder.mkdir()
    run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", guests.uefi_disk(), folder / "uefi.vhdx")
    made = at(bench, folder / "uefi.vhdx").import_(NAME, **ALONE)
    assert (made["vm"]["firmware"], made["warnings"]) == ("uefi", [])
    other = at(bench, folder / "uefi.vhdx").import_("other", check_mode=True, placement={"firmware": "bios"}, **ALONE)
    assert any("installed for uefi" in one["message"] for one in other["findings"])


def test_an_image_without_a_boot_sector_is_warned_of(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(bytes(MIB))
    made = placed(bench, tmp_path / "empty", "data.vhdx", "vhdx").import_(NAME, **ALONE)
    assert "no boot sector" in " ".join(made["warnings"])


def test_snapshots_inside_are_left_behind(bench: Bench, rig: LibvirtRig, raw: Path) -> None:
    here = placed(bench, raw, "web.qcow2", "qcow2")
    image = here.store.url.removeprefix("file://")
    run("qemu-img", "snapshot", "-c", "then", image)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 64k", image)
    made = here.import_(NAME, **ALONE)
    assert "has snapshots inside, which are left behind" in " ".join(made["warnings"])
    compare(disk_of(rig)[0], "qcow2", image, "qcow2")


def test_an_image_in_a_bucket_is_read_by_ranges(s3_bench: Bench, rig: LibvirtRig, raw: Path, tmp_path: Path) -> None:
    from .conftest import BUCKET

    prefix = s3_bench.store.url.removeprefix(f"s3://{BUCKET}/")
    settings = s3_bench.store.settings
    for name, format_, options in (("web.vhdx", "vhdx", ""), ("web.vdi", "vdi", "")):
        run("qemu-img", "convert", "-f", "raw", "-O", format_, *options, raw, tmp_path / name)
        with (tmp_path / name).open("rb") as file:
            _client(settings).put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=file)
    there = replace(s3_bench, store=replace(s3_bench.store, url=f"{s3_bench.store.url}/web.vhdx"))
    assert there.import_(NAME, **ALONE)["changed"]
    compare(disk_of(rig)[0], "qcow2", raw, "raw")
    vdi = replace(s3_bench, store=replace(s3_bench.store, url=f"{s3_bench.store.url}/web.vdi"))
    refused = vdi.refused_import("other", "unsupported", "QEMU reads files of this host alone", **ALONE)
    assert "storage_download" in refused.hint


def _client(settings: Any) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=settings["endpoint_url"],
        aws_access_key_id=settings["access_key"],
        aws_secret_access_key=settings["secret_key"],
        region_name="us-east-1",
    )


@pytest.mark.parametrize("name", ["web.vhdx", "web.vdi"])  # by our reader, and by QEMU
def test_it_is_read_no_faster_than_said(bench: Bench, rig: LibvirtRig, raw: Path, name: str) -> None:
    with raw.open("r+b") as file:
        file.seek(MIB)
        file.write(os.urandom(2 * MIB))
    here = placed(bench, raw, name, Path(name).suffix[1:])
    limit = {"bandwidth_limit": "1MiB/s", "bandwidth_burst": MIB // 4}
    made = here.import_(NAME, transfer=limit, **ALONE)
    record = bench.jobs(job=made["job"]["id"])[0]
    assert record["duration"] > 2.0


@pytest.mark.parametrize("name", ["web.vhdx", "web.vdi"])
def test_one_that_changes_while_it_is_read_leaves_no_vm(
    bench: Bench, raw: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = placed(bench, raw, name, Path(name).suffix[1:])
    image = Path(here.store.url.removeprefix("file://"))
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs import fill_disks

    copy = vars(fill_disks)["copy_blocks"]

    def written_to(*arguments: Any, **options: Any) -> Any:
        done = copy(*arguments, **options)
        os.utime(image, ns=(1, 1))
        return done

    monkeypatch.setattr(fill_disks, "copy_blocks", written_to)
    here.refused_import(NAME, "conflict", "changed while it was read", **ALONE)
    here.assert_no_machine(NAME)


def test_what_lies_is_refused_by_name_and_leaves_nothing(bench: Bench, raw: Path, tmp_path: Path) -> None:
    folder = bench.folder / "elsewhere"
    here = placed(bench, raw, "web.qcow2", "qcow2")
    secret, _word = hostile.secret(folder)
    lies = {
        "backing.qcow2": ("backing_file", hostile.qcow2_backed_by(str(secret))(hostile.image("qcow2"))),
        "other.vhdx": ("other_format", hostile.image("qcow2")),
        "disguised.raw": ("disguised", hostile.image("qcow2")),
        "both.img": ("polyglot", hostile.image("qcow2") + hostile.image("vpc", "subformat=fixed,force_size=on")[-512:]),
        "flat.vmdk": ("outside", hostile.descriptor(f'RW 8 FLAT "{secret.name}" 0')),
    }
    for name, (word, data) in lies.items():
        (folder / name).write_bytes(data)
        at(bench, folder / name).refused_import(NAME, "invalid_config", f"({word})", **ALONE)
    (folder / "none.raw").touch()
    at(bench, folder / "none.raw").refused_import(NAME, "invalid_config", "no bytes", **ALONE)
    at(bench, folder / "nothing.raw").refused_import(NAME, "not_found", "nothing.raw does not exist", **ALONE)
    here.assert_no_machine(NAME)
    bench.assert_nothing_left()


def test_options_that_are_about_something_else_are_refused(bench: Bench, raw: Path, off: str) -> None:
    here = placed(bench, raw, "web.vhdx", "vhdx")
    here.refused_import(NAME, "invalid_config", "choose among exports", export="20261121T063000Z-1a2b3c4d")
    here.refused_import(NAME, "invalid_config", "choose among exports", vm="web")
    here.refused_import(NAME, "invalid_config", "no signature", seals=Seals(trusts=(Lenient(cast("Any", None)),)))
    bench.export(off, verify="none")
    bench.refused_import(NAME, "invalid_config", "an export says what network cards it has", **ALONE)
    ova = replace(bench, store=replace(bench.store, url=f"file://{bench.folder}/a.ova"))
    ova.refused_import(NAME, "invalid_config", "an appliance, which says", **ALONE)


def test_an_export_comes_back_with_other_hardware_where_that_is_said(bench: Bench, rig: LibvirtRig, off: str) -> None:
    bench.export(off, verify="none")
    made = bench.import_(NAME, placement={"cpu": 3, "memory_mb": 48})["vm"]
    assert (made["cpu"], made["memory_mb"]) == (3, 48)
    boot_and_expect(rig, rig.connect().lookupByName(NAME), guests.boot_marker(off))
