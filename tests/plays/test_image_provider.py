# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that are files go into a store, and from there to a hypervisor, where they boot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine.appliances.archives import archive, descriptor, sums
from engine.images.disks import run

from rigs import guests
from rigs.domain import boot_and_expect, remove_domain

from .playing import ROOT, Play, Stage

MIB = 1 << 20
SIZE = 4 * MIB
NAME = "was-an-appliance"
BIOS = (b'vmw:key="firmware" vmw:value="efi"', b'vmw:key="firmware" vmw:value="bios"')


@pytest.fixture
def images(stage: Stage) -> Iterator[Path]:
    """An OVA with a guest that boots, and a folder with two disks."""
    folder = stage.folder / "files"
    (folder / "db").mkdir(parents=True)
    raw = guests.mbr_disk(stage.folder / "guest.raw", "from files", SIZE)
    packed = stage.folder / "d.vmdk"
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, packed)
    text = descriptor([("d.vmdk", "d1", str(SIZE))]).replace(*BIOS)
    files = {"app.ovf": text, "d.vmdk": packed.read_bytes()}
    packed.unlink()
    (folder / "web.ova").write_bytes(archive({**files, "app.mf": sums(files)}))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, folder / "db" / "disk1.qcow2")
    (folder / "db" / "disk2.raw").write_bytes(b"two" * MIB)
    yield folder
    stage.end()
    for domain in stage.rig.connect().listAllDomains():
        if domain.name() == NAME:
            remove_domain(domain)


def export(stage: Stage, images: Path) -> Play:
    given = {"images": images.as_uri(), "url": stage.store.as_uri()}
    environment = {"VMFERRY_STATE_DIR": str(stage.state)}
    playbook = ROOT / "examples/export_image_files.yml"
    return stage.play(playbook=playbook, arguments=["-e", json.dumps(given)], environment=environment).wait()


def test_an_ova_on_a_path_becomes_an_export_and_a_vm_that_boots(stage: Stage, images: Path) -> None:
    export(stage, images)
    manifests = [json.loads(path.read_text()) for path in stage.store.glob("*/*/manifest.json")]
    assert sorted(one["source"]["vm_name"] for one in manifests) == ["db", "web"]
    (stage.folder / "images").mkdir()
    options = {name: value for name, value in stage.options().items() if name in ("libvirt", "url", "state_dir")}
    placement = {"storage": str(stage.folder / "images"), "disk_bus": "sata"}
    told = stage.folder / "told.json"
    asked = {**options, "name": NAME, "vm": "web", "placement": placement}
    task = {"vmferry.migrate.vm_import": asked, "register": "made"}
    stage.play(task, {"ansible.builtin.copy": {"dest": str(told), "content": "{{ made | to_json }}"}}).wait()
    vm = json.loads(told.read_text())["vm"]
    assert (vm["cpu"], vm["memory_mb"], vm["firmware"]) == (2, 2048, "bios")
    run("qemu-img", "compare", "-F", "raw", vm["disks"][0]["source"], stage.folder / "guest.raw")
    boot_and_expect(stage.rig, stage.rig.connect().lookupByName(NAME), guests.boot_marker("from files"))


def test_an_ova_becomes_a_vm_that_boots_with_no_store_between(stage: Stage, images: Path) -> None:
    landing = stage.folder / "landing"
    landing.mkdir()
    how = {"uri": stage.rig.uri, "where": str(landing), "disk_bus": "sata"}
    given = {"images": images.as_uri(), "vm": "web.ova", "new_name": NAME, **how}
    playbook, arguments = ROOT / "examples/migrate_directly.yml", ["-e", json.dumps(given)]
    environment = {"VMFERRY_STATE_DIR": str(stage.state), "ANSIBLE_CALLBACKS_ENABLED": "vmferry.migrate.transfers"}
    play = stage.play(playbook=playbook, arguments=arguments, environment=environment).wait()
    assert re.search(r"web\.ova +migrate +ready", play.output), play.output
    assert (" written at " in play.output, "content verified" in play.output) == (True, True)
    assert stage.record()["kind"] == "migrate"
    (disk,) = landing.iterdir()
    run("qemu-img", "compare", "-F", "raw", disk, stage.folder / "guest.raw")
    boot_and_expect(stage.rig, stage.rig.connect().lookupByName(NAME), guests.boot_marker("from files"))
    assert not list(stage.store.iterdir())
    again = stage.play(playbook=playbook, arguments=arguments, environment=environment).wait()
    assert "changed=0" in again.output


def test_an_ova_becomes_images_and_an_export_an_ova_that_becomes_a_vm(stage: Stage, images: Path) -> None:
    """By the play of examples/, and with the same bytes in the end."""
    written, disks, told = stage.folder / "written", stage.folder / "images", stage.folder / "told.json"
    written.mkdir()
    disks.mkdir()
    to = {"to": written.as_uri(), "disk_format": "qcow2", "new_name": "copied", "url": f"{images.as_uri()}/web.ova"}
    environment = {"VMFERRY_STATE_DIR": str(stage.state)}
    playbook = ROOT / "examples/import_to_files.yml"
    stage.play(playbook=playbook, arguments=["-e", json.dumps(to)], environment=environment).wait()
    run("qemu-img", "compare", "-F", "raw", written / "copied" / "copied-disk1.qcow2", stage.folder / "guest.raw")
    options = {name: value for name, value in stage.options().items() if name in ("libvirt", "state_dir")}
    files = {"provider": "image", "image": {"url": written.as_uri()}, "state_dir": str(stage.state)}
    exported = {**files, "vm": "copied", "url": stage.store.as_uri()}
    packed = {**files, "name": "packed", "url": stage.store.as_uri(), "placement": {"disk_format": "ova"}}
    landed = {
        **options,
        "provider": "libvirt",
        "name": NAME,
        "url": f"{written.as_uri()}/packed.ova",
        "placement": {"storage": str(disks), "disk_bus": "sata"},
    }
    stage.play(
        {"vmferry.migrate.vm_export": exported},
        {"vmferry.migrate.vm_import": packed, "register": "packed"},
        {"vmferry.migrate.vm_info": {"provider": "image", "image": files["image"]}, "register": "seen"},
        {"ansible.builtin.copy": {"dest": str(told), "content": "{{ [packed, seen] | to_json }}"}},
    ).wait()
    made_ova, seen = json.loads(told.read_text())
    stage.play(
        {"vmferry.migrate.vm_import": landed, "register": "made"},
        {"ansible.builtin.copy": {"dest": str(told), "content": "{{ made | to_json }}"}},
    ).wait()
    made = json.loads(told.read_text())
    assert sorted(vm["path"] for vm in seen["vms"]) == ["copied/copied.ovf", "packed.ova"]
    assert made_ova["vm"] in seen["vms"]
    assert (made["vm"]["cpu"], made["vm"]["memory_mb"], made["vm"]["firmware"]) == (2, 2048, "bios")
    run("qemu-img", "compare", "-F", "raw", made["vm"]["disks"][0]["source"], stage.folder / "guest.raw")
    boot_and_expect(stage.rig, stage.rig.connect().lookupByName(NAME), guests.boot_marker("from files"))
