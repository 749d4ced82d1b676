# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs started and stopped, and what the provider says that it cannot do yet."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.bring_vm import bring_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec, VmRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import power
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from rigs.vsphere import VSphere

pytestmark = pytest.mark.slow


def bring(settings: dict[str, Any], vm: str, state: str, check_mode: bool = False, **more: Any) -> dict[str, Any]:
    whole = {"timeout": 30.0, "force": False, "remove_disks": False, **more}
    return bring_vm(VmRequest(provider=ProviderSpec("vsphere", settings), vm=vm, state=state, **whole), check_mode)


def test_vm_is_started_and_its_guest_shuts_itself_down(vcenter: VSphere, settings: dict[str, Any]) -> None:
    vcenter.make_vm("guest")
    started = bring(settings, "guest", "powered_on")
    assert (started["changed"], started["vm"]["power_state"]) == (True, "powered_on")
    assert bring(settings, "guest", "powered_on")["changed"] is False
    vcenter.forget_calls()
    off = bring(settings, "guest", "powered_off")
    assert (off["changed"], off["vm"]["power_state"]) == (True, "powered_off")
    assert (len(vcenter.calls("ShutdownGuest")), vcenter.calls("PowerOffVM_Task")) == (1, [])
    assert bring(settings, "guest", "powered_off")["changed"] is False


def test_power_is_cut_only_where_that_is_asked(vcenter: VSphere, settings: dict[str, Any]) -> None:
    vcenter.settings(tools_running=False)
    vcenter.make_vm("deaf", running=True)
    with pytest.raises(VmferryError, match="did not power off within") as late:
        bring(settings, "deaf", "powered_off", timeout=0.1)
    assert (late.value.kind, "VMware Tools" in late.value.hint) == ("timeout", True)
    assert vcenter.calls("PowerOffVM_Task") == []
    assert bring(settings, "deaf", "powered_off", timeout=0.1, force=True)["vm"]["power_state"] == "powered_off"
    assert vcenter.calls("ShutdownGuest") == []


def test_a_vcenter_that_is_away_for_a_moment_ends_no_shutdown(
    vcenter: VSphere, provider: VsphereProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power, "LOOK_EVERY", 0.05)
    vcenter.make_vm("patient", running=True)
    vm = provider.describe("patient")
    vcenter.forget_calls()
    vcenter.fault("RetrievePropertiesEx", "status", status=503, times=2)  # of the first look, and of its repetition
    vcenter.fault("ShutdownGuest", "status", status=503)
    assert provider.shut_down(vm, 60.0, False).power_state == "powered_off"
    assert [call.ended for call in vcenter.calls("ShutdownGuest")] == ["Service Unavailable", ""]


def test_failure_to_start_is_told(vcenter: VSphere, settings: dict[str, Any]) -> None:
    vcenter.make_vm("stuck")
    vcenter.fault("PowerOnVM_Task", "task", fault="InsufficientResourcesFault")
    with pytest.raises(VmferryError, match="Starting stuck failed") as refused:
        bring(settings, "stuck", "powered_on")
    assert refused.value.kind == "quota"


def test_what_is_not_built_yet_is_unsupported_and_changes_nothing(
    vcenter: VSphere, settings: dict[str, Any], provider: VsphereProvider
) -> None:
    vcenter.make_vm("whole")
    vm = provider.describe("whole")
    before = vcenter.leftovers()
    job = Job("0" * 32, "0" * 8)
    for act in (lambda: provider.open_snapshot_export(vm, vm.disks, "then", job),):
        with pytest.raises(VmferryError) as refused:
            act()
        assert refused.value.kind == "unsupported"
    for findings in (provider.check_snapshot_export(vm, vm.disks, "then"),):
        assert [(one.severity, one.kind) for one in findings] == [("error", "unsupported")]
    after = vcenter.leftovers()
    assert (after.machines, after.snapshots, after.files) == (before.machines, before.snapshots, before.files)
    assert [*provider.clean_up(vm), *provider.clean_up_imports(), *provider.undo(job.job_id)] == []
