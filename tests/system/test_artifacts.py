# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Artifact Manifest 1.0 in both directions: VMs out of folders that hypersdk fills, and our exports in hyper2kvm."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hyper2kvm.manifest.loader import ManifestLoader

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.ed25519 import TrustedKeys
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import Seals
from ansible_collections.vmferry.migrate.plugins.module_utils._images.formats import FORMATS
from rigs import guests
from rigs.domain import Disk, Machine, boot_and_expect, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig
from rigs.s3_server import S3Server

from .conftest import BUCKET, LEAF, OffVm
from .exports import MIB, Bench
from .test_documented_results import assert_documented

KNOWN_THERE = [one.name for one in FORMATS.values() if one.extension in ManifestLoader.SUPPORTED_SOURCE_FORMATS]
LABEL = "by its manifest"
DATA = 2 * MIB
PIPELINE = {
    "inspect": {"enabled": True},
    "convert": {"enabled": True},
    "validate": {"enabled": True, "check_image_integrity": True},
}


@pytest.fixture(scope="module")
def two(rig: LibvirtRig) -> Iterator[str]:
    """Off. The second of its disks is the one that boots."""
    data = rig.directory / "two-data.raw"
    data.write_bytes(Random(LABEL).randbytes(DATA))
    system = guests.mbr_disk(rig.directory / "two-system.raw", LABEL, 3 * MIB)
    machine = Machine("two", (Disk(data, "raw"), Disk(system, "raw")), memory_mib=32)
    root = ET.fromstring(domain_xml(machine, rig.directory))
    ET.SubElement(root.findall("devices/disk")[1], "boot", order="1")
    domain = rig.connect().defineXML(ET.tostring(root, "unicode"))
    yield "two"
    remove_domain(domain)


def converted(manifest: Path, folder: Path) -> tuple[str, dict[str, Any]]:
    """What hyper2kvm makes of an export, in `folder`, told besides what an export does not say: what to do with it.
    All that it printed, and the results of its stages."""
    folder.mkdir()
    given = folder / "manifest.json"
    output = {"directory": str(folder), "format": "raw"}
    given.write_text(json.dumps({**json.loads(manifest.read_text()), "pipeline": PIPELINE, "output": output}))
    command = [sys.executable, "-m", "hyper2kvm", "--manifest", str(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(folder)})
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    stages = json.loads((folder / "report.json").read_text())["pipeline"]["stages"]
    return said, {name: stage["result"] for name, stage in stages.items() if stage["success"]}


def manifest_of(made: dict[str, Any]) -> Path:
    return Path(made["export"]["manifest"].removeprefix("file://"))


@pytest.mark.parametrize("format_", KNOWN_THERE)
def test_what_we_write_is_converted_by_hyper2kvm(bench: Bench, rig: LibvirtRig, two: str, format_: str) -> None:
    manifest = manifest_of(bench.export(two, format=format_))
    said, results = converted(manifest, bench.folder / "converted")
    assert list(results) == ["load_manifest", "inspect", "convert", "validate"]
    assert [disk["size_match"] for disk in results["inspect"]["disks"]] == [True, True]
    assert set(re.findall(r"Boot disk identified: (\S+)", said)) == {"disk-0"}
    for number, disk in enumerate(("two-system.raw", "two-data.raw")):
        # It takes a fixed VHD, whose mark is at its end, for a raw image, of which that is a part.
        mark = manifest.with_name(f"disk-{number}.vhd").read_bytes()[-512:] if format_ == "vhd" else b""
        found = (bench.folder / "converted" / f"disk-{number}.raw").read_bytes()
        assert found == (rig.directory / disk).read_bytes() + mark


def test_an_increment_is_converted_by_hyper2kvm_with_what_it_stands_on(bench: Bench, vm: OffVm) -> None:
    bench.export(vm.name)
    vm.write(3, b"changed")
    vm.write(20, bytes(LEAF))
    made = bench.export(vm.name)
    assert made["export"]["mode"] == "incremental"
    bench.verify(level="stored")  # which fills in the checksums
    _said, results = converted(manifest_of(made), bench.folder / "converted")
    assert results["load_manifest"]["checksums_verified"]
    assert (bench.folder / "converted" / "disk-0.raw").read_bytes() == vm.disk.read_bytes()


