# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances as vm_info tells them: what they are, how they are found, and how often AWS is asked."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import asking, describe
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.describe import _firmware, power_state
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.provider import AwsProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.settings import AwsSettings
from rigs.aws import AwsServer

pytestmark = pytest.mark.slow
GIB = 1024**3
ONE_OF_EACH = ["DescribeInstances", "DescribeVolumes", "DescribeInstanceTypes", "DescribeSnapshots"]


def found(settings: dict[str, Any], **filters: str) -> list[str]:
    return [vm["name"] for vm in describe_vms(ProviderSpec("aws", settings), None, filters)["vms"]]


def asked(aws: AwsServer) -> list[str]:
    return [call.partition(":")[2] for call in aws.calls()]


def test_instance_is_described_in_our_words(aws: AwsServer, provider: AwsProvider) -> None:
    instance = aws.make_instance("whole", [b"", b""], sizes=[8, 3], type="m5.large", tags={"env": "prod", "bare": ""})
    volumes = aws.volumes(instance)
    vm = provider.describe("whole")
    assert (vm.provider, vm.id, vm.name, vm.path) == ("aws", instance, "whole", f"{aws.region}/{instance}")
    assert (vm.power_state, vm.cpu, vm.memory_mb) == ("powered_on", 2, 8192)
    assert (vm.architecture, vm.firmware) == ("x86_64", "uefi")  # the image prefers it, and the type has it
    assert vm.tags == ("Name=whole", "bare", "env=prod")
    assert [(disk.id, disk.name, disk.source, disk.size, disk.boot) for disk in vm.disks] == [
        ("disk-0", "/dev/sda1", volumes["/dev/sda1"], 8 * GIB, True),
        ("disk-1", "/dev/sdb", volumes["/dev/sdb"], 3 * GIB, False),
    ]
    root = vm.disks[0]
    assert (root.bus, root.format, root.storage, root.change_tracking) == ("nvme", "raw", "gp3", True)
    assert root.serial == volumes["/dev/sda1"].replace("-", "")
    assert {name: root.details[name] for name in ("encrypted", "iops", "delete_on_termination")} == {
        "encrypted": False,
        "iops": 3000,
        "delete_on_termination": True,
    }
    (nic,) = vm.nics
    assert (nic.id, nic.model, nic.network) == ("nic-0", "ena", vm.details["subnet"])
    told = {name: vm.details[name] for name in ("instance_type", "boot_mode", "ena", "hypervisor", "state")}
    assert told == {
        "instance_type": "m5.large",
        "boot_mode": "uefi-preferred",
        "ena": True,
        "hypervisor": "nitro",
        "state": "running",
    }
    assert vm.details["tags"] == {"Name": "whole", "env": "prod", "bare": ""}


def test_what_encrypts_a_volume_is_told(aws: AwsServer, provider: AwsProvider) -> None:
    aws.make_instance("locked", encrypted=True)
    (disk,) = provider.describe("locked").disks
    assert disk.details["encrypted"] is True
    assert disk.details["kms_key"]


def test_an_instance_is_found_by_its_id_or_the_name_that_it_has(aws: AwsServer, provider: AwsProvider) -> None:
    one = aws.make_instance("twice * named")
    other = aws.make_instance("twice x named")
    assert provider.describe(one).id == one
    assert provider.describe("twice * named").id == one
    assert [vm.id for vm in provider.describe_each([other, "twice * named", one])] == [other, one, one]


def test_a_name_that_several_have_is_refused_with_their_ids(aws: AwsServer, provider: AwsProvider) -> None:
    ids = sorted(aws.make_instance("same") for _number in range(2))
    with pytest.raises(VmferryError, match=r"2 instances in .* are called same") as many:
        provider.describe("same")
    assert many.value.kind == "conflict"
    assert all(one in many.value.message for one in ids)


