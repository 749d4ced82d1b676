# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task asks for is what happens: options whose effect can be seen from outside."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_exports import list_exports
from rigs import guests
from rigs.domain import Disk, Guest, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .exports import MIB, Bench, compare, refused


@pytest.fixture
def restored(rig: LibvirtRig) -> Iterator[str]:
    """A name for an import; the machine that it may become is removed afterwards."""
    name = f"restored-{secrets.token_hex(3)}"
    yield name
    for domain in rig.connect().listAllDomains():
        if domain.name() == name:
            remove_domain(domain)


def disk_of(bench: Bench, vm: str) -> Path:
    return bench.rig.directory / f"{vm}.qcow2"


def restored_disk(bench: Bench, name: str, suffix: str = "qcow2") -> Path:
    return bench.images / f"{name}-disk-0.{suffix}"


@pytest.fixture(scope="module")
def tiny(rig: LibvirtRig) -> Iterator[str]:
    """Off, by UEFI, and with a disk of 1 MiB."""
    disk = guests.place(guests.mbr_disk(rig.directory / "tiny.seed", "tiny"), rig.directory / "tiny.qcow2")
    machine = Machine("tiny", (Disk(disk),), boot="uefi", memory_mib=32)
    domain = rig.connect().defineXML(domain_xml(machine, rig.directory))
    yield "tiny"
    remove_domain(domain)


def test_the_export_that_is_named_is_imported_and_not_a_newer_one(bench: Bench, off: str, restored: str) -> None:
    before = shutil.copy(disk_of(bench, off), bench.folder / "before.qcow2")
    older = bench.export(off, name="older", verify="none")["export"]
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 2M 1M", str(disk_of(bench, off))]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    time.sleep(1.1)  # exports of one second have no order
    newer = bench.export(off, verify="none")["export"]
    for place, (asked, wanted, disk) in enumerate(
        [(older["id"], older, before), ("older", older, before), ("", newer, disk_of(bench, off))]
    ):
        images = bench.folder / str(place)
        images.mkdir()
        made = bench.import_(restored, export=asked, placement={"storage": str(images)})
        assert made["export"]["id"] == wanted["id"]
        compare(images / f"{restored}-disk-0.qcow2", "qcow2", disk, "qcow2")
        remove_domain(bench.rig.connect().lookupByName(restored))


def test_the_vm_that_is_named_is_imported_from_a_store_of_several(
    bench: Bench, off: str, tiny: str, restored: str
) -> None:
    bench.export(tiny, verify="none")
    bench.export(off, verify="none")
    bench.refused_import(restored, "conflict", "more than one VM")
    bench.import_(restored, vm=tiny)
    compare(restored_disk(bench, restored), "qcow2", disk_of(bench, tiny), "qcow2")
    bench.refused_import(restored, "conflict", restored, vm=off)


def test_native_is_the_format_that_each_disk_has(bench: Bench, restored: str) -> None:
    """Running, and off; with a disk of each."""
    raw = guests.mbr_disk(bench.rig.directory / "mixed.raw", "mixed")
    disks = (raw, guests.place(guests.mbr_disk(raw.with_suffix(".seed"), "other"), raw.with_suffix(".qcow2")))
    machine = Machine("mixed", (Disk(disks[0], "raw"), Disk(disks[1])), memory_mib=32)
    domain = bench.rig.connect().defineXML(domain_xml(machine, bench.rig.directory))
    try:
        for runs in (False, True):
            if runs:
                domain.create()
            made = bench.export("mixed", format="native", verify="content")["export"]
            assert [one["url"].rpartition("/")[2] for one in made["disks"]] == ["disk-0.raw", "disk-1.qcow2"]
            assert (made["format"], made["consistency"] == "powered_off") == ("native", not runs)
            bench.assert_nothing_left("mixed", runs=runs)
        bench.refused_export("mixed", "conflict", "cannot stand on another", format="native", mode="incremental")
        bench.refused_export("mixed", "invalid_config", "cannot be compressed", format="native", compression="zstd")
        domain.destroy()
        back = bench.import_(restored, export=made["id"], placement={"disk_format": "raw"})
        for found, disk, format_ in zip(back["vm"]["disks"], disks, ("raw", "qcow2")):
            compare(Path(found["source"]), "raw", disk, format_)
    finally:
        remove_domain(domain)


def test_a_raw_image_has_the_bytes_of_the_disk_and_can_be_imported(bench: Bench, off: str, restored: str) -> None:
    result = bench.export(off, format="raw")
    image = bench.stored(result)
    assert (image.name, result["export"]["format"]) == ("disk-0.raw", "raw")
    compare(image, "raw", disk_of(bench, off), "qcow2")
    assert bench.import_(restored)["changed"]
    compare(restored_disk(bench, restored), "qcow2", disk_of(bench, off), "qcow2")


