# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM is shut down by its guest, or by force where that was asked; and nothing else is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.bring_vm import bring_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ProviderSpec,
    VmRequest,
    VmState,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .harness import eventually
from .qemu_monitor import listen_to_power_button, power_button_was_pressed

SOON = 1.0  # seconds


@pytest.fixture
def running(rig: LibvirtRig, tmp_path: Path) -> Iterator[Guest]:
    """It never heard of ACPI, and powers itself off when somebody types."""
    disk = guests.mbr_disk(tmp_path / "running.raw", "running")
    guest = define_and_start(rig, Machine("running", (Disk(disk, "raw"),), memory_mib=32))
    guest.console.wait_for(guests.boot_marker("running"))
    yield guest
    guest.destroy()


def request(
    rig: LibvirtRig, state: VmState, vm: str = "running", timeout: float = 30.0, force: bool = False
) -> VmRequest:
    return VmRequest(ProviderSpec("libvirt", {"uri": rig.uri}), vm, state, timeout, force)


def test_a_guest_is_asked_by_its_power_button_and_waited_for(rig: LibvirtRig, running: Guest) -> None:
    listen_to_power_button(running)

    def obey() -> None:
        eventually(lambda: power_button_was_pressed(running))
        running.console.type("x")

    guest = threading.Thread(target=obey)
    guest.start()
    result = bring_vm(request(rig, "powered_off"), check_mode=False)
    guest.join()
    assert result["changed"]
    assert result["vm"]["power_state"] == "powered_off"
    assert result["diff"] == {"before": {"power_state": "powered_on"}, "after": {"power_state": "powered_off"}}
    again = bring_vm(request(rig, "powered_off"), check_mode=False)
    assert (again["changed"], again["vm"]["power_state"]) == (False, "powered_off")


def test_one_that_does_not_hear_runs_on_unless_its_power_is_to_be_cut(rig: LibvirtRig, running: Guest) -> None:
    with pytest.raises(VmferryError) as late:
        bring_vm(request(rig, "powered_off", timeout=SOON), check_mode=False)
    assert (late.value.kind, late.value.retryable) == ("timeout", True)
    assert "running did not power off within 1 s." in late.value.message
    assert running.domain.isActive()
    result = bring_vm(request(rig, "powered_off", timeout=SOON, force=True), check_mode=False)
    assert result["vm"]["power_state"] == "powered_off"
    assert not running.domain.isActive()


def test_one_that_is_paused_cannot_hear(rig: LibvirtRig, running: Guest) -> None:
    running.domain.suspend()
    for state in ("powered_off", "powered_on"):
        with pytest.raises(VmferryError) as refused:
            bring_vm(request(rig, state), check_mode=False)
        assert refused.value.kind == "conflict"
        assert "paused" in refused.value.message
    assert bring_vm(request(rig, "powered_off", force=True), check_mode=False)["vm"]["power_state"] == "powered_off"


def test_one_that_would_be_gone_once_it_is_off_is_left_alone(rig: LibvirtRig, provider: LibvirtProvider) -> None:
    domain = rig.connect().createXML(domain_xml(Machine("passing", memory_mib=32), rig.directory))
    try:
        with pytest.raises(VmferryError) as refused:
            provider.shut_down(provider.describe("passing"), SOON, force=True)
        assert refused.value.kind == "unsupported"
        assert domain.isActive()
    finally:
        remove_domain(domain)


def test_a_vm_is_started_once(rig: LibvirtRig, running: Guest) -> None:
    assert not bring_vm(request(rig, "powered_on"), check_mode=False)["changed"]
    running.domain.destroy()
    result = bring_vm(request(rig, "powered_on"), check_mode=False)
    assert (result["changed"], result["vm"]["power_state"]) == (True, "powered_on")


def test_check_mode_says_what_would_happen_and_does_not_do_it(rig: LibvirtRig, running: Guest) -> None:
    result = bring_vm(request(rig, "powered_off", force=True), check_mode=True)
    assert result["changed"]
    assert result["diff"]["after"] == {"power_state": "powered_off"}
    assert running.domain.isActive()
    running.domain.destroy()
    assert bring_vm(request(rig, "powered_on"), check_mode=True)["changed"]
    assert not running.domain.isActive()
    assert bring_vm(request(rig, "absent"), check_mode=True)["diff"] == {"before": {"vm": "running"}, "after": {}}
    assert "running" in [domain.name() for domain in rig.connect().listAllDomains()]


def test_a_vm_that_nobody_has_is_an_error_unless_it_is_to_be_absent(rig: LibvirtRig) -> None:
    for state in ("powered_on", "powered_off"):
        with pytest.raises(VmferryError) as missing:
            bring_vm(request(rig, state, vm="nobody"), check_mode=False)
        assert missing.value.kind == "not_found"
    result = bring_vm(request(rig, "absent", vm="nobody"), check_mode=False)
    assert (result["changed"], result["vm"]) == (False, None)