def test_what_is_gone_or_never_was_is_not_found(aws: AwsServer, provider: AwsProvider) -> None:
    gone = aws.make_instance("gone")
    aws.ec2.terminate_instances(InstanceIds=[gone])
    for called in ("gone", gone, "nobody", "i-00000000000000000"):
        with pytest.raises(VmferryError, match="There is no instance") as missing:
            provider.describe(called)
        assert missing.value.kind == "not_found"
    assert gone not in [vm.id for vm in provider.vms()]


def test_all_are_found_by_name_tag_and_state(aws: AwsServer, settings: dict[str, Any]) -> None:
    aws.make_instance("find-1", tags={"set": "find", "lone": ""})
    aws.make_instance("find-2", tags={"set": "find"}, running=False)
    aws.make_instance("other", tags={"set": "other"})
    assert found(settings, name="find-*") == ["find-1", "find-2"]
    assert found(settings, name="find-[1]") == ["find-1"]
    assert found(settings, tag="set=find", power_state="powered_off") == ["find-2"]
    assert found(settings, tag="lone") == ["find-1"]
    assert found(settings, tag="set") == []
    with pytest.raises(VmferryError, match="cannot be found by a folder"):
        found(settings, folder="x")


def test_an_instance_without_a_name_is_called_by_its_id(aws: AwsServer, settings: dict[str, Any]) -> None:
    instance = aws.make_instance("", tags={"set": "nameless"})
    assert found(settings, tag="set=nameless") == [instance]
    assert found(settings, name=f"{instance[:5]}*", tag="set=nameless") == [instance]


