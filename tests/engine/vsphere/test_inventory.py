# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs as vCenter has them: described in our words, found by all that they are called, and in few round trips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import properties
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from rigs.vsphere import Disk, VSphere

pytestmark = pytest.mark.slow
MIB = 1024 * 1024
MANY = 200
TWICE = "1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77"


@pytest.fixture(scope="module", autouse=True)
def machines(server: VSphere) -> dict[str, str]:
    """Their references by name."""
    return {
        "db01": server.make_vm(
            "db01",
            [Disk(size=4 * MIB), Disk(size=2 * MIB, mode="independent_persistent", thin=False, controller="nvme")],
            running=True,
            tracking=True,
            networks=["VM Network", "DC0_DVPG0"],
            firmware="efi",
            secure_boot=True,
            tpm=True,
            cpus=3,
            memory=256,
            guest_id="debian12_64Guest",
            annotation="The shop's database",
            uuid=TWICE,
        ),
        "tmpl": server.make_vm("tmpl", template=True, version="vmx-13"),
        "a%b/c": server.make_vm("a%25b%2fc"),
    }


def test_vm_is_described_in_the_same_words_as_any_other(
    vcenter: VSphere, provider: VsphereProvider, machines: dict[str, str]
) -> None:
    vm = provider.describe("db01")
    known = vcenter.names()
    assert (vm.provider, vm.name, vm.path) == ("vsphere", "db01", "/DC0/vm/db01")
    assert (vm.power_state, vm.cpu, vm.memory_mb, vm.machine) == ("powered_on", 3, 256, "vmx-19")
    assert (vm.firmware, vm.secure_boot, vm.tpm, vm.guest_agent) == ("uefi", True, True, True)
    assert vm.host in known["HostSystem"]
    details = vm.details
    assert (details["moref"], details["datacenter"], details["folder"]) == (machines["db01"], "DC0", "/DC0/vm")
    assert (details["hardware_version"], details["description"]) == ("vmx-19", "The shop's database")
    assert (details["template"], details["encrypted"], details["consolidation_needed"]) == (False, False, False)
    assert (details["change_tracking"], details["connection_state"]) == (True, "connected")
    assert details["tools"]["running"] == "guestToolsRunning"
    assert details["resource_pool"] == "Resources"
    assert vm.as_dict()["storage_bytes"] == 6 * MIB


def test_disks_are_told_with_where_they_are_and_in_which_mode(provider: VsphereProvider) -> None:
    system, data = provider.describe("db01").disks
    assert (system.id, system.name, system.size, system.boot) == ("disk-0", "scsi0:0", 4 * MIB, True)
    assert (system.format, system.bus, system.storage) == ("vmdk", "scsi", "LocalDS_0")
    assert system.source.startswith("[LocalDS_0] db01/")
    assert (data.id, data.name, data.size, data.bus, data.boot) == ("disk-1", "nvme0:0", 2 * MIB, "nvme", False)
    assert (system.details["mode"], data.details["mode"]) == ("persistent", "independent_persistent")
    assert (system.details["in_snapshots"], data.details["in_snapshots"]) == (True, False)
    assert (system.details["thin"], data.details["thin"]) == (True, False)
    assert (system.details["controller"], data.details["controller"]) == ("pvscsi", "nvme")
    assert (system.details["backing"], system.details["shared"], system.details["rdm_mode"]) == ("flat", False, "")
    assert system.details["datastore_kind"] != ""


def test_network_cards_are_told_with_their_networks(provider: VsphereProvider) -> None:
    cards = provider.describe("db01").nics
    assert [(card.id, card.network, card.kind) for card in cards] == [
        ("nic-0", "VM Network", "standard"),
        ("nic-1", "DC0_DVPG0", "distributed"),
    ]
    assert {card.model for card in cards} == {"vmxnet3"}
    assert len({card.mac for card in cards}) == 2


def test_template_and_old_hardware_are_told(provider: VsphereProvider) -> None:
    vm = provider.describe("tmpl")
    assert (vm.details["template"], vm.machine, vm.firmware, vm.secure_boot) == (True, "vmx-13", "bios", False)


def test_names_are_as_people_wrote_them_and_paths_as_vsphere_keeps_them(provider: VsphereProvider) -> None:
    vm = provider.describe("a%b/c")
    assert (vm.name, vm.path) == ("a%b/c", "/DC0/vm/a%25b%2fc")
    assert provider.describe(vm.path).id == vm.id


def test_vm_is_found_by_name_path_uuid_and_moref(provider: VsphereProvider, machines: dict[str, str]) -> None:
    vm = provider.describe("db01")
    ways = ["/DC0/vm/db01", "DC0/vm/db01", vm.details["bios_uuid"], vm.details["bios_uuid"].upper(), machines["db01"]]
    for way in [*ways, vm.id, vm.details["instance_uuid"]]:
        assert provider.describe(way).details["moref"] == machines["db01"], way
    assert vm.details["bios_uuid"] == TWICE


@pytest.mark.parametrize("wrong", ["nobody", "/DC0/vm/nobody", "vm-999999", "0" * 8 + "-0000-0000-0000-" + "0" * 12])
def test_what_is_not_there_is_told(vcenter: VSphere, provider: VsphereProvider, wrong: str) -> None:
    with pytest.raises(VmferryError, match=f"no VM {wrong} at {vcenter.host}") as refused:
        provider.describe(wrong)
    assert refused.value.kind == "not_found"


