# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances started, stopped and removed, and what becomes of their volumes."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.bring_vm import bring_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec, VmRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import power
from rigs.aws import AwsServer

pytestmark = pytest.mark.slow


def bring(settings: dict[str, Any], vm: str, state: str, check_mode: bool = False, **more: Any) -> dict[str, Any]:
    whole = {"timeout": 30.0, "force": False, "remove_disks": False, **more}
    return bring_vm(VmRequest(provider=ProviderSpec("aws", settings), vm=vm, state=state, **whole), check_mode)


def there(aws: AwsServer, volumes: dict[str, str]) -> list[str]:
    """Devices whose volumes still exist."""
    known = {volume["VolumeId"] for volume in aws.ec2.describe_volumes()["Volumes"]}
    return [device for device, volume in volumes.items() if volume in known]


def changed(aws: AwsServer) -> list[str]:
    """By what was called that changes something."""
    return [call.partition(":")[2] for call in aws.calls() if not call.startswith("ec2:Describe")]


def test_instance_is_stopped_and_started_again(aws: AwsServer, settings: dict[str, Any]) -> None:
    aws.make_instance("power")
    off = bring(settings, "power", "powered_off")
    assert (off["changed"], off["vm"]["power_state"]) == (True, "powered_off")
    assert bring(settings, "power", "powered_off")["changed"] is False
    assert changed(aws) == ["StopInstances"]
    on = bring(settings, "power", "powered_on")
    assert (on["changed"], on["vm"]["power_state"]) == (True, "powered_on")
    assert bring(settings, "power", "powered_on")["changed"] is False
    assert changed(aws) == ["StopInstances", "StartInstances"]


def test_check_mode_changes_nothing(aws: AwsServer, settings: dict[str, Any]) -> None:
    aws.make_instance("on")
    aws.make_instance("off", running=False)
    for name, state in (("on", "powered_off"), ("off", "powered_on"), ("off", "absent")):
        assert bring(settings, name, state, check_mode=True)["changed"] is True
    assert changed(aws) == []


class Slow:
    """An instance that is seen in one state after the other, and in the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *states: str) -> None:
        self._states = list(states)
        monkeypatch.setattr(power, "_look", self._look)
        monkeypatch.setattr(power, "LOOK_EVERY", 0.01)

    def _look(self, *_of: object) -> dict[str, Any]:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return {"State": {"Name": state}, "StateReason": {"Message": "a reason"}}


def test_power_is_cut_only_where_that_is_asked(
    aws: AwsServer, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.make_instance("deaf")
    Slow(monkeypatch, "running", "stopping")
    with pytest.raises(VmferryError, match=r"did not stop within 0\.1 s") as late:
        bring(settings, "deaf", "powered_off", timeout=0.1)
    assert (late.value.kind, late.value.retryable, "force: true" in late.value.hint) == ("timeout", True, True)
    assert changed(aws) == ["StopInstances"]
    Slow(monkeypatch, "stopping", "stopping", "stopped")
    assert bring(settings, "deaf", "powered_off")["changed"] is False, "the rig's one is off already"
    aws.ec2.start_instances(InstanceIds=[bring(settings, "deaf", "powered_off")["vm"]["id"]])
    aws.forget_calls()
    Slow(monkeypatch, "running", "running", "stopped")
    assert bring(settings, "deaf", "powered_off", timeout=0.0, force=True)["vm"]["power_state"] == "powered_off"
    assert changed(aws) == ["StopInstances", "StopInstances"]


def test_one_that_is_stopping_is_started_once_it_is_off(
    aws: AwsServer, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.make_instance("turning", running=False)
    Slow(monkeypatch, "stopping", "stopped", "stopped", "pending", "running")
    assert bring(settings, "turning", "powered_on")["vm"]["power_state"] == "powered_on"
    assert changed(aws) == ["StartInstances"]


def test_an_instance_that_falls_back_is_told_with_the_reason(
    aws: AwsServer, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.make_instance("falling", running=False)
    Slow(monkeypatch, "stopped", "stopped", "pending", "stopped")
    with pytest.raises(VmferryError, match=r"stopped it again \(a reason\)") as fell:
        bring(settings, "falling", "powered_on")
    assert fell.value.kind == "conflict"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InsufficientInstanceCapacity", "busy"),
        ("IncorrectInstanceState", "conflict"),
        ("UnsupportedOperation", "unsupported"),
        ("VcpuLimitExceeded", "quota"),
    ],
)
def test_what_aws_cannot_start_is_told(aws: AwsServer, settings: dict[str, Any], code: str, kind: str) -> None:
    aws.make_instance(f"stuck-{code}", running=False)
    aws.fault("StartInstances", "refuse", code=code)
    with pytest.raises(VmferryError, match=f"Starting stuck-{code} failed") as stuck:
        bring(settings, f"stuck-{code}", "powered_on")
    assert stuck.value.kind == kind


def test_removed_instance_leaves_its_volumes(aws: AwsServer, settings: dict[str, Any]) -> None:
    instance = aws.make_instance("leaving", [b"root", b"data"], running=False)
    volumes = aws.volumes(instance)
    done = bring(settings, "leaving", "absent")
    assert (done["changed"], done["warnings"]) == (True, [])
    assert there(aws, volumes) == ["/dev/sda1", "/dev/sdb"]
    assert aws.volume_bytes(volumes["/dev/sdb"], 4) == b"data"
    assert bring(settings, "leaving", "absent")["changed"] is False


def test_removed_instance_takes_its_volumes_along_where_that_is_asked(aws: AwsServer, settings: dict[str, Any]) -> None:
    instance = aws.make_instance("taking", [b"", b""], running=False)
    volumes = aws.volumes(instance)
    kept = {"DeviceName": "/dev/sdb", "Ebs": {"DeleteOnTermination": False}}
    aws.ec2.modify_instance_attribute(InstanceId=instance, BlockDeviceMappings=[kept])
    assert bring(settings, "taking", "absent", remove_disks=True)["warnings"] == []
    assert there(aws, volumes) == []


def test_a_running_or_protected_instance_is_not_removed(aws: AwsServer, settings: dict[str, Any]) -> None:
    instance = aws.make_instance("guarded")
    with pytest.raises(VmferryError, match="is powered_on, not powered_off"):
        bring(settings, "guarded", "absent")
    aws.ec2.stop_instances(InstanceIds=[instance])
    aws.ec2.modify_instance_attribute(InstanceId=instance, DisableApiTermination={"Value": True})
    with pytest.raises(VmferryError, match="protected from termination") as guarded:
        bring(settings, "guarded", "absent", remove_disks=True)
    assert guarded.value.kind == "conflict"
    assert changed(aws) == []
    assert [
        disk["details"]["delete_on_termination"] for disk in bring(settings, "guarded", "powered_off")["vm"]["disks"]
    ] == [True]