def test_many_are_told_in_few_calls(aws: AwsServer, provider: AwsProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [aws.make_instance(f"many-{number}", [b"", b""]) for number in range(5)]
    aws.forget_calls()
    assert {vm.id for vm in provider.vms_like({"name": "many-?"})} == set(many)
    assert asked(aws) == ONE_OF_EACH
    monkeypatch.setitem(asking._PAGED, "describe_instances", ("Reservations", 5))
    monkeypatch.setattr(asking, "VALUES", 2)
    aws.forget_calls()
    assert len(provider.describe_each(many)) == 5
    counted = {name: asked(aws).count(name) for name in ONE_OF_EACH}
    assert counted == {
        "DescribeInstances": 3,
        "DescribeVolumes": 3,
        "DescribeInstanceTypes": 1,
        "DescribeSnapshots": 3,
    }


def test_every_page_is_read(aws: AwsServer, provider: AwsProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        aws.make_instance(f"page-{number}")
    monkeypatch.setitem(asking._PAGED, "describe_instances", ("Reservations", 5))
    aws.forget_calls()
    assert len(provider.vms_like({"name": "page-*"})) == 7
    assert asked(aws).count("DescribeInstances") == 2


def test_an_sdk_that_does_not_know_pages_of_images_gets_all_at_once(
    aws: AwsServer, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(AwsSettings.from_options(settings))
    monkeypatch.setattr(session.client("ec2"), "can_paginate", lambda operation: operation != "describe_images")
    (base,) = aws.ec2.describe_images(Filters=[asking.of("name", ["base"])])["Images"]
    found = asking.every(session, "describe_images", "Looking", [asking.of("image-id", [base["ImageId"]])])
    assert [image["Name"] for image in found] == ["base"]
    session.close()


@pytest.mark.parametrize(
    ("kind", "error"),
    [("denied", "permission_denied"), ("unknown_key", "unauthenticated"), ("expired", "unauthenticated")],
)
def test_what_aws_refuses_is_told_with_what_to_do(aws: AwsServer, provider: AwsProvider, kind: str, error: str) -> None:
    aws.make_instance(f"refused-{kind}")
    aws.fault("DescribeVolumes", kind)
    with pytest.raises(VmferryError, match=f"Describing refused-{kind} failed") as refused:
        provider.describe(f"refused-{kind}")
    assert refused.value.kind == error
    assert refused.value.hint
    if kind == "denied":
        assert "DescribeVolumes" in refused.value.hint


def test_a_busy_account_is_asked_again(aws: AwsServer, provider: AwsProvider) -> None:
    aws.make_instance("patient")
    aws.fault("DescribeInstances", "throttle", times=1)
    assert provider.describe("patient").name == "patient"


@pytest.mark.parametrize(
    ("instance", "kind", "wanted"),
    [
        ({"CurrentInstanceBootMode": "legacy-bios", "BootMode": "uefi-preferred"}, {}, "bios"),
        ({"BootMode": "uefi"}, {"SupportedBootModes": ["legacy-bios", "uefi"]}, "uefi"),
        ({"BootMode": "uefi-preferred"}, {"SupportedBootModes": ["legacy-bios"]}, "bios"),
        ({"BootMode": "uefi-preferred"}, {"SupportedBootModes": ["legacy-bios", "uefi"]}, "uefi"),
        ({}, {"SupportedBootModes": ["legacy-bios", "uefi"]}, "bios"),
        ({}, {"SupportedBootModes": ["uefi"]}, "uefi"),
        ({"Architecture": "arm64"}, {}, "uefi"),
        ({}, {}, "unknown"),
    ],
)
def test_firmware_is_what_the_instance_booted_with_or_will(
    instance: dict[str, Any], kind: dict[str, Any], wanted: str
) -> None:
    assert _firmware(instance, kind) == wanted


def test_a_hibernated_instance_is_suspended() -> None:
    stopped = {"State": {"Name": "stopped"}}
    assert power_state(stopped) == "powered_off"
    assert power_state({**stopped, "StateReason": {"Code": "Client.UserInitiatedHibernate"}}) == "suspended"
    assert power_state({**stopped, "StateReason": {"Code": "Client.UserInitiatedShutdown"}}) == "powered_off"


@pytest.mark.parametrize("late", [2, 99])
def test_volumes_that_come_to_light_late_are_waited_for_and_not_hurried(
    aws: AwsServer, provider: AwsProvider, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    vm, told, real = aws.make_instance("attaching", [b"", b""]), [], asking.every_of

    def without_the_last(session: Session, operation: str, *given: Any, **named: Any) -> list[Any]:
        answer = real(session, operation, *given, **named)
        if operation == "describe_volumes":
            told.append(time.monotonic())
            return answer if len(told) > late else answer[:-1]
        return answer

    monkeypatch.setattr(describe, "every_of", without_the_last)
    monkeypatch.setattr(describe, "_PAUSES", (0.0, 0.05, 0.1, 0.2))
    if late == 2:
        assert len(provider.describe(vm).disks) == 2
    else:
        with pytest.raises(VmferryError, match="change all the time") as restless:
            provider.describe(vm)
        assert (restless.value.kind, restless.value.retryable, len(told)) == ("busy", True, 4)
    assert told[1] - told[0] >= 0.05
    assert told[2] - told[1] >= 0.1


def test_account_is_told_with_its_region(aws: AwsServer, provider: AwsProvider) -> None:
    assert provider.account == f"aws {aws.account} {aws.region}"
    assert provider.account == f"aws {aws.account} {aws.region}"
    assert asked(aws) == ["GetCallerIdentity"]


def test_without_a_region_nothing_is_asked(aws: AwsServer, settings: dict[str, Any]) -> None:
    with pytest.raises(VmferryError, match=r"aws\.region is not set") as lost:
        AwsProvider({**settings, "region": None}).vms()
    assert (lost.value.kind, asked(aws)) == ("invalid_config", [])


def test_each_service_is_where_the_sdks_own_variables_say(aws: AwsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_EBS", "http://127.0.0.1:2")
    session = Session(AwsSettings.from_options({"region": "eu-central-1", "access_key": "a", "secret_key": "b"}))
    assert session.client("ec2").meta.endpoint_url == "http://127.0.0.1:1"
    assert session.client("ebs").meta.endpoint_url == "http://127.0.0.1:2"
    session.close()


def test_the_endpoint_of_ec2_is_not_asked_whose_the_credentials_are(settings: dict[str, Any]) -> None:
    session = Session(AwsSettings.from_options({**settings, "sts_endpoint_url": None}))
    assert session.client("ec2").meta.endpoint_url == settings["endpoint_url"]
    assert session.client("sts").meta.endpoint_url.endswith(".amazonaws.com")
