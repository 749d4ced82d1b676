# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports: how they land, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs import guests
from rigs.domain import Disk, Guest, Machine, boot_and_expect, define_and_start, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .exports import Bench


@pytest.fixture
def imported(rig: LibvirtRig) -> Iterator[str]:
    """A name for an import; the machine that it may become is removed afterwards."""
    yield "restored"
    for domain in rig.connect().listAllDomains():
        if domain.name() == "restored":
            remove_domain(domain)


def test_machine_that_boots_from_uefi_comes_back_with_its_firmware(
    s3_bench: Bench, rig: LibvirtRig, imported: str
) -> None:
    disk = guests.place(guests.uefi_disk(), rig.directory / "uefi.qcow2")
    guest = define_and_start(rig, Machine("uefi", disks=(Disk(disk),), boot="uefi", memory_mib=256))
    try:
        s3_bench.export("uefi")
        s3_bench.assert_nothing_left("uefi")
    finally:
        guest.destroy()
    s3_bench.import_(imported)
    domain = rig.connect().lookupByName(imported)
    assert ET.fromstring(domain.XMLDesc()).find("os/loader[@type='pflash']") is not None
    boot_and_expect(rig, domain, guests.READY, 120)
    s3_bench.assert_nothing_left()


def test_running_linux_machine_with_its_data_disks_boots_from_s3(s3_bench: Bench, linux: Guest, imported: str) -> None:
    s3_bench.export("linux")
    s3_bench.import_(imported)
    boot_and_expect(s3_bench.rig, s3_bench.rig.connect().lookupByName(imported), guests.READY, 120)
    s3_bench.assert_nothing_left("linux")


def macs(rig: LibvirtRig, name: str) -> list[str]:
    root = ET.fromstring(rig.connect().lookupByName(name).XMLDesc())
    return [mac.attrib["address"] for mac in root.iterfind("devices/interface/mac")]


@pytest.fixture(scope="module")
def networked(rig: LibvirtRig) -> Iterator[str]:
    """Off, with one NIC on a network of libvirt's and one that needs none."""
    disk = guests.mbr_disk(rig.directory / "networked.raw", "networked")
    machine = Machine("networked", (Disk(disk, "raw"),), network=True, memory_mib=32)
    root = ET.fromstring(domain_xml(machine, rig.directory))
    nic = ET.SubElement(root.find("devices"), "interface", type="network")  # type: ignore[arg-type]
    ET.SubElement(nic, "source", network="office")
    domain = rig.connect().defineXML(ET.tostring(root, "unicode"))
    yield "networked"
    remove_domain(domain)


@pytest.fixture
def networks(rig: LibvirtRig) -> Iterator[None]:
    xml = "<network><name>lab</name><forward mode='bridge'/><bridge name='br-lab'/></network>"
    network = rig.connect().networkDefineXML(xml)
    yield
    network.undefine()


def test_network_that_does_not_exist_is_refused_and_mapped(
    bench: Bench, networked: str, networks: None, imported: str
) -> None:
    bench.export(networked)
    error = bench.refused_import(imported, "not_found", "office")
    assert "lab" in error.hint
    bench.assert_no_machine(imported)
    bench.import_(imported, placement={"network_map": {"office": "lab"}, "keep_mac": True})
    assert macs(bench.rig, imported) == macs(bench.rig, networked)
    bench.assert_nothing_left(networked, runs=False)


def test_macs_are_new_unless_they_are_kept(bench: Bench, networked: str, networks: None, imported: str) -> None:
    bench.export(networked)
    bench.import_(imported, placement={"network_map": {"office": "lab"}})
    assert len(macs(bench.rig, imported)) == 2
    assert not set(macs(bench.rig, imported)) & set(macs(bench.rig, networked))


def test_machine_that_was_imported_before_is_started_if_that_was_asked(
    bench: Bench, small: Guest, imported: str
) -> None:
    bench.export("small")
    bench.import_(imported)
    placement = {"power_on": True}
    assert bench.import_(imported, placement=placement, check_mode=True)["changed"]
    result = bench.import_(imported, placement=placement)
    assert (result["changed"], result["vm"]["power_state"]) == (True, "powered_on")
    assert bench.rig.connect().lookupByName(imported).isActive()
    assert not bench.import_(imported, placement=placement)["changed"]


def test_machine_that_could_not_be_started_is_no_success_the_next_time_either(
    bench: Bench, networked: str, networks: None, imported: str
) -> None:
    bench.export(networked)
    placement = {"network_map": {"office": "lab"}, "power_on": True}  # no libvirt has started that network
    error = bench.refused_import(imported, "conflict", "lab", placement=placement)
    assert "complete" in error.hint
    bench.refused_import(imported, "conflict", "lab", placement=placement)
    assert not bench.rig.connect().lookupByName(imported).isActive()


