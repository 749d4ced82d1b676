# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest that is shut down for its export runs again, whatever becomes of the export and of the run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from system.leftovers import MARK

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.power_marks import POWER, PowerMark
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts import owed_starts
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting import guest_power, start_watchdog
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.start_watchdog import TITLE
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    CleanupRequest,
    ExportRequest,
    JobRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.open import open_provider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider

from .providers.base import Driver
from .providers.bench import ProviderBench, act_at, cancel_at, refused
from .providers.dying import NoWatchdog
from .providers.fixtures import DRIVERS
from .providers.vsphere import VsphereDriver
from .test_providers import disk
from .test_providers_killed import failpoints_of

SHUT_DOWN = [one for one in DRIVERS if one.abilities.power and one.abilities.powered_off and one.abilities.live]
each = pytest.mark.parametrize("bench", SHUT_DOWN, ids=lambda driver: driver.name, indirect=True)
may_not_hear = pytest.mark.parametrize(
    "bench", [one for one in SHUT_DOWN if one.guests_decide], ids=lambda driver: driver.name, indirect=True
)
# What no provider has a part in: what marks say, and who acts on them.
any_one = pytest.mark.parametrize("bench", [VsphereDriver], ids=lambda driver: driver.name, indirect=True)
OWN = ("shutdown_noted", "guest_off", "guest_to_start", "guest_started")
JOB = "0" * 32
PATIENCE = 120.0  # seconds; a busy machine takes many times as long as a quiet one
LONG = 60.0  # seconds; it never takes as long


def request(bench: ProviderBench, vm: str, timeout: float = LONG) -> ExportRequest:
    return bench.export_request(vm, consistency="powered_off", shutdown_timeout=timeout)


def marks(bench: ProviderBench) -> list[str]:
    return [path.name for path in bench.root.glob(f"{POWER}*")]


def note(bench: ProviderBench, vm: VmSpec, site: str, **otherwise: Any) -> None:
    """That a run had shut it down, and could not start it again."""
    known = {"was_off": True, "given_up": True, **otherwise}
    mark = PowerMark("vsphere", site, "", vm.id, vm.name, JOB, f"vm/20260101T000000Z-{'0' * 8}", time.time())
    mark = replace(mark, **known)
    bench.root.mkdir(exist_ok=True)
    (bench.root / mark.key).write_bytes(mark.to_json())


