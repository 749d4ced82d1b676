# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many VMs, and hypervisors that choose theirs."""

from __future__ import annotations

import libvirt

from rigs.libvirt import LibvirtRig
from rigs.ports import free_port

from .fleet_rig import Fleet, most_at_once, off_vms


def tag(rig: LibvirtRig, vm: str, word: str) -> None:
    kind, scope = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_CONFIG
    domain = rig.connect().lookupByName(vm)
    domain.setMetadata(kind, f"<tags><tag>{word}</tag></tags>", "vmferry", "urn:vmferry:tags:1", scope)


def test_thirty_vms_are_exported_five_at_once(fleet: Fleet, rig: LibvirtRig) -> None:
    names = [f"vm{number:02}" for number in range(30)]
    fleet.add_hosts(names, "kvm01", export_fleet_max_jobs=5)
    for number, name in enumerate(names[:8]):  # limits of their own, that none shares: each of them lasts seconds
        fleet.hosts[name]["export_fleet_bandwidth_limit"] = f"{160 + number}KiB/s"
    with off_vms(rig, names):
        ended = fleet.run(forks=8)
    assert ended.rc == 0, ended.output
    assert ended.changed == set(names)
    assert fleet.exports() == names
    assert most_at_once(fleet.exported_when()) == 5


def test_one_of_several_groups_is_chosen(fleet: Fleet, rig: LibvirtRig) -> None:
    names = ["db01", "site01", "site02"]
    fleet.add_hosts(names, "kvm01")
    fleet.groups = {"web": ["site01", "site02"], "db": ["db01"], "old": ["site02"]}
    with off_vms(rig, names):
        ended = fleet.run(export_fleet_hosts="web:!old")
    assert ended.rc == 0, ended.output
    assert fleet.exports() == ["site01"]
    assert ended.states() == {"site01": "exported"}


def test_hypervisors_choose_their_vms_and_each_failure_is_kept(fleet: Fleet, rig: LibvirtRig) -> None:
    names = ["app01", "app02", "app03", "db01", "db02", "mail01", "other"]
    fleet.hosts = {
        "kvm01": {"export_fleet_filters": {"name": "app*", "power_state": "powered_off"}},
        "kvm02": {"export_fleet_filters": [{"name": "db01"}, {"name": "db*"}, {"tag": "prod"}]},
        "kvm03": {"export_fleet_filters": {"name": "no-such-*"}},
    }
    fleet.workers = dict.fromkeys(fleet.hosts, fleet.workers["kvm01"])
    with off_vms(rig, names):
        (rig.directory / "app02.raw").unlink()
        tag(rig, "mail01", "prod")
        ended = fleet.run()
    assert ended.rc == 2
    assert ended.failed == {"kvm01"}
    assert ended.changed == {"kvm01", "kvm02"}
    assert fleet.exports() == ["app01", "app03", "db01", "db02", "mail01"]
    assert "app02" in ended.line("kvm01/app02")
    assert "full" in ended.line("kvm02/db01")
    assert "No VM of this host fits" in ended.line("kvm03", table=0)


def test_a_hypervisor_that_cannot_be_asked_fails_and_the_others_go_on(fleet: Fleet, rig: LibvirtRig) -> None:
    working = fleet.workers["kvm01"]
    nowhere = {"export_fleet_libvirt": {"uri": f"qemu:///session?socket={fleet.folder}/no-such-socket"}}
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": free_port()}
    fleet.workers = {"kvm01": working, "kvm02": {**working, **nowhere}, "kvm03": {**working, **gone}}
    fleet.hosts = {host: {"export_fleet_filters": {"name": "app*"}} for host in fleet.workers}
    with off_vms(rig, ["app01"]):
        ended = fleet.run()
    assert ended.rc == 2
    assert ended.failed == {"kvm02", "kvm03"}
    assert fleet.exports() == ["app01"]
    assert "no-such-socket" in ended.line("kvm02")
    assert "Connection refused" in ended.line("kvm03")
