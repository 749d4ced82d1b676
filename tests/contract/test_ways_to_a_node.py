# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a node of Proxmox VE is reached by SSH or is where the task runs makes no difference to what is made.

The contract has VMs that run by SSH and others on the node. Here it is the other way round.
"""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF

from .providers.base import POWERS, Power
from .providers.bench import ProviderBench
from .providers.proxmox import OtherWayRound
from .test_providers import OTHER, disk

each_power = pytest.mark.parametrize(
    ("bench", "power"), [pytest.param(OtherWayRound, power, id=power) for power in POWERS], indirect=["bench"]
)


@each_power
def test_an_export_an_increment_and_an_import_are_the_same_whichever_way_the_node_is_reached(
    bench: ProviderBench, power: Power
) -> None:
    driver = bench.driver
    vm = driver.make_vm(disk(1), disk(2, OTHER), power=power)
    before = bench.disks(vm)
    full = bench.export(vm)["export"]
    driver.write(vm, 1, 7 * LEAF, b"changed")
    increment = bench.export(vm, mode="incremental")["export"]
    assert (bench.content(full), bench.content(increment)) == (before, bench.disks(vm))
    assert [one["bytes_changed"] for one in increment["disks"]] == [0, LEAF]
    assert bench.import_("back")["changed"]
    assert bench.disks("back") == bench.disks(vm)
    driver.remove_vm("back")
    bench.assert_nothing_left(vm)


@each_power
def test_what_a_killed_export_made_on_the_node_goes_whichever_way_it_was_reached(
    bench: ProviderBench, power: Power
) -> None:
    vm = bench.driver.make_vm(disk(1), power=power)
    bench.die_at("window-delivered", bench.export_request(vm))
    assert bench.content(bench.export(vm)["export"]) == bench.disks(vm)
    bench.assert_nothing_left(vm)
