# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs made on a node of Proxmox VE: their volumes, their hardware, and what is known of them afterwards."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox import import_hold, import_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.import_state import EFI_VARIABLES
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from rigs.proxmox import ProxmoxServer

from .importing import EXPORT, MIB, SMALL, SYSTEM, Importing, a_vm, noise, read


@pytest.mark.parametrize(
    ("storage", "format"), [("local", "raw"), ("local", "qcow2"), ("block", "raw"), ("thin", "raw")]
)
def test_disks_are_written_as_they_were(pve: ProxmoxServer, importing: Importing, storage: str, format: str) -> None:
    made = importing.run(a_vm(SYSTEM, SMALL), [SYSTEM, SMALL], storage=storage, disk_format=format)
    vmid = int(made.id)
    for number, data in enumerate((SYSTEM, SMALL)):
        found = pve.disk_bytes(vmid, number)
        assert found[: len(data)] == data
        assert not any(found[len(data) :]), "what a storage rounds up to is zeros"
    assert {disk.format for disk in made.disks} == {format}
    left = pve.leftovers()
    assert (left.folders, left.processes, left.volumes) == ([], [], [])
    assert list(left.machines.values()) == ["new"]


def test_imports_on_the_node_itself(pve: ProxmoxServer) -> None:
    provider = ProxmoxProvider(pve.settings("node"))
    with pve.on_the_node():
        made = Importing(provider).run(a_vm(SYSTEM), [SYSTEM])
    provider.close()
    assert pve.disk_bytes(int(made.id), 0) == SYSTEM
    assert not pve.leftovers().folders


def test_what_is_zeros_takes_no_room(pve: ProxmoxServer, importing: Importing) -> None:
    data = SMALL + bytes(24 * MIB)
    made = importing.run(a_vm(data), [data])
    path, _active = pve.volumes()[made.disks[0].source]
    assert path.stat().st_blocks * 512 < MIB


def test_each_disk_goes_to_its_storage(pve: ProxmoxServer, importing: Importing) -> None:
    asked = {"storage": "local", "storage_map": {"disk-1": "thin"}}
    made = importing.run(a_vm(SMALL, SMALL), [SMALL, SMALL], **asked)
    assert [disk.storage for disk in made.disks] == ["local", "thin"]


def test_disks_are_read_back_before_the_vm_is_there(pve: ProxmoxServer, importing: Importing) -> None:
    found: list[bytes] = []
    names: list[str] = []

    def look(session: Any) -> None:
        found.extend(read(source)[: len(SYSTEM)] for source in session.read_back())
        names.extend(told["name"] for told in pve.vms().values())

    importing.run(a_vm(SYSTEM), [SYSTEM], written=look, storage="block")
    assert found == [SYSTEM]
    assert [name.startswith("vmferry-") for name in names] == [True]


def test_vm_is_called_by_its_job_until_it_is_whole(pve: ProxmoxServer, importing: Importing) -> None:
    names: list[str] = []
    job = secrets.token_hex(16)

    def look(_session: Any) -> None:
        names.extend(told["name"] for told in pve.vms().values())
        assert importing.provider.imported("new") is None

    made = importing.run(a_vm(), [SMALL], begun=look, job=job, attempt="0badcafe")
    assert names == [f"vmferry-{job}-0badcafe"]
    assert made.name == "new"


def test_vm_has_the_vmid_pool_and_power_that_the_task_wants(pve: ProxmoxServer, importing: Importing) -> None:
    vmid = pve.first_vmid + 77
    made = importing.run(a_vm(), [SMALL], vmid=vmid, power_on=True)
    assert (made.id, made.power_state, made.host) == (str(vmid), "powered_on", pve.node)
    assert pve.vms()[vmid]["status"] == "running"


def test_machine_keeps_its_variables_and_its_tpm(pve: ProxmoxServer, importing: Importing) -> None:
    variables, state = bytes(40) + b"_FVH" + noise(8, EFI_VARIABLES - 44), noise(9, MIB)
    vm = a_vm(firmware="uefi", tpm=True, provider="proxmox")
    warnings: list[str] = []
    native = {"efidisk0.raw": variables, "tpmstate0.raw": state}
    made = importing.run(vm, [SMALL], native=native, begun=lambda session: warnings.extend(session.warnings))
    assert pve.disk_bytes(int(made.id), "efidisk0")[: len(variables)] == variables
    assert pve.disk_bytes(int(made.id), "tpmstate0")[: len(state)] == state
    assert (made.firmware, made.tpm, warnings) == ("uefi", True, [])


