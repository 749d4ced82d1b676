# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs of vSphere that come back: by a store, and with none between, with every byte and with their hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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

from .importing import DATA, SYSTEM

pytestmark = pytest.mark.slow
WHERE = {"host": "DC0_H0", "storage": "LocalDS_0"}


def whole(data: bytes) -> bytes:
    return data + bytes(-len(data) % 1024)


def make(vcenter: VSphere, name: str, running: bool) -> None:
    vcenter.make_vm(
        name, [SYSTEM, DATA], running=running, firmware="efi", secure_boot=True, nvram=b"variables",
        annotation="Ask Ann.", cpus=2, version="vmx-13",
    )  # fmt: skip


def assert_same(vcenter: VSphere, made: dict[str, Any], source: str) -> None:
    new = made["vm"]["name"]
    assert [vcenter.disk_bytes(new, number) for number in (0, 1)] == [whole(SYSTEM), whole(DATA)]
    told = {key: made["vm"][key] for key in ("firmware", "secure_boot", "cpu", "machine")}
    assert told == {"firmware": "uefi", "secure_boot": True, "cpu": 2, "machine": "vmx-13"}
    assert [disk["details"]["controller"] for disk in made["vm"]["disks"]] == ["pvscsi", "pvscsi"]
    assert made["vm"]["details"]["description"].startswith("Ask Ann.\n")
    assert [call.bytes for call in vcenter.calls("PUT /nfc/")] == [len(b"variables")]
    assert source in vcenter.leftovers().machines
    assert dict(vcenter.leftovers().snapshots) == {}


@pytest.mark.parametrize("running", [False, True], ids=["off", "running"])
def test_vm_comes_back_from_a_store(vcenter: VSphere, settings: dict[str, Any], tmp_path: Path, running: bool) -> None:
    name = f"stored-{'running' if running else 'off'}"
    make(vcenter, name, running)
    vsphere, store = ProviderSpec("vsphere", settings), StoreSpec((tmp_path / "store").as_uri())
    transfer = TransferOptions(state_dir=str(tmp_path / "state"), max_retries=0)
    exported = export_vm(ExportRequest(vsphere, store, name, transfer=transfer), False)
    placement = Placement(f"{name}-again", **WHERE)
    made = import_vm(ImportRequest(vsphere, store, placement, transfer=transfer), False)
    assert made["export"]["id"] == exported["export"]["id"]
    assert_same(vcenter, made, name)


def test_vm_is_migrated_with_no_store_between(vcenter: VSphere, settings: dict[str, Any], tmp_path: Path) -> None:
    make(vcenter, "moving", True)
    vsphere = ProviderSpec("vsphere", settings)
    transfer = TransferOptions(state_dir=str(tmp_path / "state"), max_retries=0)
    request = MigrateRequest(vsphere, vsphere, "moving", Placement("moved-on", **WHERE), transfer=transfer)
    made = migrate_vm(request, False)
    assert_same(vcenter, made, "moving")
    assert migrate_vm(request, False)["changed"] is False
    back = MigrateRequest(vsphere, vsphere, "moved-on", Placement("moved-back", **WHERE), transfer=transfer)
    migrate_vm(back, False)
    assert [vcenter.disk_bytes("moved-back", number) for number in (0, 1)] == [whole(SYSTEM), whole(DATA)]