@pytest.fixture
def of_hypersdk(tmp_path: Path) -> dict[str, bytes]:
    """What its exports leave in a folder, as Go writes it: what is 0 is left out, the boot hint too."""
    disks = {"web-disk2.vmdk": Random(LABEL).randbytes(MIB), "web-disk1.vmdk": b""}
    raw = guests.mbr_disk(tmp_path / "system.raw", LABEL, 3 * MIB)
    (tmp_path / "data.raw").write_bytes(disks["web-disk2.vmdk"])
    for name, source in (("web-disk1.vmdk", raw), ("web-disk2.vmdk", tmp_path / "data.raw")):
        convert = ("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized")
        subprocess.run([*convert, source, tmp_path / name], check=True)
        disks[name] = (tmp_path / name).read_bytes()

    def told(number: int, kind: str, name: str, **more: Any) -> dict[str, Any]:
        shared = {"source_format": "vmdk", "bytes": len(disks[name]), "local_path": f"/var/lib/hypersdk/web/{name}"}
        checksum = f"sha256:{hashlib.sha256(disks[name]).hexdigest()}"
        label = f"disk-{number}"
        return {"id": label, **shared, "checksum": checksum, **more, "label": label, "disk_type": kind}

    manifest = {
        "manifest_version": "1.0",
        "source": {"provider": "vsphere", "vm_id": "vm-42", "vm_name": "web", "export_method": "hypersdk-govc"},
        "vm": {"cpu": 2, "mem_gb": 1, "firmware": "bios", "os_hint": "linux", "os_version": "otherLinux64Guest"},
        "disks": [told(1, "data", "web-disk2.vmdk", boot_order_hint=1), told(0, "boot", "web-disk1.vmdk")],
        "notes": ["Export method: ovf"],
        "metadata": {"hypersdk_version": "0.1.0", "created_at": "2026-01-22T10:30:00.123456789Z"},
        "pipeline": {"fix": {"enabled": True, "regen_initramfs": True}},
    }
    return {**disks, "artifact-manifest.json": json.dumps(manifest, indent=2).encode()}


@pytest.fixture
def imported(rig: LibvirtRig) -> Iterator[str]:
    """A name for an import; the machine that it may become is removed afterwards."""
    yield "of-artifacts"
    for domain in rig.connect().listAllDomains():
        if domain.name() == "of-artifacts":
            remove_domain(domain)


def placed(bench: Bench, files: dict[str, bytes], named: str = "") -> Bench:
    """`named`: the file that the URL is of, rather than of the folder."""
    folder = bench.folder / "web"
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return replace(bench, store=replace(bench.store, url=f"file://{folder}/{named}".rstrip("/")))


def test_a_folder_of_hypersdk_becomes_a_vm_that_boots_from_the_right_disk(
    bench: Bench, rig: LibvirtRig, imported: str, of_hypersdk: dict[str, bytes]
) -> None:
    here = placed(bench, of_hypersdk)
    foreseen = here.import_(imported, check_mode=True)
    stored = sum(len(of_hypersdk[f"web-disk{number}.vmdk"]) for number in (1, 2))
    assert foreseen["plan"]["bytes_to_read"] == 2 * stored  # once for their checksums
    made = here.import_(imported)
    assert_documented("vm_import", made, "vm", "appliance", "job", "diff")
    assert (made["appliance"]["name"], made["appliance"]["has_checksums"]) == ("web", True)
    assert made["appliance"]["url"].endswith("/web/artifact-manifest.json")
    vm = made["vm"]
    assert (vm["cpu"], vm["memory_mb"], vm["firmware"]) == (2, 1024, "bios")
    assert [(disk["size"], disk["bus"]) for disk in vm["disks"]] == [(3 * MIB, "sata"), (MIB, "sata")]
    assert [warning[:40] for warning in made["warnings"]] == [
        "No disk has the boot_order_hint 0; disk-0 is the first, since it is said to boot."[:40],
        "The manifest asks for changes inside the guest"[:40],
    ]
    boot_and_expect(rig, rig.connect().lookupByName(imported), guests.boot_marker(LABEL))
    named = placed(bench, of_hypersdk, "artifact-manifest.json")
    assert not named.import_(imported)["changed"], "it is the same, named by its manifest"


def test_a_disk_of_hypersdk_that_was_changed_leaves_no_vm(
    bench: Bench, imported: str, of_hypersdk: dict[str, bytes]
) -> None:
    image = of_hypersdk["web-disk1.vmdk"]
    changed = image.replace(b'toolsVersion = "2', b'toolsVersion = "1')  # which says nothing of the disk
    assert changed != image
    here = placed(bench, {**of_hypersdk, "web-disk1.vmdk": changed})
    here.refused_import(imported, "checksum_mismatch", "'web-disk1.vmdk'")
    here.assert_no_machine(imported)


def test_a_folder_of_hypersdk_in_a_bucket(
    s3_bench: Bench, s3_server: S3Server, imported: str, of_hypersdk: dict[str, bytes]
) -> None:
    prefix = s3_bench.store.url.rpartition("/")[2]
    for name, data in of_hypersdk.items():
        s3_server.client().put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=data)
    s3_bench.import_(imported, placement={"disk_format": "raw"})
    data = (s3_bench.images / f"{imported}-disk-1.img").read_bytes()
    assert data == Random(LABEL).randbytes(MIB)


def test_who_asks_for_an_export_or_for_a_signature_gets_no_manifest_of_others(
    bench: Bench, imported: str, of_hypersdk: dict[str, bytes]
) -> None:
    here = placed(bench, {**of_hypersdk, "manifest.json": of_hypersdk["artifact-manifest.json"]})
    trusting = Seals(trusts=(TrustedKeys(frozenset({bytes(32).hex()})),))
    for options in ({"vm": "web"}, {"export": "before-upgrade"}, {"seals": trusting}):
        with pytest.raises(VmferryError) as caught:
            here.import_(imported, **options)
        assert caught.value.kind in ("not_found", "invalid_config", "unauthenticated")
        here.assert_no_machine(imported)
