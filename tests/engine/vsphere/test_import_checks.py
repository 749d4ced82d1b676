# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop an import into vSphere is told at once, and before anything is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.finding import Finding
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.placement_options import (
    IN_AN_INVENTORY,
    unknown_options,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import NicSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import import_places
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.properties import Rows, retrieve
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from rigs.vsphere import Leftovers, VSphere

from .importing import EXPORT, SMALL, a_vm

pytestmark = pytest.mark.slow
WHERE = {"host": "DC0_H0", "storage": "LocalDS_0"}


@pytest.fixture
def whole(vcenter: VSphere) -> Iterator[VSphere]:
    yield vcenter
    vcenter.settings(denied=[])
    for name in ("LocalDS_0", "LocalDS_1"):
        vcenter.change_datastore(name)


def there(vcenter: VSphere) -> Leftovers:
    """This test's own session is none."""
    return replace(vcenter.leftovers(), sessions=0)


def found(provider: VsphereProvider, vm: VmSpec | None = None, **placement: Any) -> list[Finding]:
    placed = Placement(**{"name": "checked", **WHERE, **placement})
    return list(provider.check_import(vm or a_vm(SMALL), placed, EXPORT))


def errors(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(one.kind, one.message) for one in findings if one.severity == "error"]


def test_nothing_is_found_where_all_is_well(whole: VSphere, provider: VsphereProvider) -> None:
    before = there(whole)
    assert found(provider) == []
    assert there(whole) == before


def test_cluster_without_drs_needs_a_host(
    whole: VSphere, provider: VsphereProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else only ImportVApp would say so: that a parameter is not correct. All clusters of the simulator have DRS."""

    def without_drs(*asked: Any) -> Rows:
        rows = retrieve(*asked)
        choices = {"configurationEx.drsConfig.enabled": False}
        return {moref: replace(row, values={**row.values, **choices}) for moref, row in rows.items()}

    asked = {"cluster": "DC0_C0", "host": ""}
    assert errors(found(provider, **asked)) == []
    monkeypatch.setattr(import_places, "retrieve", without_drs)
    (told,) = [one for one in found(provider, **asked) if one.severity == "error"]
    assert (told.kind, "DC0_C0 has no DRS" in told.message) == ("invalid_config", True)
    assert "DC0_C0_H0, DC0_C0_H1" in told.hint
    assert errors(found(provider, cluster="DC0_C0", host="DC0_C0_H1")) == []


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        ({"folder": "/DC0/vm/Nowhere"}, "not_found", "no folder /DC0/vm/Nowhere"),
        ({"folder": "/DC0/host"}, "invalid_config", "none of VMs"),
        ({"cluster": "Nowhere"}, "not_found", "no cluster Nowhere"),
        ({"host": "Nowhere"}, "not_found", "no host Nowhere"),
        ({"resource_pool": "Nowhere"}, "not_found", "no resource pool Nowhere"),
        ({"resource_pool": "Resources"}, "conflict", "resource pool Resources"),
        ({"cluster": "DC0_C0"}, "invalid_config", "not of the same cluster or host"),
        ({"host": ""}, "invalid_config", "Nothing says on which cluster, host or resource pool"),
        ({"storage": "Nowhere"}, "not_found", "no datastore or datastore cluster Nowhere"),
        ({"storage": ""}, "invalid_config", "nothing says which one to use"),
        ({"storage": "DC0_POD0"}, "not_found", "No datastore of the datastore cluster DC0_POD0"),
        ({"storage_map": {"sdz": "LocalDS_1"}}, "invalid_config", "storage_map names sdz"),
        ({"storage_map": {"vda": "Nowhere"}}, "not_found", "no datastore or datastore cluster Nowhere"),
        ({"network_map": {"VM Network": "Nowhere"}}, "not_found", "no network Nowhere"),
        ({"network_map": {"Nowhere": "VM Network"}}, "invalid_config", "network_map names Nowhere"),
        ({"disk_bus": "virtio"}, "invalid_config", "virtio is no disk bus of vSphere"),
        ({"disk_format": "qcow2"}, "invalid_config", "VMDKs, not qcow2"),
        ({"disk_provisioning": "sparse"}, "invalid_config", "sparse is no way to make disks"),
        ({"cpu": 256}, "unsupported", "256 processors"),
        ({"name": "a/b"}, "invalid_config", "a slash, a backslash or a percent sign"),
        ({"name": "n" * 81}, "invalid_config", "81 characters"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_meant_is_told_before_anything_is_made(
    whole: VSphere, provider: VsphereProvider, asked: dict[str, Any], kind: str, words: str
) -> None:
    before = there(whole)
    told = errors(found(provider, **asked))
    assert [(one, words in text) for one, text in told] == [(kind, True)], told
    assert there(whole) == before


def test_folders_that_are_offered_are_those_that_take_vms(whole: VSphere, provider: VsphereProvider) -> None:
    (told,) = found(provider, folder="/DC0/vm/Nowhere")
    offered = told.hint.removeprefix("There are ").rstrip(".").split(", ")
    assert "vm" in offered
    assert not {"host", "datastore", "network"} & set(offered)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"architecture": "aarch64"}, "unsupported", "machine of aarch64"),
        ({"disks": ()}, "unsupported", "has no disk"),
        ({"nics": (NicSpec("nic-0", "", "blue", "e1000"),)}, "not_found", "no network blue for nic-0"),
        ({"disks": tuple(replace(a_vm(SMALL).disks[0], bus="ide") for _ in range(5))}, "unsupported", "5 disks"),
        ({"disks": (replace(a_vm(SMALL).disks[0], size=63 << 40, allocated=0),)}, "unsupported", "has 69269232549888"),
        ({"disks": (replace(a_vm(SMALL).disks[0], size=4 << 40, allocated=3 << 40),)}, "unsupported", "as a stream"),
    ],
    ids=["architecture", "disks", "networks", "ide", "size", "stream"],
)
def test_vm_that_vsphere_cannot_have_is_refused(
    whole: VSphere, provider: VsphereProvider, changes: dict[str, Any], kind: str, words: str
) -> None:
    told = errors(found(provider, replace(a_vm(SMALL), **changes)))
    assert [(one, words in text) for one, text in told] == [(kind, True)], told


def test_everything_is_told_at_once(whole: VSphere, provider: VsphereProvider) -> None:
    whole.make_vm("seen-taken")
    whole.settings(denied=["VApp.Import", "Network.Assign", "VirtualMachine.Interact.PowerOn"])
    whole.change_datastore("LocalDS_0", free=1000)
    vm = replace(a_vm(SMALL), tpm=True, nics=(NicSpec("nic-0", "", "blue"), NicSpec("nic-1", "", "VM Network")))
    findings = found(provider, vm, name="seen-taken", disk_format="raw", power_on=True)
    assert sorted(kind for kind, _text in errors(findings)) == [
        "conflict", "invalid_config", "no_space", "not_found", "permission_denied", "permission_denied",
        "permission_denied",
    ]  # fmt: skip
    assert [one.message for one in findings if one.severity == "warning"] == [
        "The TPM of web01, and what it keeps, is left behind."
    ]
    assert all(one.hint for one in findings if one.severity == "error")


def test_privilege_to_start_is_asked_only_for_who_wants_to(whole: VSphere, provider: VsphereProvider) -> None:
    whole.settings(denied=["VirtualMachine.Interact.PowerOn"])
    assert found(provider) == []
    assert [kind for kind, _text in errors(found(provider, power_on=True))] == ["permission_denied"]


@pytest.mark.parametrize(("how", "severity"), [("", "warning"), ("thin", "warning"), ("thick", "error")])
def test_room_is_what_disks_take_at_first(whole: VSphere, provider: VsphereProvider, how: str, severity: str) -> None:
    vm = a_vm(SMALL)
    vm = vm.with_disks((replace(vm.disks[0], size=8 << 20, allocated=1 << 20),))
    whole.change_datastore("LocalDS_0", free=2 << 20)
    (told,) = found(provider, vm, disk_provisioning=how)
    assert (told.severity, told.kind, "LocalDS_0 has 2 MiB free" in told.message) == (severity, "no_space", True)


def test_what_becomes_another_thing_is_a_warning(whole: VSphere, provider: VsphereProvider) -> None:
    vm = replace(a_vm(SMALL, buses=["virtio"]), nics=(NicSpec("nic-0", "", "VM Network", "virtio"),))
    told = found(provider, vm, firmware="uefi")
    assert [one.severity for one in told] == ["warning"] * 3
    assert "goes on sata" in told[0].message
    assert "with uefi it may not boot" in told[1].message
    assert "becomes e1000e" in told[2].message


def test_uuid_that_nobody_knows_cannot_be_kept(whole: VSphere, provider: VsphereProvider) -> None:
    (told,) = found(provider, replace(a_vm(SMALL), provider="appliance", id="web"), keep_uuid=True)
    assert (told.kind, "Nobody knows the UUID" in told.message) == ("invalid_config", True)


def test_vm_made_of_the_same_is_refused_only_for_what_it_can_not_become(
    whole: VSphere, provider: VsphereProvider
) -> None:
    whole.make_vm("seen-same")
    vm = provider.describe("seen-same")
    assert provider.made_otherwise(vm, Placement("seen-same", storage="LocalDS_1")) == ""
    assert "with the firmware bios" in provider.made_otherwise(vm, Placement("seen-same", firmware="uefi"))
    for wrong in (Placement("seen-same", disk_bus="virtio"), Placement("seen-same", disk_format="raw")):
        with pytest.raises(VmferryError) as refused:
            provider.made_otherwise(vm, wrong)
        assert refused.value.kind == "invalid_config"


@pytest.mark.parametrize("option", IN_AN_INVENTORY)
def test_other_providers_refuse_what_only_an_inventory_has(option: str) -> None:
    (told,) = unknown_options(Placement("new", **{option: "thin"}), "libvirt")
    assert (told.kind, told.message) == ("unsupported", f"placement.{option} means nothing to the provider libvirt.")
    assert list(unknown_options(Placement("new"), "libvirt")) == []


@pytest.mark.parametrize("option", IN_AN_INVENTORY)
def test_other_providers_refuse_it_of_a_vm_that_is_there_already_too(option: str) -> None:
    libvirt = LibvirtProvider({"uri": "test:///default"})
    assert libvirt.made_otherwise(a_vm(SMALL), Placement("new")) == ""
    with pytest.raises(VmferryError, match=f"placement.{option} means nothing") as refused:
        libvirt.made_otherwise(a_vm(SMALL), Placement("new", **{option: "thin"}))
    assert refused.value.kind == "unsupported"
