# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A batch that runs again, in parts, or twice at once: what is done is not done again."""

from __future__ import annotations

from collections import Counter

from rigs.libvirt import LibvirtRig

from .fleet_rig import Fleet, most_at_once, off_vms
from .playing import held


def test_a_second_run_changes_nothing(fleet: Fleet, rig: LibvirtRig) -> None:
    names = ["app01", "app02"]
    fleet.add_hosts(names, "kvm01")
    with off_vms(rig, names):
        first, named = (fleet.run(export_fleet_name="nightly") for _time in range(2))
        young = fleet.run(export_fleet_max_age="1h")
    assert first.changed == set(names)
    for again in (named, young):
        assert again.rc == 0
        assert again.changed == set()
        assert again.states() == {"app01": "done", "app02": "done"}
        assert again.row("app01")["url"] == first.row("app01")["url"]
    assert fleet.exports() == names


def test_check_mode_plans_and_exports_nothing(fleet: Fleet, rig: LibvirtRig) -> None:
    fleet.add_hosts(["app01", "app02"], "kvm01")
    with off_vms(rig, ["app01"]):
        ended = fleet.run("--check")
    assert ended.rc == 2
    assert ended.failed == {"app02"}
    assert "full" in ended.line("app01", table=0)
    assert "There is no VM app02" in ended.line("app02", table=0)
    assert fleet.records() == []
    assert fleet.exports() == []


def test_a_limit_chooses_hosts_and_the_tables_are_shown(fleet: Fleet, rig: LibvirtRig) -> None:
    names = ["app01", "app02", "app03"]
    fleet.add_hosts(names, "kvm01")
    with off_vms(rig, names):
        ended = fleet.run("--limit", "app02,app03")
    assert ended.rc == 0
    assert fleet.exports() == ["app02", "app03"]
    assert ended.states() == {"app02": "exported", "app03": "exported"}
    assert "full" in ended.line("app03")


def test_a_controller_that_is_killed_loses_nothing_that_is_done(fleet: Fleet, rig: LibvirtRig) -> None:
    names = ["app01", "app02", "app03"]
    fleet.variables["vm_export_controller_timeout"] = "8s"  # more than a busy machine takes between two polls
    fleet.add_hosts(names, "kvm01")
    fleet.hosts["app02"]["export_fleet_bandwidth_limit"] = "1MiB/s"
    with off_vms(rig, names, mib=32):
        run = fleet.start(forks=1, export_fleet_name="nightly")
        fleet.wait_for(lambda: [one for one in fleet.records() if one["vm"] == "app02" and one.get("bytes_sent")])
        run.kill()
        assert fleet.exports() == ["app01"]
        fleet.wait_for(lambda: all(one["finished"] for one in fleet.records()))
        again = fleet.run(export_fleet_name="nightly", export_fleet_bandwidth_limit="0")
    assert again.rc == 0, again.output
    assert again.states() == {"app01": "done", "app02": "exported", "app03": "exported"}
    assert again.changed == {"app02", "app03"}
    assert fleet.exports() == names
    assert [one["error"]["kind"] for one in fleet.records() if one["error"]] == ["cancelled"]


def test_two_slices_at_once_export_each_vm_once_and_share_the_slots(fleet: Fleet, rig: LibvirtRig) -> None:
    names = [f"app{number:02}" for number in range(1, 9)]
    fleet.add_hosts(names, "kvm01", export_fleet_max_jobs=2)
    slices = {"one": names[:5], "two": names[3:]}  # they have two in common
    with off_vms(rig, names):
        runs = [
            fleet.start(inventory=fleet.inventory(name, hosts), export_fleet_name="nightly", vm_export_busy_delay=1)
            for name, hosts in slices.items()
        ]
        ended = [run.wait() for run in runs]
    assert [run.rc for run in ended] == [0, 0], ended[0].output + ended[1].output
    assert fleet.exports() == names, "each once"
    states = Counter(state for run in ended for state in run.states().values())
    assert states == {"exported": 8, "done": 2}
    assert most_at_once(fleet.exported_when()) == 2


def test_a_vm_that_another_run_exports_is_told_beforehand_and_waited_for(fleet: Fleet, rig: LibvirtRig) -> None:
    fleet.add_hosts(["app01"], "kvm01", export_fleet_consistency="crash_consistent")
    with off_vms(rig, ["app01"], mib=8):
        rig.connect().lookupByName("app01").create()
        first = fleet.start(inventory=fleet.inventory("first"), export_fleet_bandwidth_limit="1MiB/s")
        fleet.wait_for(lambda: [one for one in fleet.records() if one.get("bytes_sent")])
        with held(fleet.records()[0]):
            again = fleet.run("--check")
            assert again.rc == 0, again.output
            assert "warning: app01 is being exported to file:" in again.line("app01", table=0)
            assert "\nHint: Wait until it is done. vmferry.migrate.job_info" in again.output
            assert "vmferry.migrate.job with state: cancelled" in again.output
            waiting = fleet.start(vm_export_busy_delay=1, export_fleet_mode="full")
            fleet.wait_for(lambda: [one for one in fleet.records() if one["error"]])
        assert first.wait().rc == 0
        second = waiting.wait()
    assert second.rc == 0, second.output
    assert second.states() == {"app01": "exported"}
    assert "is being exported to" in second.line("app01", table=0)
    assert fleet.exports() == ["app01", "app01"]
