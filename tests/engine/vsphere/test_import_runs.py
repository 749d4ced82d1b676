# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs into vSphere: of an image, of a chain of exports, of an appliance, and of files with no store between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import import_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ImportRequest,
    MigrateRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.migrate_vm import migrate_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from rigs.vsphere import VSphere

from .importing import MIB, noise

pytestmark = pytest.mark.slow
BOOT = noise(6, 510) + b"\x55\xaa" + noise(7, 2 * MIB - 512)
MORE = noise(8, MIB) + bytes(3 * MIB)


class Runs:
    """`files`: where VMs that are files lie."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self.folder, self.files = folder, folder / "files"
        self.files.mkdir()
        self.vsphere = ProviderSpec("vsphere", settings)
        self.transfer = TransferOptions(state_dir=str(folder / "state"), max_retries=0)

    @property
    def image(self) -> ProviderSpec:
        return ProviderSpec("image", {"url": self.files.as_uri(), "storage": {}})

    def placement(self, name: str, **asked: Any) -> Placement:
        return Placement(**{
            "name": name, "host": "DC0_H0", "storage": "LocalDS_0", "network_map": {"default": "VM Network"}, **asked,
        })  # fmt: skip

    def bring(self, url: str, name: str, check_mode: bool = False, **asked: Any) -> dict[str, Any]:
        placement = self.placement(name, **asked)
        return import_vm(ImportRequest(self.vsphere, StoreSpec(url), placement, transfer=self.transfer), check_mode)

    def export(self, vm: str, format: Any = "qcow2") -> dict[str, Any]:
        store = StoreSpec((self.folder / "store").as_uri())
        request = ExportRequest(self.image, store, vm, format=format, transfer=self.transfer)
        made: dict[str, Any] = export_vm(request, False)
        return made


@pytest.fixture
def runs(vcenter: VSphere, settings: dict[str, Any], tmp_path: Path) -> Runs:
    return Runs(settings, tmp_path)


def test_image_becomes_a_vm_once(vcenter: VSphere, runs: Runs) -> None:
    (runs.files / "web.img").write_bytes(BOOT)
    url = (runs.files / "web.img").as_uri()
    planned = runs.bring(url, "web", check_mode=True)
    assert (planned["changed"], planned["plan"]["bytes_to_read"]) == (True, len(BOOT)), planned["findings"]
    assert "web" not in vcenter.leftovers().machines
    made = runs.bring(url, "web")
    assert (made["changed"], made["vm"]["name"], made["vm"]["firmware"]) == (True, "web", "bios")
    assert vcenter.disk_bytes("web") == BOOT
    assert made["warnings"] == [
        "disk-0 of web is on virtio, which vSphere has not; it goes on sata. If the guest does not boot from it, set "
        "placement.disk_bus to what it has drivers for.",
        "nic-0 of web is virtio, which vSphere has not; it becomes e1000e. The guest may know it under another name.",
    ]
    vcenter.forget_calls()
    again = runs.bring(url, "web")
    assert (again["changed"], vcenter.calls("ImportVApp")) == (False, [])
    started = runs.bring(url, "web", power_on=True)
    assert (started["changed"], started["vm"]["power_state"]) == (True, "powered_on")
    (runs.files / "web.img").write_bytes(BOOT[::-1])
    with pytest.raises(VmferryError, match="A VM named web exists already in /DC0/vm") as refused:
        runs.bring(url, "web")
    assert refused.value.kind == "conflict"


def test_chain_of_exports_becomes_the_vm_of_its_last_moment(vcenter: VSphere, runs: Runs) -> None:
    folder = runs.files / "db"
    folder.mkdir()
    for number, data in enumerate((BOOT, MORE)):
        (folder / f"disk-{number}.raw").write_bytes(data)
    full = runs.export("db")
    later = bytearray(MORE)
    later[65536:131072] = noise(9, 65536)
    later[-4096:] = noise(10, 4096)
    (folder / "disk-1.raw").write_bytes(later)
    increment = runs.export("db")
    assert (full["export"]["mode"], increment["export"]["mode"]) == ("full", "incremental")
    made = runs.bring((runs.folder / "store").as_uri(), "db", network_map={})
    assert (made["changed"], len(made["vm"]["disks"])) == (True, 2)
    assert made["export"]["id"] == increment["export"]["id"]
    assert [warning.partition(", ")[0] for warning in made["warnings"]] == [
        "disk-0 of db is on virtio",
        "disk-1 of db is on virtio",
    ]
    assert [vcenter.disk_bytes("db", number) for number in (0, 1)] == [BOOT, bytes(later)]
    assert runs.bring((runs.folder / "store").as_uri(), "db", network_map={})["changed"] is False


def test_damaged_export_becomes_no_vm(vcenter: VSphere, runs: Runs) -> None:
    (runs.files / "bad.img").write_bytes(BOOT)
    runs.export("bad")
    (image,) = (runs.folder / "store").rglob("disk-0.qcow2")
    stored = bytearray(image.read_bytes())
    at = stored.index(BOOT[70_000:70_100])
    stored[at] ^= 1
    image.write_bytes(stored)
    before = vcenter.leftovers()
    with pytest.raises(VmferryError) as damaged:
        runs.bring((runs.folder / "store").as_uri(), "bad", network_map={})
    after = vcenter.leftovers()
    assert (damaged.value.kind, after.machines, after.files) == ("checksum_mismatch", before.machines, before.files)


def test_appliance_becomes_a_vm(vcenter: VSphere, runs: Runs) -> None:
    folder = runs.files / "app"
    folder.mkdir()
    for number, data in enumerate((BOOT, MORE)):
        (folder / f"disk-{number}.raw").write_bytes(data)
    runs.export("app", "ova")
    (archive,) = (runs.folder / "store").rglob("*.ova")
    made = runs.bring(archive.as_uri(), "app", network_map={})
    assert [vcenter.disk_bytes("app", number) for number in (0, 1)] == [BOOT, MORE]
    assert made["appliance"]["has_checksums"] is True


def test_files_become_a_vm_with_no_store_between(vcenter: VSphere, runs: Runs) -> None:
    folder = runs.files / "moved"
    folder.mkdir()
    for number, data in enumerate((BOOT, MORE)):
        (folder / f"disk-{number}.raw").write_bytes(data)
    request = MigrateRequest(runs.image, runs.vsphere, "moved", runs.placement("moved"), transfer=runs.transfer)
    foreseen = migrate_vm(request, True)
    assert (foreseen["changed"], "moved" in vcenter.leftovers().machines) == (True, False), foreseen["findings"]
    made = migrate_vm(request, False)
    assert [vcenter.disk_bytes("moved", number) for number in (0, 1)] == [BOOT, MORE]
    assert made["migration"]["verified"] == "none"
    assert all(disk["digest_root"] for disk in made["migration"]["disks"])
    assert made["migration"]["disks"][1]["bytes_written"] < len(MORE)
    assert migrate_vm(request, False)["changed"] is False
