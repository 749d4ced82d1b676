# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A failure is told and counted, and stops no other VM."""

from __future__ import annotations

import json

import pytest

from rigs.libvirt import LibvirtRig
from rigs.ports import free_port

from .fleet_rig import Fleet, off_vms

SLOWLY = {"export_fleet_bandwidth_limit": "1MiB/s", "export_fleet_verify": "none"}


def test_one_that_fails_is_the_only_one_marked_and_the_others_are_exported(fleet: Fleet, rig: LibvirtRig) -> None:
    fleet.add_hosts(["app01", "app02", "app03"], "kvm01")
    with off_vms(rig, ["app01", "app03"]):
        ended = fleet.run()
    assert ended.rc == 2
    assert ended.failed == {"app02"}
    assert ended.changed == {"app01", "app03"}
    assert fleet.exports() == ["app01", "app03"]
    assert ended.states() == {"app01": "exported", "app02": "failed", "app03": "exported"}
    assert "There is no VM app02" in ended.line("app02", table=0), "the plan says it before the first byte"
    assert ended.output.count("\nHint: List the VMs that are there with vmferry.migrate.vm_info.\n") == 2, (
        "in each table"
    )
    assert "full" in ended.line("app01")
    assert f"{fleet.url}/app01-" in ended.line("app01")


def test_when_all_fail_the_summary_is_shown_all_the_same(fleet: Fleet) -> None:
    fleet.add_hosts(["app01", "app02"], "kvm01")
    ended = fleet.run()
    assert ended.rc == 2
    assert ended.failed == {"app01", "app02"}
    assert "failed" in ended.line("app01")
    assert "failed" in ended.line("app02")
    assert fleet.records() == [], "nothing was begun"


def test_a_worker_that_cannot_be_reached_fails_its_vms_and_no_others(fleet: Fleet, rig: LibvirtRig) -> None:
    fleet.workers["kvm02"] = {
        **fleet.workers["kvm01"],
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": free_port(),
    }
    fleet.add_hosts(["app01", "app02"], "kvm01")
    fleet.add_hosts(["db01", "db02"], "kvm02")
    with off_vms(rig, ["app01", "app02", "db01", "db02"]):
        ended = fleet.run()
    assert ended.rc == 2
    assert ended.failed == {"db01", "db02"}
    assert fleet.exports() == ["app01", "app02"]
    assert "Connection refused" in ended.line("db01")
    assert ended.row("db01")["error"]["kind"] == "network"


def test_where_all_must_be_well_one_finding_keeps_every_vm_from_being_exported(fleet: Fleet, rig: LibvirtRig) -> None:
    fleet.add_hosts(["app01", "app02"], "kvm01")
    with off_vms(rig, ["app01"]):
        ended = fleet.run(export_fleet_preflight="require")
    assert ended.rc == 2
    assert ended.failed == {"app02"}
    assert ended.changed == set()
    assert "not begun" in ended.line("app01")
    assert fleet.exports() == []


def test_a_variable_that_makes_no_sense_is_told_before_the_first_byte(fleet: Fleet, rig: LibvirtRig) -> None:
    fleet.add_hosts(["app01"], "kvm01")
    fleet.add_hosts(["app02"], "kvm01", export_fleet_format="vdi")
    with off_vms(rig, ["app01", "app02"]):
        ended = fleet.run()
    assert ended.rc == 2
    assert ended.failed == {"app02"}
    assert "export_fleet_format" in ended.line("app02")
    assert fleet.exports() == ["app01"]


def test_a_hypervisor_that_dies_midway_fails_its_vms_and_a_later_run_does_the_rest(
    fleet: Fleet, rig: LibvirtRig
) -> None:
    with LibvirtRig() as mortal:
        fleet.add_worker("kvm02", mortal)
        fleet.add_hosts(["app01"], "kvm01")
        fleet.add_hosts(["db01", "db02"], "kvm02", **SLOWLY, export_fleet_max_jobs=1)
        with off_vms(rig, ["app01"]), off_vms(mortal, ["db01", "db02"], mib=10):
            run = fleet.start(export_fleet_name="nightly")
            fleet.wait_for(lambda: [one for one in fleet.records() if one.get("bytes_sent") and one["vm"][:2] == "db"])
            mortal.kill()
            ended = run.wait()
            assert ended.rc == 2
            assert ended.failed == {"db01", "db02"}
            assert ended.row("db01")["error"]["kind"] == "network", json.dumps(ended.row("db01"))
            assert fleet.exports() == ["app01"]
            mortal.start()
            again = fleet.run(export_fleet_name="nightly", export_fleet_bandwidth_limit="0")
    assert again.rc == 0
    assert again.changed == {"db01", "db02"}
    assert fleet.exports() == ["app01", "db01", "db02"]


@pytest.mark.parametrize("arguments", [(), ("--limit", "kvm01")], ids=["all", "limited"])
def test_a_run_for_hosts_that_do_not_exist_fails_and_says_so(fleet: Fleet, arguments: tuple[str, ...]) -> None:
    fleet.add_hosts(["app01"], "kvm01")
    ended = fleet.run(*arguments, export_fleet_hosts="ap*,!app01")
    assert ended.rc == 2, ended.output
    assert "No host fits export_fleet_hosts, which is" in ended.output
    assert "ap*,!app01" in ended.output
    assert len(ended.failed) == 1
    assert fleet.records() == []


def test_a_slice_without_a_host_that_fits_need_not_fail(fleet: Fleet) -> None:
    fleet.add_hosts(["app01"], "kvm01")
    ended = fleet.run("--limit", "kvm01", export_fleet_hosts_required="false")
    assert ended.rc == 0, ended.output
    assert ended.recap == {}, "nothing is said for hosts that are no part of it"