def test_import_is_known_by_its_export(pve: ProxmoxServer, importing: Importing) -> None:
    made = importing.run(a_vm(), [SMALL])
    found = importing.provider.imported("new")
    assert found is not None
    assert (found[0].id, found[1]) == (made.id, EXPORT)
    assert found[0].details["imported_from"] == {"export": EXPORT, "vm": a_vm().id, "vm_name": "source"}
    assert importing.provider.imported("another") is None
    foreign = pve.make_vm("theirs")
    found = importing.provider.imported("theirs")
    assert found is not None
    assert (found[0].id, found[1]) == (str(foreign), "")


def test_notes_of_people_come_with_it(pve: ProxmoxServer, importing: Importing) -> None:
    vm = a_vm(details={"description": "Ask Ada.\nBefore Friday."})
    made = importing.run(vm, [SMALL])
    notes = pve.vms()[int(made.id)]["config"]["description"]
    assert notes.startswith("Ask Ada.\nBefore Friday.\nMade by vmferry.migrate. ")
    again = importing.run(replace(vm, details=made.details), [SMALL], name="again")
    notes = pve.vms()[int(again.id)]["config"]["description"]
    assert notes.count("Made by vmferry.migrate") == 1


def test_vmid_that_somebody_else_takes_first_is_not_asked_for_again(pve: ProxmoxServer, importing: Importing) -> None:
    words = {"message": f"unable to create VM {pve.first_vmid} - VM {pve.first_vmid} already exists on node 'a'"}
    pve.fault("POST", "/nodes/{node}/qemu", "refuse", **words)
    assert importing.run(a_vm(), [SMALL]).name == "new"


def test_vmid_of_the_task_that_is_taken_is_told(pve: ProxmoxServer, importing: Importing) -> None:
    taken = pve.make_vm("theirs")
    with pytest.raises(VmferryError, match="already exists") as refused:
        importing.run(a_vm(), [SMALL], vmid=taken)
    assert refused.value.kind == "conflict"
    assert list(pve.vms()) == [taken]


def test_lost_answer_to_the_last_step_is_made_good(
    pve: ProxmoxServer, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_vm, "SETTLE_AGAIN", 0.01)
    pve.fault("PUT", "/nodes/{node}/qemu/{vmid}/config", "lose_answer")
    made = importing.run(a_vm(SYSTEM), [SYSTEM])
    assert made.name == "new"
    assert pve.disk_bytes(int(made.id), 0) == SYSTEM


def test_sign_of_life_is_renewed(pve: ProxmoxServer, importing: Importing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_hold, "RENEWED_EVERY", 0.01)
    path = "/nodes/{node}/qemu/{vmid}/config"

    def renewed(_session: Any) -> None:
        while not any((one["method"], one["path"]) == ("PUT", path) for one in pve.calls()):
            pass

    made = importing.run(a_vm(), [SMALL], begun=renewed)
    assert "state=whole" in pve.vms()[int(made.id)]["config"]["description"]


def test_made_otherwise_is_told(importing: Importing) -> None:
    vm = replace(a_vm(), provider="proxmox", id="120", host="pve1")
    provider = importing.provider
    assert provider.made_otherwise(vm, Placement("new", vmid=120, firmware="bios", disk_format="qcow2")) == ""
    assert "with the vmid 120" in provider.made_otherwise(vm, Placement("new", vmid=121))
    assert "with the firmware bios" in provider.made_otherwise(vm, Placement("new", firmware="uefi"))
    assert "in the format qcow2" in provider.made_otherwise(vm, Placement("new", disk_format="raw"))
    for wrong in ({"folder": "a"}, {"disk_provisioning": "thick"}, {"key_name": "a"}):
        with pytest.raises(VmferryError, match="means nothing") as refused:
            provider.made_otherwise(vm, Placement("new", **wrong))
        assert refused.value.kind == "unsupported"
