# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports of snapshots of VMs that are off."""

from __future__ import annotations

import secrets
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.verifications import VERIFIED, Verifications
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import SnapshotOptions
from rigs.domain import remove_domain
from rigs.libvirt import LibvirtRig

from .exports import MIB, Bench
from .snapshots import SnapshotBench, content, contents, define_off, overlay_on, remove_with_images, write


@pytest.fixture
def vm(rig: LibvirtRig, bench: Bench, request: pytest.FixtureRequest) -> Iterator[SnapshotBench]:
    """A qcow2 disk and one that is raw, unless internal snapshots are to be made."""
    name = f"shot-{secrets.token_hex(3)}"
    domain = define_off(rig, name, raw=getattr(request, "param", "external") == "external")
    machine = SnapshotBench(bench, name)
    write_all(machine, 0x11)
    yield machine
    machine.assert_nothing_left()
    remove_with_images(rig, domain)


def write_all(vm: SnapshotBench, pattern: int, offset: int = MIB) -> None:
    for path in vm.images().values():
        write(path, pattern, offset)


def export(vm: SnapshotBench, **options: Any) -> dict[str, Any]:
    return vm.bench.export(vm.vm, snapshot=SnapshotOptions(**options))


def exported(vm: SnapshotBench, result: dict[str, Any]) -> dict[str, str]:
    disks = result["export"]["disks"]
    return {disk["name"]: content(vm.bench.stored(result, number)) for number, disk in enumerate(disks)}


@pytest.mark.parametrize("vm", ["external", "internal"], indirect=True)
def test_each_snapshot_gives_the_disks_of_its_moment(vm: SnapshotBench, request: pytest.FixtureRequest) -> None:
    method = request.node.callspec.params["vm"]
    moments = {}
    for number in range(2):
        moments[f"s{number}"] = contents(vm.images())
        vm.task(name=f"s{number}", method=method)
        write_all(vm, 0x22 + number)
    for name in ("s1", "s0"):
        made = export(vm, source=name)
        assert exported(vm, made) == moments[name]
        assert (made["export"]["consistency"], made["export"]["snapshot"]) == ("powered_off", name)
    assert vm.names() == ["s0", "s1"]
    write_all(vm, 0x55)
    now = contents(vm.images())
    assert exported(vm, export(vm)) == now == contents(vm.images())
    vm.task("absent", name="s1")
    vm.task("absent", name="s0")


def test_a_snapshot_of_the_same_name_that_was_made_later_is_another_one(vm: SnapshotBench) -> None:
    vm.task(name="daily")
    first = export(vm, source="daily")
    vm.task("absent", name="daily")
    write_all(vm, 0x77)
    then = contents(vm.images())
    time.sleep(1.1)  # times of snapshots are whole seconds
    vm.task(name="daily")
    second = export(vm, source="daily")
    assert second["changed"]
    assert second["export"]["id"] != first["export"]["id"]
    assert exported(vm, second) == then
    vm.task("absent", name="daily")


@pytest.mark.parametrize("vm", ["internal"], indirect=True)
def test_an_image_that_has_grown_since_is_not_read_by_its_new_size(vm: SnapshotBench) -> None:
    vm.task(name="small", method="internal")
    images = vm.images()
    for path in images.values():
        subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", str(path), str(16 * MIB)], check=True)
    vm.bench.refused_export(vm.vm, "unsupported", "resized", snapshot=SnapshotOptions(source="small"))
    vm.task("absent", name="small")


@pytest.mark.parametrize("vm", ["internal"], indirect=True)
def test_an_internal_snapshot_on_images_that_nobody_vouches_for_is_refused(vm: SnapshotBench, rig: LibvirtRig) -> None:
    """What the snapshot does not hold itself, it would have from an image that may be another by now."""
    vm.task(name="inside", method="internal")
    base = rig.directory / f"{vm.vm}.base.qcow2"
    image = vm.images()["vda"]
    subprocess.run(["cp", str(image), str(base)], check=True)
    rebase = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(image)]
    subprocess.run(rebase, check=True)
    vm.bench.refused_export(vm.vm, "unsupported", "nothing tells", snapshot=SnapshotOptions(source="inside"))
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", str(image)], check=True)
    base.unlink()
    vm.task("absent", name="inside")


def test_a_slice_of_an_image_is_not_taken_for_the_whole(vm: SnapshotBench) -> None:
    vm.task(name="sliced")
    snapshot = vm.domain.snapshotLookupByName("sliced")
    root = ET.fromstring(snapshot.getXMLDesc())
    source = root.find("domain/devices/disk/target[@dev='vdb']/../source")
    assert source is not None
    ET.SubElement(ET.SubElement(source, "slices"), "slice", type="storage", offset="0", size=str(MIB))
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT
    vm.domain.snapshotCreateXML(ET.tostring(root, "unicode"), flags)
    vm.bench.refused_export(vm.vm, "unsupported", "vdb", snapshot=SnapshotOptions(source="sliced"))
    vm.task("absent", name="sliced")


def test_a_disk_that_the_snapshot_does_not_hold_is_told(vm: SnapshotBench, rig: LibvirtRig) -> None:
    vm.task(name="before")
    extra = rig.directory / f"{vm.vm}-extra.qcow2"
    overlay_on(next(iter(vm.images().values())), extra)
    disk = f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{extra}'/>"
    vm.domain.attachDeviceFlags(f"{disk}<target dev='vdz' bus='virtio'/></disk>", 2)
    vm.bench.refused_export(vm.vm, "conflict", "does not hold vdz", snapshot=SnapshotOptions(source="before"))
    made = vm.bench.export(vm.vm, snapshot=SnapshotOptions(source="before"), disks=("vda",))
    assert [disk["name"] for disk in made["export"]["disks"]] == ["vda"]
    vm.domain.detachDeviceFlags(f"{disk}<target dev='vdz' bus='virtio'/></disk>", 2)
    extra.unlink()
    vm.task("absent", name="before")


def test_a_vm_is_restored_as_its_snapshot_had_it_with_the_hardware_of_then(vm: SnapshotBench, rig: LibvirtRig) -> None:
    before = contents(vm.images())
    vm.task(name="then")
    write_all(vm, 0x66)
    root = ET.fromstring(vm.domain.XMLDesc())
    for name in ("memory", "currentMemory"):
        element = root.find(name)
        assert element is not None
        element.text = str(48 << 10)  # KiB
    rig.connect().defineXML(ET.tostring(root, "unicode"))
    made = export(vm, source="then")
    vm.task("absent", name="then")
    name = f"{vm.vm}-back"
    vm.bench.import_(name, export=made["export"]["id"])
    restored = rig.connect().lookupByName(name)
    try:
        assert restored.info()[1] == 32 << 10
        assert contents(SnapshotBench(vm.bench, name).images()) == before
        assert rig.connect().lookupByName(vm.vm).info()[1] == 48 << 10
    finally:
        remove_domain(restored)


def test_an_export_of_a_snapshot_that_is_known_to_be_damaged_is_made_anew(vm: SnapshotBench) -> None:
    vm.task(name="then")
    made = export(vm, source="then")["export"]
    noted = Verifications().with_failure("content", time.time(), "a" * 32, 1)
    Path(made["manifest"].removeprefix("file://")).with_name(VERIFIED).write_bytes(noted.to_json())
    again = export(vm, source="then")
    assert (again["changed"], again["export"]["id"] != made["id"]) == (True, True)
    assert not export(vm, source="then")["changed"]
    vm.task("absent", name="then")