def watchdogs() -> Iterator[int]:
    """The processes that start guests of this test's exports."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_one = TITLE.encode() in (path / "cmdline").read_bytes()
            mine = f"{MARK}={os.getpid()}".encode() in (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if is_one and mine:
            yield int(path.name)


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_watchdog, "StartWatchdog", NoWatchdog)


@contextmanager
def obedient(bench: ProviderBench, vm: str) -> Iterator[None]:
    """Inside, its guest shuts down once for every export that has noted that it is to."""
    obeyed, ended = set(marks(bench)), threading.Event()

    def obey() -> None:
        while not ended.wait(0.05):
            new = set(marks(bench)) - obeyed
            if new:
                obeyed.update(new)
                bench.driver.power(vm, "off")

    guest = threading.Thread(target=obey)
    guest.start()
    try:
        yield
    finally:
        ended.set()
        guest.join()


@each
def test_a_guest_is_off_while_its_disks_are_read_and_runs_before_and_afterwards(
    bench: ProviderBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = bench.driver
    vm = driver.make_vm(disk(1), power="on")
    refused(lambda: bench.export(vm, consistency="powered_off"), "conflict", "not powered_off")
    asked = {"consistency": "powered_off", "shutdown_timeout": LONG}
    planned = bench.export(vm, check_mode=True, **asked)
    assert planned["changed"]
    assert any("asked to shut down" in one["message"] for one in planned["findings"])
    assert (driver.is_on(vm), bench.keys()) == (True, [])

    seen: list[bool] = []
    with obedient(bench, vm):
        act_at(monkeypatch, "window-delivered", lambda: seen.append(driver.is_on(vm)))
        made = bench.export(vm, **asked)
        assert (seen, driver.is_on(vm)) == ([False], True)
        assert made["export"]["consistency"] == "powered_off"
        assert not [told for told in made["warnings"] if "start" in told.lower()]
        assert bench.content(made["export"]) == bench.disks(vm)
        driver.write(vm, 0, 5 * LEAF, b"w" * LEAF)
        increment = bench.export(vm, mode="incremental", **asked)["export"]
    assert (increment["mode"], bench.content(increment)) == ("incremental", bench.disks(vm))
    assert driver.is_on(vm)
    bench.assert_nothing_left(vm)


@each
def test_a_vm_that_was_off_stays_off(bench: ProviderBench, unwatched: None) -> None:
    vm = bench.driver.make_vm(disk(1))
    assert bench.export(vm, consistency="powered_off", shutdown_timeout=LONG)["changed"]
    assert not bench.driver.is_on(vm)
    bench.assert_nothing_left(vm)


@pytest.mark.parametrize(
    ("bench", "point"),
    [*((one, "window-delivered") for one in SHUT_DOWN), (VsphereDriver, "guest_off")],
    ids=lambda one: one if isinstance(one, str) else one.name,
    indirect=["bench"],
)
def test_a_guest_runs_again_where_its_export_is_cancelled(
    bench: ProviderBench, point: str, monkeypatch: pytest.MonkeyPatch, unwatched: None
) -> None:
    vm = bench.driver.make_vm(disk(1), power="on")
    with obedient(bench, vm):
        cancel_at(monkeypatch, point)
        refused(lambda: bench.export(vm, consistency="powered_off", shutdown_timeout=LONG), "cancelled")
    assert (bench.driver.is_on(vm), bench.keys()) == (True, [])
    bench.assert_nothing_left(vm)


@may_not_hear
def test_a_guest_that_takes_too_long_is_not_exported_and_is_started_should_it_go_off_later(
    bench: ProviderBench, monkeypatch: pytest.MonkeyPatch, unwatched: None
) -> None:
    vm = bench.driver.make_vm(disk(1), power="on")
    monkeypatch.setattr(guest_power, "LAST_WAIT", 0.0)
    error = refused(lambda: bench.export(vm, consistency="powered_off", shutdown_timeout=0.2), "timeout", "0.2 s")
    assert "started then" in error.hint
    assert (bench.driver.is_on(vm), len(marks(bench))) == (True, 1)
    bench.driver.power(vm, "off")
    looked = bench.export(vm, check_mode=True)
    assert any("starts it first" in one["message"] for one in looked["findings"])
    made = bench.export(vm)
    assert any(told.startswith(f"Started {vm}.") for told in made["warnings"])
    assert bench.driver.is_on(vm)
    bench.assert_nothing_left(vm)


def test_where_it_cannot_be_started_again_the_task_fails_although_the_export_is_made(
    make_bench: object, monkeypatch: pytest.MonkeyPatch, unwatched: None
) -> None:
    from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
    from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider

    def refuse(_self: object, vm: object) -> None:
        raise VmferryError("permission_denied", "Starting is for others.")

    bench = make_bench(next(one for one in SHUT_DOWN if one.name == "libvirt"))  # type: ignore[operator]
    vm = bench.driver.make_vm(disk(1), power="on")
    with obedient(bench, vm), monkeypatch.context() as patched:
        patched.setattr(LibvirtProvider, "start", refuse)
        error = refused(
            lambda: bench.export(vm, consistency="powered_off", shutdown_timeout=LONG), "permission_denied", "others"
        )
    assert "export_cleanup" in error.hint
    assert (bench.driver.is_on(vm), len(marks(bench))) == (False, 1)
    assert not bench.export(vm, max_age=3600.0)["changed"], "the export was made"
    assert bench.driver.is_on(vm)
    bench.assert_nothing_left(vm)


@each
def test_a_guest_runs_again_soon_after_the_run_that_shut_it_down_was_killed(bench: ProviderBench) -> None:
    vm = bench.driver.make_vm(disk(1), power="on")
    with obedient(bench, vm):
        bench.die_at("window-delivered", request(bench, vm))
    deadline = time.monotonic() + PATIENCE
    while not bench.driver.is_on(vm) or marks(bench) or list(watchdogs()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    made = bench.export(vm)
    assert not [told for told in made["warnings"] if told.startswith("Started")]
    bench.assert_nothing_left(vm)


@any_one
@pytest.mark.parametrize("failpoint", OWN)
def test_a_guest_runs_again_with_the_next_run_wherever_the_one_that_shut_it_down_was_killed(
    bench: ProviderBench, failpoint: str, monkeypatch: pytest.MonkeyPatch, unwatched: None
) -> None:
    """However long ago that was."""
    monkeypatch.setattr(owed_starts, "LATE", 0.0)
    driver = bench.driver
    vm = driver.make_vm(disk(1), power="on")
    with obedient(bench, vm):
        bench.die_at(failpoint, request(bench, vm), alone=True)
    if failpoint == "shutdown_noted":
        driver.power(vm, "off")
    assert driver.is_on(vm) == (failpoint == "guest_started")
    if failpoint == "guest_started":
        with obedient(bench, vm):
            made = bench.export(vm, consistency="powered_off", shutdown_timeout=LONG)
    else:
        made = bench.export(vm, max_age=3600.0)
        assert any(told.startswith(f"Started {vm}.") for told in made["warnings"])
        assert made["changed"] == (failpoint != "guest_to_start")
    assert driver.is_on(vm)
    assert bench.content(made["export"]) == bench.disks(vm)
    bench.assert_nothing_left(vm)


@any_one
@pytest.mark.parametrize("point", ["window-delivered", "committed"])
def test_a_guest_is_started_by_cancelling_the_job_that_had_shut_it_down_and_died(
    bench: ProviderBench, point: str
) -> None:
    vm = bench.driver.make_vm(disk(1), power="on")
    with obedient(bench, vm):
        (job,) = bench.die_at(point, request(bench, vm), keep_record=True, alone=True)
    cancel = JobRequest(job, "cancelled", 30.0, str(bench.state), store=bench.store, provider=bench.driver.spec)
    if point == "committed":
        refused(lambda: end_job(cancel, False), "conflict", "was done before")
    else:
        assert end_job(cancel, False)["job"]["state"] == "cancelled"
    assert bench.driver.is_on(vm)
    assert marks(bench) == []


@any_one
def test_a_guest_is_started_by_a_cleanup_of_orphans_and_one_without_the_provider_tells_of_it(
    bench: ProviderBench,
) -> None:
    vm = bench.driver.make_vm(disk(1), power="on")
    with obedient(bench, vm):
        bench.die_at("window-delivered", request(bench, vm), alone=True)
    alone = CleanupRequest(bench.store, Limits(), Protections(), orphans=True)
    told = clean_up_exports(alone, False)
    assert any(f"had shut down {vm}" in warning for warning in told["warnings"])
    whole = replace(alone, provider=bench.driver.spec)
    assert "power" in [one["kind"] for one in clean_up_exports(whole, True)["orphans"]]
    assert not bench.driver.is_on(vm)
    (started,) = [one for one in clean_up_exports(whole, False)["orphans"] if one["kind"] == "power"]
    assert (started["where"], bench.driver.is_on(vm)) == (vm, True)
    assert started["reason"].startswith("Started")
    assert bench.keys() == []


@any_one
def test_a_guest_that_others_started_and_shut_down_since_is_left_off(bench: ProviderBench) -> None:
    driver = bench.driver
    vm = driver.make_vm(disk(1), power="on")
    with obedient(bench, vm):
        bench.die_at("window-delivered", request(bench, vm), alone=True)
    driver.power(vm, "on")
    bench.export(vm)
    driver.power(vm, "off")
    assert not [told for told in bench.export(vm)["warnings"] if "Started" in told]
    assert not driver.is_on(vm)
    bench.assert_nothing_left(vm)


@any_one
@pytest.mark.parametrize(
    ("noted", "runs", "stays", "told"),
    [
        ({}, True, False, "could not start it again"),
        ({"site": "vsphere elsewhere"}, False, True, ""),
        ({"origin": "20250101T000000Z-00000000"}, False, False, "was made anew since"),
        ({"was_off": False, "asked_at": 1.0}, False, False, ""),
    ],
    ids=["shut down", "a copy of it elsewhere was", "the one before it was", "asked long ago, and did not"],
)
def test_a_vm_is_started_only_where_it_is_the_one_that_was_shut_down(
    bench: ProviderBench, noted: dict[str, Any], runs: bool, stays: bool, told: str
) -> None:
    vm = bench.driver.make_vm(disk(1))
    with closing(open_provider(bench.driver.spec.name, bench.driver.spec.settings)) as provider:
        note(bench, provider.describe(vm), **{"site": provider.site, **noted})
    warnings = bench.export(vm)["warnings"]
    assert (bench.driver.is_on(vm), bool(marks(bench))) == (runs, stays)
    said = [one for one in warnings if vm in one and "for its export" in one]
    assert (len(said), all(told in one for one in said)) == (bool(told), True)
    whole = CleanupRequest(bench.store, Limits(), Protections(), orphans=True, provider=bench.driver.spec)
    cleaned = clean_up_exports(whole, False)
    assert (bench.driver.is_on(vm), bool(marks(bench))) == (runs, stays)
    assert any("vsphere elsewhere" in warning for warning in cleaned["warnings"]) == stays


@any_one
def test_a_vm_that_is_gone_is_owed_nothing(bench: ProviderBench) -> None:
    vm = bench.driver.make_vm(disk(1), power="on")
    whole = CleanupRequest(bench.store, Limits(), Protections(), orphans=True, provider=bench.driver.spec)
    with closing(open_provider(bench.driver.spec.name, bench.driver.spec.settings)) as provider:
        gone = replace(provider.describe(vm), id="50000000-0000-0000-0000-000000000000", name="gone")
        note(bench, gone, provider.site)
    found = clean_up_exports(whole, False)["orphans"]
    assert [(one["kind"], one["where"]) for one in found] == [("power", "gone")]
    assert marks(bench) == []


@any_one
def test_a_job_whose_vm_is_gone_can_be_cancelled(bench: ProviderBench) -> None:
    vm = bench.driver.make_vm(disk(1), power="on")
    with obedient(bench, vm):
        (job,) = bench.die_at("window-delivered", request(bench, vm), keep_record=True, alone=True)
    with closing(open_provider(bench.driver.spec.name, bench.driver.spec.settings)) as provider:
        provider.remove(provider.describe(vm), disks=True)
    cancel = JobRequest(job, "cancelled", 30.0, str(bench.state), store=bench.store, provider=bench.driver.spec)
    assert end_job(cancel, False)["job"]["state"] == "cancelled"
    assert bench.keys() == []


@any_one
def test_a_guest_that_goes_off_after_it_could_not_be_asked_again_is_started(
    bench: ProviderBench, monkeypatch: pytest.MonkeyPatch, unwatched: None
) -> None:
    vm = bench.driver.make_vm(disk(1), power="on")
    late = threading.Timer(0.5, bench.driver.power, (vm, "off"))
    said = [VmferryError("timeout", "It still runs."), VmferryError("conflict", "It is going down.")]

    def shut_down(_self: object, _vm: object, _timeout: float, **_unused: object) -> None:
        if len(said) == 1:
            late.start()
        raise said.pop(0)

    monkeypatch.setattr(VsphereProvider, "shut_down", shut_down)
    monkeypatch.setattr(guest_power, "LOOK_EVERY", 0.05)
    refused(lambda: bench.export(vm, consistency="powered_off", shutdown_timeout=LONG), "conflict", "going down")
    late.join()
    assert (bench.driver.is_on(vm), marks(bench)) == (True, [])


def test_there_is_no_failpoint_of_a_guests_power_that_is_not_walked() -> None:
    folder = "plugins/module_utils/_operations/exporting"
    assert {name for name in failpoints_of(folder) if name.startswith(("guest", "shutdown"))} == set(OWN)


def test_every_provider_that_starts_vms_is_asked() -> None:
    assert {driver.name for driver in SHUT_DOWN} >= {"libvirt", "vsphere"}
    assert all(issubclass(driver, Driver) for driver in SHUT_DOWN)
