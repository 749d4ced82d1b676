# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever dies, and wherever: the next run leaves nothing of it, goes on at the same moment, or finds it done."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import JobRequest

from .providers.base import Driver, Fate, Power
from .providers.bench import ProviderBench, refused
from .providers.fixtures import DRIVERS
from .test_providers import EXPORTED, EXPORTERS, OTHER, disk

ROOT = Path(__file__).resolve().parents[2]
FAILPOINT = re.compile(r'\bfailpoint\("([a-z_-]+)"\)')
# Of every provider's exports. The others are of stores and journals, which providers know nothing of.
FAILPOINTS: dict[str, Fate] = {
    "claimed": "undone",
    "resumable": "gone on with",
    "window-delivered": "gone on with",
    "part-sent": "gone on with",
    "data-sent": "gone on with",
    "objects-complete:1": "gone on with",  # between the disks
    "objects-complete:2": "gone on with",
    "token_kept": "gone on with",
    "manifest": "gone on with",
    "committed": "whole",
    "tokens_forgotten": "whole",
}


# Whether a VM runs makes no difference to the rest: those are walked with it on, where its provider exports it then.
# Nor does how much a run had sent, where none goes on with what another one left.
OF_THE_POINT_IN_TIME = ("claimed", "resumable", "objects-complete:2", "token_kept", "committed")


def walked(driver: type[Driver], power: Power) -> dict[str, Fate]:
    own = driver.failpoints.get(power, {})
    few = (power == "off" and driver.abilities.live) or not driver.holds
    points = {point: fate for point, fate in FAILPOINTS.items() if point in OF_THE_POINT_IN_TIME or not few}
    walk = {point: fate for point, fate in {**points, **own}.items() if point not in driver.passed_by}
    return {point: "undone" if fate == "gone on with" and not driver.holds else fate for point, fate in walk.items()}


WALK = [
    pytest.param(*one.values, point, fate, id=f"{one.id}-{point}")
    for one in EXPORTED
    for point, fate in walked(*one.values).items()
]


@pytest.mark.parametrize(("bench", "power", "failpoint", "fate"), WALK, indirect=["bench"])
def test_an_export_that_is_killed_anywhere_is_made_whole_by_the_next_run_and_so_is_an_increment(
    bench: ProviderBench, power: Power, failpoint: str, fate: Fate
) -> None:
    driver = bench.driver
    vm = driver.make_vm(disk(1), disk(2, OTHER), power=power)
    before = bench.disks(vm)
    bench.die_at(failpoint, bench.export_request(vm))
    full = bench.export(vm)
    assert fate_of(full) == fate
    if fate == "undone" and driver.holds:
        assert "had not sent anything" in full["resumed"]["reason"]
    assert (full["export"]["mode"], bench.content(full["export"])) == ("full", before)
    bench.assert_nothing_left(vm)
    if failpoint in driver.passed_once:
        assert not bench.export(vm)["changed"]
        return

    driver.write(vm, 0, 5 * LEAF, b"k" * 3 * LEAF)
    driver.zero(vm, 1, LEAF, 2 * LEAF)
    moment = bench.disks(vm)
    bench.die_at(failpoint, bench.export_request(vm))
    driver.write(vm, 1, 10 * LEAF, b"l" * LEAF)
    made = bench.export(vm, mode="incremental")
    if fate == "gone on with" and (power == "on" or driver.apart):
        assert (fate_of(made), changed(made)) == (fate, 5)
        assert bench.content(made["export"]) == moment, "what was written after the kill is in the next one"
        made = bench.export(vm, mode="incremental")
        assert changed(made) == 1
    elif fate == "whole":
        assert changed(made) == 1
        assert made["export"]["parent"] != full["export"]["id"]
    else:
        assert (fate_of(made), changed(made)) == ("undone", 6), "it is not the same point in time any more"
    assert bench.content(made["export"]) == bench.disks(vm)
    bench.assert_nothing_left(vm)


def fate_of(result: dict[str, Any]) -> Fate:
    if not result["changed"]:
        assert "resumed" not in result
        return "whole"
    resumed = result["resumed"]
    if resumed["export"]:
        assert (resumed["export"], resumed["reason"]) == (result["export"]["id"], "")
        assert resumed["bytes_kept"] + resumed["bytes_sent"] == sum(
            one["bytes_stored"] for one in result["export"]["disks"]
        )
        return "gone on with"
    assert resumed["reason"]
    return "undone"


def changed(result: dict[str, Any]) -> int:
    """Leaves."""
    return sum(one["bytes_changed"] for one in result["export"]["disks"]) // LEAF


@pytest.mark.parametrize(("bench", "power"), EXPORTED, indirect=["bench"])
def test_what_a_killed_export_left_is_removed_by_cancelling_its_job(bench: ProviderBench, power: Power) -> None:
    vm = bench.driver.make_vm(disk(1), disk(2, OTHER), power=power)
    (job,) = bench.die_at("data-sent", bench.export_request(vm), keep_record=True)
    alone = JobRequest(job, "cancelled", 30.0, str(bench.state))
    refused(lambda: end_job(alone, False), "invalid_config", "provider")
    request = replace(alone, store=bench.store, provider=bench.driver.spec)
    assert end_job(request, False)["job"]["state"] == "cancelled"
    assert bench.keys() == []
    bench.assert_nothing_left(vm)