@pytest.mark.parametrize("firmware", ["", "bios", "uefi"])
def test_the_firmware_is_kept_unless_another_is_asked_for(
    bench: Bench, off: str, tiny: str, restored: str, firmware: str
) -> None:
    for vm, own in ((off, "bios"), (tiny, "uefi")):
        bench.export(vm, verify="none")
        made = bench.import_(restored, vm=vm, placement={"firmware": firmware})
        domain = bench.rig.connect().lookupByName(restored)
        system = ET.fromstring(domain.XMLDesc()).find("os")
        assert system is not None
        chosen = system.get("firmware") == "efi" or system.find("loader[@type='pflash']") is not None
        assert chosen == ((firmware or own) == "uefi"), ET.tostring(system, "unicode")
        assert made["vm"]["firmware"] == (firmware or own)
        remove_domain(domain)
        restored_disk(bench, restored).unlink()


@pytest.mark.parametrize("asked", [1, 5])
def test_as_many_readers_work_as_are_asked_for(bench: Bench, off: str, asked: int) -> None:
    most, over = 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.01):
            readers = [one for one in threading.enumerate() if re.fullmatch(r"vmferry-\d+", one.name)]
            most = max(most, len(readers))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        bench.export(off, verify="none", transfer={"parallel": asked, "bandwidth_limit": "20MiB/s"})
    finally:
        over.set()
        looking.join()
    assert most == asked


def test_a_burst_goes_at_once_whatever_the_limit(bench: Bench, off: str) -> None:
    """20 MiB of data take 20 seconds at the limit."""
    started = time.monotonic()
    transfer = {"bandwidth_limit": "1MiB/s", "bandwidth_burst": 64 * MIB}
    result = bench.export(off, verify="none", transfer=transfer)
    assert result["export"]["disks"][0]["bytes_stored"] > 19 * MIB
    assert time.monotonic() - started < 10


def test_exports_are_found_by_their_purpose_and_by_their_vm(bench: Bench, off: str, tiny: str) -> None:
    drill = bench.export(tiny, purpose="drill", verify="none")["export"]["id"]
    backup = bench.export(tiny, purpose="backup", verify="none")["export"]["id"]
    other = bench.export(off, purpose="backup", verify="none")["export"]

    def found(vm: str, purpose: str) -> set[str]:
        listed = list_exports(bench.store, vm, "", [], purpose, statistics=False)
        return {export["id"] for export in listed["exports"]}

    assert found(tiny, "") == {drill, backup}
    assert found(tiny, "drill") == {drill}
    assert found(other["vm"]["id"], "") == found(off, "backup") == {other["id"]}
    assert found("", "backup") == {backup, other["id"]}
    assert found(off, "drill") == found("nobody", "") == set()


def test_vms_are_found_by_a_pattern_of_their_names(bench: Bench, small: Guest, off: str, tiny: str) -> None:
    def found(pattern: str) -> set[str]:
        return {vm["name"] for vm in describe_vms(bench.provider, None, {"name": pattern})["vms"]}

    assert {"small", "tiny", off} <= found("*")
    assert found("[st]*") & {"small", "tiny", off} == {"small", "tiny"}
    assert found("Small") == set()


def test_vms_are_found_by_the_tags_of_their_metadata_running_or_off(
    bench: Bench, small: Guest, off: str, tiny: str
) -> None:
    def found(tag: str) -> set[str]:
        return {vm["name"] for vm in describe_vms(bench.provider, None, {"tag": tag})["vms"]}

    def tag(vm: str, words: str, *scopes: str) -> None:
        """As docs/libvirt.md has it."""
        metadata = ["metadata", vm, "urn:vmferry:tags:1", *scopes]
        change = ["--key", "vmferry", "--set", words] if words else ["--remove"]
        subprocess.run(["virsh", "-q", "-c", bench.rig.uri, *metadata, *change], check=True)

    assert found("prod") == set()
    tag("small", "<tags><tag>prod</tag><tag>web &amp; mail</tag></tags>", "--config", "--live")
    tag(off, "<tags><tag>prod</tag></tags>", "--config")
    try:
        assert found("prod") == {"small", off}
        assert found("web & mail") == {"small"}
        assert found("pro") == found("prod*") == set()
        assert describe_vms(bench.provider, ["small"], {})["vms"][0]["tags"] == ("prod", "web & mail")
    finally:
        tag("small", "", "--config", "--live")
        tag(off, "", "--config")


def test_libvirt_has_no_folders_and_says_so(bench: Bench) -> None:
    error = refused(
        lambda: describe_vms(bench.provider, None, {"folder": "prod"}),
        "unsupported",
        "on libvirt cannot be found by a folder",
    )
    assert "tag" in error.hint
