# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The privileges that the page asks for exports are those that the calls made need, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from rigs.proxmox import ProxmoxServer

from .exporting import an_export, contents, disk

PAGE = Path(__file__).resolve().parents[3] / "docs" / "proxmox_exports.md"
OF_8 = {"VM.Monitor"}  # in the place of another, which the schema of Proxmox VE 9 does not know
CUT_DOWN = {"Datastore.Audit"}  # storages that a user may not look into are left out, where nothing is lost by it


def rows() -> list[set[str]]:
    section = PAGE.read_text().partition("## Privileges\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| .+? \| (.*?`\w+\.\w+`.*?) \|", section, re.MULTILINE)
    return [set(re.findall(r"`(\w+\.[\w.]+)`", cell)) - OF_8 for cell in found]


def test_exports_need_what_the_page_says_and_nothing_else(cluster: ProxmoxServer) -> None:
    always, frozen, running = rows()
    for on, given in ((False, always), (True, always | frozen | running)):
        vmid = cluster.make_vm("web", [disk()], on, agent="1")
        cluster.agent(vmid)
        paths = {f"/vms/{vmid}": [one for one in given if one.startswith("VM.")]}
        if on:
            paths["/storage"] = sorted(running)
        provider = ProxmoxProvider(cluster.settings_of(f"export{vmid}@pve", paths))
        cluster.forget_calls()
        vm = provider.describe(str(vmid))
        assert not [one for one in provider.check_export(vm, vm.disks, "auto") if one.severity != "info"]
        provider.clean_up(vm)
        with an_export(provider, vmid, keep=True) as session:
            assert contents(session)["scsi0"] == cluster.disk_bytes(vmid, 0)
            assert session.consistency == ("quiesced" if on else "powered_off")
            session.confirm()
        provider.close()
        checks = [(call["rule"] or {}).get("check") for call in cluster.calls()]
        needed = [set(check[2]) for check in checks if check]
        assert not [one for one in needed if not one & (given | CUT_DOWN)]
        used = set().union(*needed)
        assert given - CUT_DOWN <= used
