# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The privileges that the page asks for are what the schema asks of the calls made: none missing, none too much."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.bring_vm import bring_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ProviderSpec,
    SnapshotRequest,
    VmRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_snapshots import list_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from rigs.proxmox import ProxmoxServer

PAGE = Path(__file__).resolve().parents[3] / "docs" / "proxmox.md"
LOOK = "`vm_info`, `disk_snapshot_info`"
AGENT = "whether guest agents answer, also"
SIZES = "sizes of disks as their storages tell them, also"
SNAPSHOT = "`disk_snapshot`, also"
POWER = "`vm` with `state: powered_on` or `powered_off`, also"
REMOVAL = "`vm` with `state: absent`, also"
OF_8 = {"VM.Monitor"}  # in the place of another, which the schema of Proxmox VE 9 does not know
UNSEEN = {"VM.Config.Disk"}  # what is listed of a storage is cut down by code that no schema describes


def table() -> dict[str, set[str]]:
    """By the first column."""
    section = PAGE.read_text().partition("## Privileges\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.*?`\w+\.\w+`.*?) \|", section, re.MULTILINE)
    return {row: set(re.findall(r"`(\w+\.[\w.]+)`", cell)) for row, cell in rows}


def asked(cluster: ProxmoxServer) -> list[set[str]]:
    """Of each call, the privileges of which it needs one, or all."""
    needed: list[set[str]] = []
    for call in cluster.calls():
        check = (call["rule"] or {}).get("check")
        if check and set(check[2]) not in needed:
            needed.append(set(check[2]))
    return needed


def look(spec: ProviderSpec, vmid: int) -> None:
    (vm,) = describe_vms(spec, [str(vmid)], {})["vms"]
    assert vm["guest_agent"]
    describe_vms(spec, None, {})
    list_snapshots(spec, str(vmid), "")


def snapshot(spec: ProviderSpec, vmid: int) -> None:
    for state in ("present", "reverted", "absent"):
        manage_snapshots(SnapshotRequest(spec, str(vmid), state, name="one"), check_mode=True)
        assert manage_snapshots(SnapshotRequest(spec, str(vmid), state, name="one"), check_mode=False)["changed"]


def bring(spec: ProviderSpec, vmid: int, *states: Any) -> None:
    for state in states:
        assert bring_vm(VmRequest(spec, str(vmid), state, timeout=30.0, remove_disks=True), False)["changed"]


def test_each_module_needs_what_its_row_says_and_nothing_else(cluster: ProxmoxServer) -> None:
    rows = table()
    assert set(rows) >= {LOOK, AGENT, SIZES, SNAPSHOT, POWER, REMOVAL}
    vmid = cluster.make_vm("web01", running=True, format="qcow2", agent="1")
    cluster.agent(vmid)
    known = rows[LOOK] | rows[AGENT] | rows[SIZES]
    for row, act in (
        (LOOK, look),
        (SNAPSHOT, snapshot),
        (POWER, lambda spec, vmid: bring(spec, vmid, "powered_on", "powered_off")),
        (REMOVAL, lambda spec, vmid: bring(spec, vmid, "absent")),
    ):
        given = (known | rows[row]) - OF_8
        paths = {f"/vms/{vmid}": [one for one in given if one.startswith("VM.")], "/storage": ["Datastore.Audit"]}
        settings = cluster.settings_of(f"{row.encode().hex()[:16]}{vmid}@pve", paths)
        cluster.forget_calls()
        act(ProviderSpec("proxmox", settings), vmid)
        needed = asked(cluster)
        assert all(one & given for one in needed), row
        used = set().union(*needed)
        assert rows[row] <= used, row
        if row == LOOK:
            assert known - OF_8 - UNSEEN <= used


def test_the_example_of_a_role_has_privileges_of_the_table() -> None:
    (role,) = re.findall(r'pveum role add vmferry --privs "(.+)"', PAGE.read_text())
    rows = table()
    wanted = rows[LOOK] | rows[AGENT] | rows[SIZES] | rows[SNAPSHOT] | rows[POWER]
    assert set(role.split()) == wanted - OF_8 - UNSEEN
