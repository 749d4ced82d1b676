# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers that are hosts of a network, one of which drops out of it."""

from __future__ import annotations

from rigs.libvirt import LibvirtRig
from rigs.ssh_network import ssh_network

from .fleet_rig import Fleet, off_vms


def test_a_worker_whose_network_breaks_fails_its_vms_and_a_later_run_does_them(fleet: Fleet, rig: LibvirtRig) -> None:
    fleet.variables["vm_export_controller_timeout"] = "8s"
    vms = {"kvm01": "app01", "kvm02": "app02", "kvm03": "db01"}
    names = list(vms.values())
    with ssh_network(list(vms)) as network, off_vms(rig, names, mib=24):
        for worker, vm in vms.items():
            fleet.add_worker(worker, rig, **network.hosts[worker].variables)
            fleet.add_hosts([vm], worker, vm_export_state_dir=str(fleet.state / worker))
        fleet.hosts["db01"]["export_fleet_bandwidth_limit"] = "1MiB/s"
        fleet.enter = network.enter
        run = fleet.start(export_fleet_name="nightly")
        fleet.wait_for(lambda: [one for one in fleet.records() if one["vm"] == "db01" and one.get("bytes_sent")])
        network.unplug("kvm03")
        ended = run.wait()
        assert ended.rc == 2, ended.output
        assert ended.failed == {"db01"}
        assert ended.row("db01")["error"]["kind"] == "network", ended.row("db01")
        assert fleet.exports() == ["app01", "app02"]
        network.plug_in("kvm03")
        again = fleet.run(export_fleet_name="nightly", export_fleet_bandwidth_limit="0", vm_export_busy_delay=1)
    assert again.rc == 0, again.output
    assert again.changed == {"db01"}
    assert fleet.exports() == names
