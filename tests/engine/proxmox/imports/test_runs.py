# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs into Proxmox VE."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import import_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ImportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from rigs.proxmox import ProxmoxServer

from .importing import SMALL, SYSTEM, killed


class Runs:
    def __init__(self, pve: ProxmoxServer, folder: Path) -> None:
        self.pve, self.folder = pve, folder
        self.provider = ProviderSpec("proxmox", pve.settings())
        self.transfer = TransferOptions(state_dir=str(folder / "state"))

    def bring(self, image: bytes, name: str, check_mode: bool = False, **asked: Any) -> dict[str, Any]:
        path = self.folder / "disk.raw"
        if not path.exists() or path.read_bytes() != image:
            path.write_bytes(image)
        placement = Placement(**{"name": name, "storage": "local", **asked})
        request = ImportRequest(
            self.provider, StoreSpec(path.as_uri()), placement, networks=("vmbr0.7",), transfer=self.transfer
        )
        return import_vm(request, check_mode)


@pytest.fixture
def runs(pve: ProxmoxServer, tmp_path: Path) -> Runs:
    return Runs(pve, tmp_path)


def test_image_becomes_a_vm_once(pve: ProxmoxServer, runs: Runs) -> None:
    ahead = runs.bring(SYSTEM, "of-image", check_mode=True)
    assert ahead["changed"]
    assert not [one for one in ahead["findings"] if one["severity"] == "error"]
    assert {one["method"] for one in pve.calls()} == {"GET"}
    made = runs.bring(SYSTEM, "of-image")
    vmid = int(made["vm"]["id"])
    assert (made["changed"], made["vm"]["power_state"]) == (True, "powered_off")
    assert made["vm"]["nics"][0]["network"] == "vmbr0.7"
    assert pve.disk_bytes(vmid, 0) == SYSTEM
    again = runs.bring(SYSTEM, "of-image")
    assert (again["changed"], again["vm"]["id"]) == (False, str(vmid))
    started = runs.bring(SYSTEM, "of-image", power_on=True)
    assert (started["changed"], started["vm"]["power_state"]) == (True, "powered_on")
    with pytest.raises(VmferryError, match="with the firmware bios"):
        runs.bring(SYSTEM, "of-image", firmware="uefi")
    with pytest.raises(VmferryError, match="means nothing to the provider proxmox"):
        runs.bring(SYSTEM, "of-image", folder="a")
    with pytest.raises(VmferryError, match="exists already") as caught:
        runs.bring(SMALL, "of-image")
    assert caught.value.kind == "conflict"


def test_next_run_removes_what_a_killed_one_left(pve: ProxmoxServer, runs: Runs) -> None:
    killed("window-copied", pve.settings(), secrets.token_hex(16), name="of-image", storage="thin")
    made = runs.bring(SYSTEM, "of-image")
    assert pve.disk_bytes(int(made["vm"]["id"]), 0) == SYSTEM
    assert [told["name"] for told in pve.vms().values()] == ["of-image"]
    left = pve.leftovers()
    assert (left.folders, left.processes, left.volumes) == ([], [], [])