IMPORT_FAILPOINTS: dict[str, Fate] = {"window-copied": "undone"}  # of every provider's
IMPORTS = [
    pytest.param(driver, point, fate, id=f"{driver.name}-{point}")
    for driver in EXPORTERS
    for point, fate in {**IMPORT_FAILPOINTS, **driver.failpoints.get("import", {})}.items()
    if point not in driver.passed_by
]


@pytest.mark.parametrize(("bench", "failpoint", "fate"), IMPORTS, indirect=["bench"])
def test_an_import_that_is_killed_anywhere_is_made_by_the_next_run_and_leaves_nothing_else(
    bench: ProviderBench, failpoint: str, fate: Fate
) -> None:
    driver = bench.driver
    vm = driver.make_vm(disk(1), disk(2, OTHER))
    bench.export(vm)
    driver.write(vm, 0, 5 * LEAF, b"k" * LEAF)
    bench.export(vm)
    if not driver.abilities.imports:
        refused(lambda: bench.import_("back"), "unsupported")
        bench.assert_nothing_left(vm)
        return
    bench.die_at(failpoint, bench.import_request("back"))
    looked = bench.import_("back", check_mode=True)
    made = bench.import_("back")
    assert looked["changed"] == made["changed"] == (fate == "undone")
    assert bench.disks("back") == bench.disks(vm)
    driver.remove_vm("back")
    assert list(driver.left_of_imports()) == []
    bench.assert_nothing_left(vm)


SNAPSHOTS = [
    pytest.param(driver, state, point, id=f"{driver.name}-{state}-{point}")
    for driver in DRIVERS
    for state, points in driver.snapshot_failpoints.items()
    for point in points
]


@pytest.mark.parametrize(("bench", "state", "failpoint"), SNAPSHOTS, indirect=["bench"])
def test_a_snapshot_that_is_killed_while_it_comes_or_goes_is_told_and_goes_and_the_disks_are_right(
    bench: ProviderBench, state: str, failpoint: str
) -> None:
    driver = bench.driver
    vm = driver.make_vm(disk(1), disk(2, OTHER))
    own = bench.disks(vm)
    if state != "present":
        bench.snapshot(vm, name="one")
        driver.write(vm, 0, 0, b"m" * LEAF)
        driver.write(vm, 1, LEAF, b"n" * LEAF)
    now = bench.disks(vm)
    bench.die_at(failpoint, bench.snapshot_request(vm, state, name="one"))
    if state == "reverted":
        assert bench.disks(vm) in (now, own)
        bench.snapshot(vm, "reverted", name="one")
        assert bench.disks(vm) == own
    else:
        assert bench.disks(vm) == now
        if bench.snapshots(vm):
            refused(lambda: bench.snapshot(vm, name="one"), "conflict", "not whole")
            refused(lambda: bench.snapshot(vm, "reverted", name="one"), "conflict", "not whole")
        driver.write(vm, 0, 3 * LEAF, b"o" * LEAF)
        now = bench.disks(vm)
        bench.snapshot(vm, name="two", keep=1)
        assert bench.snapshots(vm) == ["two"]
        assert bench.disks(vm) == now
    now = bench.disks(vm)
    bench.snapshot(vm, "absent")
    assert (bench.snapshots(vm), bench.disks(vm)) == ([], now)
    bench.assert_nothing_left(vm)


# Of these a provider's own tests have the walk: an agent has to freeze its guest, a guest has to boot on trial, an
# image has to be merged while its guest writes to it, a run that goes on with another one has to be killed itself, and
# tasks of AWS export and import what the others do in another way.
ELSEWHERE = {
    "libvirt": {
        "frozen",
        "taken_over",
        "watched_over",
        "trial_runs",
        "snapshot_frozen",
        "snapshot_created",
        "merging",
        "pivoting",
    },
    "proxmox": {"frozen"},
    "aws": {
        "snapshots_taken_over",
        "vendor_image_registered",
        "vendor_task_started",
        "vendor_task_completed",
        "vendor_task_ended",
        "import_noted",
        "import_staged",
        "import_task_started",
        "import_task_completed",
        "import_tasks_completed",
    },
}


@pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.name)
def test_there_is_no_failpoint_of_a_provider_that_is_not_walked(driver: type[Driver]) -> None:
    here = {point for points in driver.failpoints.values() for point in points}
    here |= {point for points in driver.snapshot_failpoints.values() for point in points}
    here |= ELSEWHERE.get(driver.name, set())
    there = failpoints_of(driver.sources)
    assert there <= here
    assert here - there <= failpoints_of("plugins/module_utils/_transfer"), "there are no such ones"


def failpoints_of(folder: str) -> set[str]:
    return {name for path in (ROOT / folder).rglob("*.py") for name in FAILPOINT.findall(path.read_text())}


def test_there_is_no_failpoint_of_exports_that_is_not_walked() -> None:
    """Those of copies, appliances and snapshots that exports make for themselves are of no provider."""
    operations = ROOT / "plugins/module_utils/_operations"
    files = [operations / "attempts/attempt.py"]
    files += [operations / f"exporting/{name}.py" for name in ("take_export", "export_disk", "write_export")]
    there = {name for path in files for name in FAILPOINT.findall(path.read_text())}
    assert there <= {point.partition(":")[0] for point in FAILPOINTS}