def test_check_mode_of_an_import_tells_all_and_writes_nothing(bench: Bench, networked: str) -> None:
    bench.export(networked)
    for suffix in ("img", "qcow2"):
        (bench.images / f"restored-disk-0.{suffix}").write_bytes(b"somebody's")
    before = {path: path.stat().st_mtime_ns for path in bench.folder.rglob("*")}
    result = bench.import_("restored", check_mode=True)
    errors = {finding["kind"] for finding in result["findings"] if finding["severity"] == "error"}
    assert errors == {"not_found", "conflict"}
    assert result["plan"]["bytes_to_read"] > 0
    assert {path: path.stat().st_mtime_ns for path in bench.folder.rglob("*")} == before


def test_check_mode_of_an_import_tells_of_a_taken_name_beside_all_else(bench: Bench, networked: str) -> None:
    bench.export(networked)
    (bench.images / f"{networked}-disk-0.qcow2").write_bytes(b"somebody's")
    result = bench.import_(networked, check_mode=True)
    errors = [finding for finding in result["findings"] if finding["severity"] == "error"]
    assert sorted(finding["kind"] for finding in errors) == ["conflict", "conflict", "not_found"]
    assert sum("VM named networked" in finding["message"] for finding in errors) == 1
    assert sum("networked-disk-0.qcow2" in finding["message"] for finding in errors) == 1
    assert result["plan"]["bytes_to_read"] > 0
    assert not result["changed"]
    assert result["diff"]["after"] == result["diff"]["before"]
    assert result["warnings"] == [f"{finding['message']} {finding['hint']}".rstrip() for finding in errors]


def test_changed_byte_in_the_image_is_found(bench: Bench, small: Guest) -> None:
    image = bench.stored(bench.export("small"))
    flip(image, image.stat().st_size // 2)
    error = bench.refused_import("restored", "checksum_mismatch", image.name)
    assert not error.retryable
    bench.assert_no_machine("restored")
    bench.assert_nothing_left("small")


def test_changed_byte_in_the_description_is_found(bench: Bench, small: Guest) -> None:
    description = bench.stored(bench.export("small")).with_name("vm.json")
    flip(description, 40)
    bench.refused_import("restored", "checksum_mismatch", "vm.json")
    bench.assert_no_machine("restored")


def test_changed_byte_in_the_digests_is_found(bench: Bench, small: Guest) -> None:
    digests = bench.stored(bench.export("small")).with_suffix(".digests")
    flip(digests, digests.stat().st_size - 40)
    bench.refused_import("restored", "checksum_mismatch", "disk-0")
    bench.assert_no_machine("restored")


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def _climb(document: dict[str, Any]) -> None:
    document["x_vmferry"]["disks"][0]["file"] = "../../../../etc/shadow"


def _climb_by_file(document: dict[str, Any]) -> None:
    document["x_vmferry"]["files"][0]["path"] = "native/../../../secret"


def _grow(document: dict[str, Any]) -> None:
    document["x_vmferry"]["disks"][0]["size"] *= 2


def _take_a_part(document: dict[str, Any]) -> None:
    document["x_vmferry"]["disks"][0]["object_proof"]["parts"].pop()


def _from_the_future(document: dict[str, Any]) -> None:
    document["x_vmferry"]["schema"] = 99


def _another_id(document: dict[str, Any]) -> None:
    document["x_vmferry"]["export_id"] = "20200101T000000Z-00000000"


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        (_climb, "invalid_config"),
        (_climb_by_file, "invalid_config"),
        (_grow, "invalid_config"),
        (_take_a_part, "invalid_config"),
        (_from_the_future, "unsupported"),
        (_another_id, "invalid_config"),
    ],
)
def test_manifest_that_lies_is_refused(
    bench: Bench, off: str, lie: Callable[[dict[str, Any]], None], kind: str
) -> None:
    manifest = bench.stored(bench.export(off)).with_name("manifest.json")
    document = json.loads(manifest.read_text())
    lie(document)
    manifest.write_text(json.dumps(document))
    bench.refused_import("restored", kind, str(manifest.parent))
    bench.assert_no_machine("restored")
    bench.assert_nothing_left(off, runs=False)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"x_vmferry": 7}', b"\xff\xfe", b"[" * 100_000])
def test_manifest_that_is_none_is_refused(bench: Bench, off: str, text: bytes) -> None:
    manifest = bench.stored(bench.export(off)).with_name("manifest.json")
    manifest.write_bytes(text)
    bench.refused_import("restored", "invalid_config", "manifest.json")
    bench.assert_no_machine("restored")


def test_folder_for_the_disks_that_is_full_or_missing(bench: Bench, small: Guest) -> None:
    bench.export("small")
    missing = {"storage": str(bench.folder / "missing")}
    bench.refused_import("restored", "not_found", "missing", placement=missing)
    place = bench.folder / "tiny"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], check=True)
    try:
        bench.refused_import("restored", "no_space", "tiny", placement={"storage": str(place)})
        assert not list(place.iterdir())
    finally:
        subprocess.run(["umount", str(place)], check=True)
    bench.assert_no_machine("restored")
    bench.assert_nothing_left("small")


def test_store_without_an_export(bench: Bench) -> None:
    error = bench.refused_import("restored", "not_found", "store")
    assert "export_info" in error.hint
    bench.assert_no_machine("restored")