def test_vms_of_one_name_are_told_apart_by_path(vcenter: VSphere, provider: VsphereProvider) -> None:
    folders = ["twin-a", "twin-b"]
    references = [vcenter.make_vm("twin", folder=folder) for folder in folders]
    with pytest.raises(VmferryError, match=r"2 VMs at .* are called twin: ") as refused:
        provider.describe("twin")
    assert refused.value.kind == "conflict"
    for folder, reference in zip(folders, references):
        path = f"/DC0/vm/{folder}/twin"
        assert path in refused.value.message
        assert provider.describe(path).details["moref"] == reference


def test_what_stands_for_one_vm_and_names_another_means_none(vcenter: VSphere, provider: VsphereProvider) -> None:
    first = vcenter.make_vm("meant-first", uuid="5b0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e01")
    of_vcenter = provider.describe(first).details["instance_uuid"]
    vcenter.make_vm(first, folder="sly")  # a VM that somebody called vm-57
    vcenter.make_vm("sly-copy", uuid=of_vcenter)
    for called in (first, of_vcenter, of_vcenter.upper()):
        with pytest.raises(VmferryError, match=f"2 VMs at .* are called {called}: ") as refused:
            provider.describe(called)
        assert (refused.value.kind, "by its path" in refused.value.hint) == ("conflict", True)
    assert provider.describe("/DC0/vm/meant-first").details["moref"] == first


def test_folders_are_filtered_by_pattern_and_tags_refused(vcenter: VSphere, settings: dict[str, Any]) -> None:
    vcenter.make_vm("deep", folder="Prod/Web")
    vcenter.make_vm("shallow", folder="Prod")
    spec = ProviderSpec("vsphere", settings)

    def found(pattern: str) -> list[str]:
        return [vm["name"] for vm in describe_vms(spec, None, {"folder": pattern})["vms"]]

    assert found("/DC0/vm/Prod*") == ["deep", "shallow"]
    vcenter.make_vm("neighbour", folder="Production")
    assert found("/DC0/vm/Prod*") == ["deep", "neighbour", "shallow"]
    assert found("/DC0/vm/Prod") == ["shallow"]
    assert found("/DC0/vm/Prod/*") == ["deep"]
    with pytest.raises(VmferryError, match="on vsphere cannot be found by a tag") as refused:
        describe_vms(spec, None, {"tag": "prod"})
    assert refused.value.kind == "unsupported"


def test_several_are_described_in_the_order_asked_for(provider: VsphereProvider) -> None:
    assert [vm.name for vm in provider.describe_each(["tmpl", "db01", "tmpl"])] == ["tmpl", "db01", "tmpl"]


@pytest.fixture(scope="module")
def large_site() -> Iterator[VSphere]:
    with VSphere() as started:
        for number in range(MANY):
            started.make_vm(f"vm{number:03d}", [Disk(size=MIB)], folder=f"f{number % 3}")
        yield started


def of(site: VSphere) -> dict[str, Any]:
    return {
        "hostname": site.host,
        "port": site.port,
        "username": site.user,
        "password": site.password,
        "thumbprint": site.thumbprint,
    }


def test_hundreds_of_vms_take_as_many_round_trips_as_one(large_site: VSphere) -> None:
    spec = ProviderSpec("vsphere", of(large_site))
    large_site.forget_calls()
    every = describe_vms(spec, None, {})["vms"]
    all_of_them = [call.method for call in large_site.calls()]
    names = [f"vm{number:03d}" for number in range(MANY)]
    assert [vm["name"] for vm in every] == names
    assert {vm["path"] for vm in every} == {f"/DC0/vm/f{number % 3}/vm{number:03d}" for number in range(MANY)}
    assert all(len(vm["disks"]) == 1 and vm["host"] and vm["disks"][0]["storage"] for vm in every)
    assert all_of_them.count("RetrievePropertiesEx") == 1
    assert len(all_of_them) <= 6, all_of_them
    large_site.forget_calls()
    assert [vm["name"] for vm in describe_vms(spec, names[:20], {})["vms"]] == names[:20]
    assert len(large_site.calls()) <= 7, large_site.calls()


def test_answers_in_pages_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator answers in one page whatever is asked; so its side is told here, as the API's reference has it."""
    from pyVmomi import vim, vmodl

    query = vmodl.query.PropertyCollector

    def content_of(moref: str, name: str) -> Any:
        one = vmodl.DynamicProperty(name="name", val=name)
        return query.ObjectContent(obj=vim.VirtualMachine(moref, None), propSet=[one])

    class Collector:
        asked: list[Any] = []  # noqa: RUF012

        def RetrievePropertiesEx(self, specs: Any, options: Any) -> Any:
            self.asked.append(options.maxObjects)
            return query.RetrieveResult(token="more", objects=[content_of("vm-1", "one")])

        def ContinueRetrievePropertiesEx(self, token: str) -> Any:
            self.asked.append(token)
            return query.RetrieveResult(objects=[content_of("vm-2", "two")])

    class Content:
        propertyCollector = Collector()

    start = [vim.VirtualMachine("vm-1", None)]
    rows = properties.retrieve(Content(), start, (), {"VirtualMachine": ["name"]})
    assert {moref: row.get("name") for moref, row in rows.items()} == {"vm-1": "one", "vm-2": "two"}
    assert Collector.asked == [properties.PAGE, "more"]


def test_esxi_host_is_its_own_inventory() -> None:
    with VSphere(esxi=True) as host:
        reference = host.make_vm("alone", [Disk(size=MIB)], running=True)
        with closing(VsphereProvider(of(host))) as provider:
            vm = provider.describe("alone")
            assert provider.describe(reference).id == vm.id
            assert (vm.details["moref"], vm.path) == (reference, "/ha-datacenter/vm/alone")
            assert (vm.details["datacenter"], vm.details["cluster"]) == ("ha-datacenter", "")
            assert vm.host != ""
            assert [disk.size for disk in vm.disks] == [MIB]
