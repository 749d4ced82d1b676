# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stops or weakens an export is told before it begins, and nothing is changed for that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Consistency
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.finding import Finding
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from rigs.proxmox import ProxmoxServer

from .exporting import MIB, an_export

DISK = bytes(MIB)


def findings(
    provider: ProxmoxProvider, vmid: int, consistency: Consistency = "auto", severity: str = "error"
) -> Sequence[Finding]:
    vm = provider.describe(str(vmid))
    return [one for one in provider.check_export(vm, vm.disks, consistency) if one.severity == severity]


def test_nothing_is_wrong_with_most_vms_and_looking_changes_nothing(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    off, on = cluster.make_vm("off", [DISK]), cluster.make_vm("on", [DISK], True)
    cluster.forget_calls()
    assert not findings(provider, off)
    assert not findings(provider, on)
    assert not findings(provider, off, severity="warning")
    assert {one["method"] for one in cluster.calls()} <= {"GET"}
    assert not cluster.leftovers()


@pytest.mark.parametrize(
    ("running", "consistency", "config", "kind", "said"),
    [
        (False, "auto", {"lock": "backup"}, "busy", "locked in Proxmox VE (backup)"),
        (True, "powered_off", {}, "conflict", "not powered_off"),
        (True, "quiesced", {}, "unsupported", "cannot be quiesced"),
    ],
)
def test_what_stops_an_export(
    cluster: ProxmoxServer,
    provider: ProxmoxProvider,
    running: bool,
    consistency: Consistency,
    config: dict[str, Any],
    kind: str,
    said: str,
) -> None:
    vmid = cluster.make_vm("web", [DISK], running)
    cluster.set(vmid, **config)
    (found,) = findings(provider, vmid, consistency)
    assert found.kind == kind
    assert found.hint
    assert said in found.message


def test_a_guest_that_cannot_be_frozen_is_a_warning_unless_it_has_to_be(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web", [DISK], True)
    (found,) = findings(provider, vmid, severity="warning")
    assert "will be crash consistent" in found.message
    assert not findings(provider, vmid, "crash_consistent", severity="warning")


def test_what_has_no_room_for_what_is_overwritten_is_said(cluster: ProxmoxServer) -> None:
    vmid = cluster.make_vm("web", [DISK], True)
    cluster.change(storages={"local": {"type": "rbd"}})
    try:
        for chosen, said in (("", "cannot be kept on local"), ("nowhere", "is not there"), ("other", "")):
            provider = ProxmoxProvider({**cluster.settings(), "fleecing_storage": chosen})
            found = findings(provider, vmid)
            provider.close()
            assert [said in one.message for one in found] == [True] * bool(said)
    finally:
        cluster.change(storages={"local": {"type": "dir"}})


def test_a_node_that_cannot_be_reached_is_said(cluster: ProxmoxServer) -> None:
    vmid = cluster.make_vm("web", [DISK])
    for changed, kind in (({"transport": "api"}, "unsupported"), ({"ssh_known_hosts": "/dev/null"}, "unauthenticated")):
        provider = ProxmoxProvider({**cluster.settings(), **changed})
        (found,) = findings(provider, vmid)
        provider.close()
        assert (found.kind, bool(found.hint)) == (kind, True)


def test_an_export_that_is_under_way_is_said(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web", [DISK])
    with an_export(provider, vmid):
        (found,) = findings(provider, vmid)
    assert (found.kind, "in use by export job" in found.message) == ("busy", True)
    assert not findings(provider, vmid)


def test_what_is_not_exported_is_told(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web", [DISK, DISK])
    cluster.set(vmid, ide2="local:cloudinit,media=cdrom")
    vm = provider.describe(str(vmid))
    told = [one.message for one in provider.check_export(vm, vm.disks[:1], "auto") if one.severity == "info"]
    assert any("cloud-init drive of web" in one for one in told)
    assert "scsi1 of web is not exported." in told
