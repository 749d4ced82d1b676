# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs of a cluster described: found by name, vmid and node, filtered, and as they are right now."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox import lookup
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.describe import power_state
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import VmSpec
from rigs.proxmox import ProxmoxServer

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
UUID = "6f1d2c0e-43a5-4c58-9a51-0c3a0d5b6e77"
HARDWARE = {
    "cores": 2,
    "sockets": 2,
    "memory": "4096",
    "bios": "ovmf",
    "machine": "pc-q35-9.0",
    "cpu": "host",
    "ostype": "l26",
    "agent": "enabled=1,freeze-fs=1",
    "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=30",
    "ide2": "none,media=cdrom",
    "boot": "order=virtio0;scsi0",
    "smbios1": f"uuid={UUID}",
    "tags": "prod;web",
    "description": "The shop.",
    "onboot": 1,
    "hostpci0": "0000:01:00",
}


def refused(provider: ProxmoxProvider, vm: str) -> VmferryError:
    with pytest.raises(VmferryError) as caught:
        provider.describe(vm)
    return caught.value


def test_a_vm_is_described_in_normalised_words(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web01", [b"a" * MIB, b"b" * 2 * MIB], keys=["scsi0", "virtio0"], format="qcow2", **HARDWARE)
    vm = provider.describe("web01")
    assert (vm.provider, vm.id, vm.name, vm.host) == ("proxmox", str(vmid), "web01", cluster.node)
    assert (vm.path, vm.power_state) == (f"{cluster.node}/{vmid}", "powered_off")
    assert (vm.cpu, vm.memory_mb, vm.firmware, vm.machine) == (4, 4096, "uefi", "pc-q35-9.0")
    assert (vm.guest_os, vm.architecture, vm.tags) == ("Linux (l26)", "x86_64", ("prod", "web"))
    assert [(nic.mac, nic.network) for nic in vm.nics] == [("bc:24:11:00:00:01", "vmbr0.30")]
    disks = [(disk.id, disk.name, disk.size, disk.format, disk.bus, disk.boot) for disk in vm.disks]
    assert disks == [
        ("disk-0", "virtio0", 2 * MIB, "qcow2", "virtio", True),
        ("disk-1", "scsi0", MIB, "qcow2", "scsi", False),
    ]
    assert {disk.storage for disk in vm.disks} == {"local"}
    assert vm.disks[1].source.startswith(f"local:{vmid}/vm-{vmid}-disk-")
    assert {disk.details["owner"] for disk in vm.disks} == {vmid}
    wanted = {
        "vmid": vmid,
        "node": cluster.node,
        "uuid": UUID,
        "agent_enabled": True,
        "agent_freezes": True,
        "cdroms": [{"name": "ide2", "source": "none"}],
        "of_its_node": ["hostpci0"],
        "description": "The shop.",
        "start_at_boot": True,
        "cpu_type": "host",
    }
    assert {name: vm.details[name] for name in wanted} == wanted
    assert VmSpec.from_dict(vm.as_dict()) == vm


def test_state_of_its_own_and_secure_boot_are_told(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    keys = ["scsi0", "efidisk0", "tpmstate0"]
    vmid = cluster.make_vm("win", [b"x" * MIB, b"", b""], keys=keys, sizes=[MIB, 528 * KIB, 4 * MIB], bios="ovmf")
    vm = provider.describe("win")
    assert (vm.tpm, vm.secure_boot, [disk.name for disk in vm.disks]) == (True, False, ["scsi0"])
    assert vm.details["efi_disk"] != vm.details["tpm_state"]
    config = cluster.vms()[vmid]["config"]
    cluster.set(vmid, efidisk0=f"{config['efidisk0']},pre-enrolled-keys=1")
    assert provider.describe("win").secure_boot


def test_a_running_vm_is_described_as_it_runs(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("live", running=True, agent="1")
    assert (provider.describe("live").power_state, provider.describe("live").guest_agent) == ("powered_on", False)
    cluster.agent(vmid)
    assert provider.describe("live").guest_agent
    cluster.set(vmid, agent="0")
    assert not provider.describe("live").guest_agent, "nobody asks an agent that is switched off"


@pytest.mark.parametrize(
    ("agent", "freezes"),
    [("1", True), ("enabled=1,fstrim_cloned_disks=1", True), ("1,freeze-fs=0", False), ("0", False), (None, False)],
)
def test_whether_an_agent_may_freeze_is_told(
    cluster: ProxmoxServer, provider: ProxmoxProvider, agent: str | None, freezes: bool
) -> None:
    cluster.make_vm("web01", **({"agent": agent} if agent else {}))
    assert provider.describe("web01").details["agent_freezes"] is freezes


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({"status": "running", "qmpstatus": "running"}, "powered_on"),
        ({"status": "running", "qmpstatus": "paused"}, "paused"),
        ({"status": "running", "qmpstatus": "prelaunch"}, "paused"),
        ({"status": "running", "qmpstatus": "io-error"}, "paused"),
        ({"status": "running", "qmpstatus": "suspended"}, "suspended"),
        ({"status": "running", "qmpstatus": "guest-panicked"}, "paused"),
        ({"status": "running", "qmpstatus": "something-new"}, "unknown"),
        ({"status": "running"}, "powered_on"),
        ({"status": "stopped", "qmpstatus": "stopped"}, "powered_off"),
        ({"status": "stopped", "lock": "suspended"}, "suspended"),
        ({"status": "stopped", "lock": "backup"}, "powered_off"),
        ({}, "unknown"),
    ],
)
def test_the_power_state_is_that_of_qemu(told: dict[str, Any], wanted: str) -> None:
    assert power_state(told) == wanted


# --- which one is meant ----------------------------------------------------------------------------------------------


def test_a_vm_is_found_by_vmid_by_name_and_by_either_behind_its_node(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web01", disks=())
    for called in (str(vmid), "web01", f"{cluster.node}/{vmid}", f"{cluster.node}/web01"):
        assert provider.describe(called).id == str(vmid)
    assert refused(provider, f"elsewhere/{vmid}").kind == "not_found"


def test_a_name_of_several_is_told_with_their_vmids_and_nodes(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    cluster.change(nodes={"far": True})
    here, there = cluster.make_vm("web01", disks=()), cluster.make_vm("web01", disks=(), node="far")
    error = refused(provider, "web01")
    assert error.kind == "conflict"
    assert f"{here} on {cluster.node}, {there} on far" in error.message
    assert provider.describe("far/web01").id == str(there)
    assert [vm.id for vm in provider.describe_each([str(there), str(here)])] == [str(there), str(here)]


def test_a_vmid_is_no_other_vms_name(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    first = cluster.make_vm("web01", disks=())
    cluster.make_vm(str(first), disks=())
    assert provider.describe(str(first)).name == "web01"


def test_a_vm_that_is_not_there_is_told_with_who_looked(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    error = refused(provider, "nope")
    assert (error.kind, "root@pam!rig" in error.message, "VM.Audit" in error.hint) == ("not_found", True, True)


def test_what_a_user_may_not_see_is_not_there(cluster: ProxmoxServer) -> None:
    mine, other = cluster.make_vm("mine", disks=()), cluster.make_vm("other", disks=())
    provider = ProxmoxProvider(cluster.settings_of("backup@pve", {f"/vms/{mine}": ["VM.Audit"]}))
    assert [vm.name for vm in provider.vms()] == ["mine"]
    assert refused(provider, str(other)).kind == "not_found"


def test_a_node_that_is_away_hides_no_other_and_is_named(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    cluster.make_vm("here", disks=())
    cluster.make_vm("there", disks=(), node="far")
    cluster.change(nodes={"far": False})
    found = {vm.name: vm for vm in provider.vms()}
    assert {name: vm.power_state for name, vm in found.items()} == {"here": "powered_off", "there": "unknown"}
    assert (found["there"].host, found["there"].details["reachable"]) == ("far", False)
    error = refused(provider, "there")
    assert (error.kind, "on far, which cannot be reached" in error.message) == ("network", True)
    assert provider.describe("here").details["reachable"]


def test_a_node_that_goes_away_while_it_is_asked_is_away(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    cluster.make_vm("here", disks=())
    cluster.make_vm("there", disks=(), node="far")
    cluster.fault(
        "GET", "/nodes/{node}/qemu", "refuse", match="/far/", status=595, message="No route to host", times=-1
    )
    assert {vm.name: vm.power_state for vm in provider.vms()} == {"here": "powered_off", "there": "unknown"}


def test_a_lost_connection_is_not_taken_for_nodes_that_are_away(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    cluster.make_vm("here", disks=())
    cluster.fault("GET", "/nodes/{node}/qemu", "reset", times=-1)
    cluster.fault("GET", "/version", "reset", times=-1)
    with pytest.raises(VmferryError) as caught:
        provider.vms()
    assert caught.value.kind == "network"


def test_a_vm_that_goes_while_all_are_listed_is_left_out(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    kept, gone = cluster.make_vm("kept", disks=()), cluster.make_vm("gone", disks=())
    text = f"Configuration file 'nodes/{cluster.node}/qemu-server/{gone}.conf' does not exist"
    path = "/nodes/{node}/qemu/{vmid}/config"
    cluster.fault("GET", path, "refuse", match=f"/{gone}/", message=text, times=-1)
    assert [vm.id for vm in provider.vms()] == [str(kept)]
    assert refused(provider, str(gone)).kind == "not_found"


def test_a_vm_that_is_migrated_while_nodes_are_asked_is_one_and_is_found(
    cluster: ProxmoxServer, provider: ProxmoxProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.change(nodes={"far": True})
    vmid = cluster.make_vm("moved", disks=())
    session = provider._session
    get, asked = session.get, []

    def both_or_none(path: str, **given: Any) -> Any:
        told = get(path, **given)
        if path.endswith("/qemu"):
            asked.append(path)
            rows = [{"vmid": vmid, "name": "moved", "status": "stopped"}]
            return rows if len(asked) > 2 else []
        return told

    monkeypatch.setattr(session, "get", both_or_none)
    assert provider.vms_like({"name": "x"}) == []
    asked.clear()
    assert [guest.vmid for guest in lookup.found(session, ["moved"], "Looking")] == [vmid]
    assert len(asked) == 4


# --- filters, and how much is asked ----------------------------------------------------------------------------------


FILTERS: list[tuple[dict[str, str], list[str]]] = [
    ({}, ["db01", "web01", "web02"]),
    ({"name": "web*"}, ["web01", "web02"]),
    ({"tag": "prod"}, ["db01", "web01"]),
    ({"power_state": "powered_on"}, ["web02"]),
    ({"power_state": "powered_off", "name": "web*"}, ["web01"]),
    ({"power_state": "suspended"}, ["db01"]),
    ({"name": "x*"}, []),
]


def test_vms_are_filtered(cluster: ProxmoxServer) -> None:
    cluster.make_vm("web01", disks=(), tags="prod;shop")
    cluster.make_vm("web02", disks=(), running=True)
    cluster.set(cluster.make_vm("db01", disks=(), tags="prod"), lock="suspended")
    spec = ProviderSpec("proxmox", cluster.settings())
    for filters, wanted in FILTERS:
        assert [vm["name"] for vm in describe_vms(spec, None, filters)["vms"]] == wanted, filters


def test_what_does_not_fit_is_not_asked_for(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    for name in ("web01", "db01", "db02"):
        cluster.make_vm(name, disks=())
    cluster.forget_calls()
    provider.vms_like({"name": "web*"})
    asked = Counter(call["path"] for call in cluster.calls())
    assert (asked["/nodes/{node}/qemu/{vmid}/config"], asked["/cluster/resources"]) == (1, 1)


def test_storages_that_may_not_be_looked_into_leave_sizes_of_the_configuration(cluster: ProxmoxServer) -> None:
    vmid = cluster.make_vm("web01", [b"a" * MIB])
    rights = {f"/vms/{vmid}": ["VM.Audit"]}
    known = ProxmoxProvider(cluster.settings_of("few@pve", rights)).describe("web01").disks[0]
    assert (known.size, known.allocated) == (MIB, None)
    cluster.set(vmid, scsi0=cluster.vms()[vmid]["config"]["scsi0"].partition(",")[0])
    assert ProxmoxProvider(cluster.settings()).describe("web01").disks[0].size == MIB
