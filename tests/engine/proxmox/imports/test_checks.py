# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of an import before anything is made."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.finding import Finding
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.placement_options import (
    ON_PROXMOX,
    unknown_options,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.import_checks import (
    MEANS_NOTHING,
    insist_on_name,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.import_places import ImportPlaces
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import NicSpec, VmSpec
from rigs.proxmox import ProxmoxServer

from .importing import EXPORT, MIB, SMALL, Importing, a_vm

PAGE = Path(__file__).resolve().parents[4] / "docs" / "proxmox_imports.md"


def needed() -> dict[str, list[str]]:
    """By path, as the page has them for this import."""
    section = PAGE.read_text().partition("## Privileges\n")[2].partition("\n## ")[0]
    found: dict[str, list[str]] = {}
    for privilege, path in re.findall(r"^\| `([\w.]+)` \| `([\w/]+)`", section, re.MULTILINE):
        found.setdefault(path, []).append(privilege)
    return found


@pytest.fixture
def provider(pve: ProxmoxServer) -> Iterator[ProxmoxProvider]:
    """On the node: that takes no connection to it."""
    opened = ProxmoxProvider(pve.settings("node"))
    with pve.on_the_node():
        yield opened
    opened.close()


def findings(provider: ProxmoxProvider, vm: VmSpec | None = None, **placement: Any) -> Sequence[Finding]:
    placed = Placement(**{"name": "new", "storage": "local", **placement})
    return provider.check_import(vm or a_vm(SMALL), placed, EXPORT)


def errors(provider: ProxmoxProvider, vm: VmSpec | None = None, **placement: Any) -> list[tuple[str, str]]:
    return [(one.kind, one.message) for one in findings(provider, vm, **placement) if one.severity == "error"]


def test_import_that_can_be_made_has_no_error(pve: ProxmoxServer, provider: ProxmoxProvider) -> None:
    assert errors(provider) == []
    assert {one["method"] for one in pve.calls()} == {"GET"}


def test_what_means_nothing_to_proxmox_is_refused(provider: ProxmoxProvider) -> None:
    told = errors(provider, **dict.fromkeys(MEANS_NOTHING, "thin"))
    words = [f"placement.{option} means nothing to the provider proxmox." for option in MEANS_NOTHING]
    assert told == [("unsupported", sentence) for sentence in words]


@pytest.mark.parametrize("option", ON_PROXMOX)
def test_other_providers_refuse_what_only_proxmox_has(option: str) -> None:
    (told,) = unknown_options(Placement("new", **{option: 100}), "libvirt")
    assert (told.kind, told.message) == ("unsupported", f"placement.{option} means nothing to the provider libvirt.")


@pytest.mark.parametrize("name", ["web_01", "-web", "web.", "x" * 64, "büro"])
def test_name_that_is_none_of_a_host_is_refused(name: str) -> None:
    with pytest.raises(VmferryError, match="is no name of a VM") as refused:
        insist_on_name(name)
    assert refused.value.kind == "invalid_config"


@pytest.mark.parametrize("name", ["web01", "Web-01.shop.example", "x" * 63])
def test_names_of_hosts_are_taken(name: str) -> None:
    insist_on_name(name)


def test_name_that_somebody_has_is_a_conflict(pve: ProxmoxServer, provider: ProxmoxProvider) -> None:
    taken = pve.make_vm("new")
    assert errors(provider) == [("conflict", f"A VM named new exists already: {taken} on {pve.node}.")]


def test_vm_of_the_same_export_is_no_conflict(importing: Importing) -> None:
    importing.run(a_vm(), [SMALL])
    assert errors(importing.provider) == []
    importing.run(a_vm(), [SMALL], name="other", export="another")
    assert [kind for kind, _message in errors(importing.provider, name="other")] == ["conflict"]


def test_vmid_that_is_taken_is_a_conflict(pve: ProxmoxServer, provider: ProxmoxProvider) -> None:
    taken = pve.make_vm("theirs")
    assert errors(provider, vmid=taken) == [("conflict", f"The vmid {taken} is taken by theirs on {pve.node}.")]
    assert errors(provider, vmid=taken + 1) == []


def test_pool_that_is_not_there_is_told(provider: ProxmoxProvider) -> None:
    ((kind, message),) = errors(provider, resource_pool="shop")
    assert (kind, "There is no pool shop" in message) == ("not_found", True)


def test_storages_are_told(pve: ProxmoxServer, provider: ProxmoxProvider) -> None:
    ((kind, message),) = set(errors(provider, storage="away"))
    assert (kind, "There is no storage away" in message) == ("not_found", True)
    ((kind, message),) = set(errors(provider, storage=""))
    assert (kind, "nothing says which one to use" in message) == ("invalid_config", True)
    ((kind, message),) = errors(provider, storage="thin", disk_format="qcow2")
    assert (kind, "takes no disks in the format qcow2" in message) == ("invalid_config", True)
    ((kind, message),) = errors(provider, storage_map={"disk-7": "block"})
    assert (kind, "storage_map names disk-7" in message) == ("invalid_config", True)


def test_only_storage_needs_no_name(pve: ProxmoxServer, provider: ProxmoxProvider) -> None:
    others = [name for name in ImportPlaces(provider._session, Placement("new")).storages() if name != "local"]
    with changed(pve, {name: {"active": 0} for name in others}, {name: {"active": 1} for name in others}):
        assert errors(provider, storage="") == []


@pytest.mark.parametrize(
    ("allocated", "severity"), [(None, "error"), (8 * MIB, "error"), (2 * MIB, "warning"), (MIB, "warning")]
)
def test_space_is_told(pve: ProxmoxServer, provider: ProxmoxProvider, allocated: int | None, severity: str) -> None:
    vm = a_vm(SMALL)
    vm = vm.with_disks(tuple(replace(disk, size=8 * MIB, allocated=allocated) for disk in vm.disks))
    with changed(pve, {"local": {"avail": 4 * MIB}}, {"local": {"avail": 1 << 40}}):
        (told,) = [one for one in findings(provider, vm) if one.kind == "no_space"]
    assert told.severity == severity
    assert "4 MiB free" in told.message


def test_storage_without_holes_needs_all_of_a_disk(pve: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vm = a_vm(SMALL)
    vm = vm.with_disks(tuple(replace(disk, size=8 * MIB, allocated=MIB) for disk in vm.disks))
    with changed(pve, {"block": {"avail": 4 * MIB}}, {"block": {"avail": 1 << 40}}):
        (told,) = [one for one in findings(provider, vm, storage="block") if one.kind == "no_space"]
    assert told.severity == "error"


@pytest.mark.parametrize(
    ("network", "mapped", "kind"),
    [
        ("vmbr0", {}, ""),
        ("vmbr0.20", {}, ""),
        ("production", {}, "not_found"),
        ("production", {"production": "vmbr0"}, ""),
        ("production", {"production": "vmbr0.4095"}, "invalid_config"),
        ("vmbr0", {"other": "vmbr0"}, "invalid_config"),
    ],
)
def test_networks_are_told(provider: ProxmoxProvider, network: str, mapped: Mapping[str, str], kind: str) -> None:
    vm = a_vm(SMALL, nics=(NicSpec("nic-0", "", network, "virtio"),))
    assert [found for found, _message in errors(provider, vm, network_map=mapped)] == ([kind] if kind else [])


def test_node_that_is_not_there_is_told(provider: ProxmoxProvider) -> None:
    ((kind, message),) = set(errors(provider, host="pve99"))
    assert (kind, "There is no node pve99" in message) == ("not_found", True)


def test_node_that_is_offline_is_told(pve: ProxmoxServer, provider: ProxmoxProvider) -> None:
    pve.change(nodes={"pve98": False})
    told = set(errors(provider, host="pve98"))
    assert told == {("conflict", "The node pve98 is offline.")}


def test_way_to_the_node_is_tried(pve: ProxmoxServer) -> None:
    for changed_settings, kind, words in (
        ({"transport": "api"}, "unsupported", "transport api"),
        ({"transport": "node"}, "invalid_config", "is not that node"),
        ({"ssh_known_hosts": "/dev/null"}, "unauthenticated", "Host key verification failed"),
    ):
        provider = ProxmoxProvider({**pve.settings(), **changed_settings})
        ((found, message),) = errors(provider)
        provider.close()
        assert (found, words in message) == (kind, True)


def test_node_without_the_tools_is_told(pve: ProxmoxServer) -> None:
    tool = pve.commands_folder / "pvesm"
    moved, by_ssh = tool.rename(tool.with_name("away")), ProxmoxProvider(pve.settings())
    try:
        ((kind, message),) = errors(by_ssh)
    finally:
        moved.rename(tool)
        by_ssh.close()
    assert (kind, "lacks one of pvesm, qemu-nbd" in message) == ("unsupported", True)


def test_all_that_is_wrong_is_told_at_once(provider: ProxmoxProvider) -> None:
    vm = a_vm(SMALL, architecture="aarch64", nics=(NicSpec("nic-0", "", "production", "virtio"),))
    kinds = [kind for kind, _message in errors(provider, vm, name="a b", folder="x", storage="away")]
    assert sorted(set(kinds)) == ["invalid_config", "not_found", "unsupported"]
    assert len(kinds) == 5


@pytest.mark.parametrize("at", range(12))
def test_privilege_that_is_missing_is_named(pve: ProxmoxServer, at: int) -> None:
    """Each of the page is needed, and told with its path."""
    every = [(path, name) for path, names in needed().items() for name in names]
    assert len(every) == 12
    path, missing = every[at]
    given: dict[str, list[str]] = {}
    for there, name in every:
        if (there, name) != (path, missing):
            given.setdefault(there, []).append(name)
    given.setdefault("/storage", []).append("Datastore.Audit")  # or the storage is not even seen
    provider = ProxmoxProvider(pve.settings_of(f"poor{at}@pve", given, transport="node"))
    with pve.on_the_node():
        told = [one for one in findings(provider, with_drive(), power_on=True) if one.severity == "error"]
    provider.close()
    (one,) = told
    assert f"lacks {missing}." in one.message
    assert path in one.message
    assert f"--users 'poor{at}@pve'" in one.hint


def test_privileges_of_the_page_are_enough(pve: ProxmoxServer) -> None:
    provider = ProxmoxProvider(pve.settings_of("rich@pve", needed(), transport="node"))
    with pve.on_the_node():
        assert errors(provider, with_drive(), power_on=True) == []
        made = Importing(provider).run(with_drive(), [SMALL], power_on=True)
        assert made.power_state == "powered_on"
    provider.close()


def with_drive() -> VmSpec:
    return a_vm(SMALL, details={"cdroms": [{"name": "sda"}]})


@pytest.mark.parametrize(
    "row",
    [
        {"formats": {"supported": ["raw", "qcow2", "subvol"], "default": "qcow2"}},
        {"format": [{"raw": 1, "qcow2": 1, "subvol": 1}, "qcow2"]},
    ],
)
def test_formats_of_a_storage_are_read_of_every_version(row: dict[str, Any]) -> None:
    found = ImportPlaces(_Session({"storage": "s", "type": "dir", **row}), Placement("new")).storages()["s"]  # type: ignore[arg-type]
    assert (list(found.formats), found.format_of("")) == (["raw", "qcow2"], "qcow2")


@pytest.mark.parametrize(("kind", "formats"), [("nfs", ["raw", "qcow2", "vmdk"]), ("zfspool", ["raw"])])
def test_formats_that_nobody_tells_are_known(kind: str, formats: list[str]) -> None:
    found = ImportPlaces(_Session({"storage": "s", "type": kind}), Placement("new")).storages()["s"]  # type: ignore[arg-type]
    assert (list(found.formats), found.format_of("")) == (formats, "raw")


@pytest.mark.parametrize(
    ("names", "asked", "local", "chosen"),
    [
        (["pve1"], "", None, "pve1"),
        (["pve1", "pve2"], "pve1", None, "pve1"),
        (["pve1", "pve2"], "", "pve2", "pve2"),
        (["pve1", "pve2"], "", "pve3", ""),
        (["pve1", "pve2"], "", None, ""),
    ],
)
def test_node_is_that_of_the_task_or_the_one_that_answers(
    names: Sequence[str], asked: str, local: str | None, chosen: str
) -> None:
    places = ImportPlaces(_Session({}, names, local), Placement("new", host=asked))  # type: ignore[arg-type]
    if chosen:
        assert places.node == chosen
        return
    with pytest.raises(VmferryError, match="2 nodes, and nothing says on which") as refused:
        assert places.node
    assert refused.value.hint == "Set placement.host to one of pve1, pve2."


def test_node_that_this_is_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "pve2.example.com")
    assert ImportPlaces(_Session({}, ["pve1", "pve2"], "pve1"), Placement("new")).node == "pve2"  # type: ignore[arg-type]


class _Session:
    """Of nodes with one storage. `local`: that answers; None: the user may not ask."""

    address = "pve.example.com"

    def __init__(self, row: Mapping[str, Any], nodes: Sequence[str] = ("pve1",), local: str | None = None) -> None:
        self._row, self._nodes, self._local = row, nodes, local

    def doing(self, _what: str) -> Any:
        return nullcontext()

    def get(self, path: str, **_params: Any) -> Any:
        if path == "nodes":
            return [{"node": name, "status": "online"} for name in self._nodes]
        if path != "cluster/status":
            return [self._row]
        if self._local is None:
            raise VmferryError("permission_denied", "as the test wants it")
        return [{"type": "cluster", "name": "lab"}, {"type": "node", "name": self._local, "local": 1}]


@contextmanager
def changed(pve: ProxmoxServer, now: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[None]:
    pve.change(storages=now)
    yield
    pve.change(storages=after)
