# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop an import into AWS is told before anything is made, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import import_hardware
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.import_hardware import new_disks
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.import_image import (
    image_name,
    image_request,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.new_snapshot import (
    SnapshotPlan,
    description_of,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.provider import AwsProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.finding import Finding
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.placement_options import (
    IN_A_CLOUD,
    IN_AN_INVENTORY,
    insist_on_known,
    unknown_options,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import NicSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from rigs.aws import AwsServer

from .importing import EXPORT, SMALL, a_vm

KEY = "arn:aws:kms:us-east-1:123456789012:key/0f8a2b6c-1111-2222-3333-444455556666"


@pytest.fixture(scope="module")
def imports(server: AwsServer) -> Iterator[AwsProvider]:
    """One for all tests of a module: making clients takes longer than most of them."""
    opened = AwsProvider(server.settings())
    yield opened
    opened.close()


def findings(provider: AwsProvider, vm: VmSpec | None = None, **asked: Any) -> list[Finding]:
    return list(provider.check_import(vm or a_vm(SMALL), Placement(**{"name": "checked", **asked}), EXPORT))


def errors(provider: AwsProvider, vm: VmSpec | None = None, **asked: Any) -> list[tuple[str, str]]:
    return [(one.kind, one.message) for one in findings(provider, vm, **asked) if one.severity == "error"]


def test_import_that_can_be_made_has_no_error(aws: AwsServer, imports: AwsProvider) -> None:
    aws.forget_calls()
    assert errors(imports) == []
    assert all(call.partition(":")[2].startswith(("Describe", "Get")) for call in aws.calls())


@pytest.mark.parametrize("option", [*IN_AN_INVENTORY, "storage", "disk_format", "disk_bus", "keep_mac"])
def test_what_means_nothing_to_aws_is_refused(aws: AwsServer, imports: AwsProvider, option: str) -> None:
    value: Any = option.startswith("keep") or "thin"
    ((kind, message),) = errors(imports, **{option: value})
    assert (kind, f"placement.{option} means nothing" in message) == ("unsupported", True)
    with pytest.raises(VmferryError, match=f"placement.{option}"):
        imports.made_otherwise(a_vm(SMALL), Placement("checked", **{option: value}))


@pytest.mark.parametrize("option", IN_A_CLOUD)
def test_other_providers_refuse_what_only_aws_knows(option: str) -> None:
    placed = Placement("new", **{option: ["x"]})
    (told,) = unknown_options(placed, "libvirt")
    assert (told.kind, told.message) == ("unsupported", f"placement.{option} means nothing to the provider libvirt.")
    with pytest.raises(VmferryError, match=f"placement.{option}"):
        insist_on_known(placed, "image")
    vsphere = VsphereProvider({"hostname": "vc.invalid", "username": "u", "password": "p"})
    with pytest.raises(VmferryError, match=f"placement.{option} means nothing to the provider vsphere"):
        vsphere.made_otherwise(a_vm(SMALL), placed)


@pytest.mark.parametrize(
    "asked",
    [
        {"power_on": True},
        {"instance_type": "m5.large"},
        {"subnet_id": "subnet-1"},
        {"security_groups": ["web"]},
        {"key_name": "admin"},
        {"iam_instance_profile": "worker"},
        {"network_map": {"default": "subnet-1"}},
    ],
)
def test_what_is_about_an_instance_is_refused_where_none_is_made(
    aws: AwsServer, imports: AwsProvider, asked: dict[str, Any]
) -> None:
    assert errors(imports, stop_at="image") == []
    ((kind, message),) = errors(imports, stop_at="image", **asked)
    assert (kind, next(iter(asked)) in message) == ("invalid_config", True)


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        ({"instance_type": "z9.huge"}, "not_found", "no instance type z9.huge"),
        ({"instance_type": "m6g.large"}, "invalid_config", "machine of x86_64"),
        ({"cpu": 5000}, "unsupported", "No instance type"),
        ({"subnet_id": "subnet-0123456789abcdef0"}, "not_found", "no subnet"),
        ({"network_map": {"default": "nowhere"}}, "not_found", "no subnet nowhere"),
        ({"network_map": {"lan": "nowhere"}}, "invalid_config", "network_map names lan"),
        ({"storage_map": {"vdz": "gp3"}}, "invalid_config", "storage_map names vdz"),
        ({"storage_map": {"vda": "fast"}}, "invalid_config", "fast is no type of volume"),
        ({"volume_type": "st1"}, "invalid_config", "boots"),
        ({"storage_map": {"vdb": "sc1"}}, "invalid_config", "of the type sc1 have 125 to 16384"),
        ({"security_groups": ["nobodys"]}, "not_found", "no security group nobodys"),
        ({"key_name": "nobodys"}, "not_found", "no key pair nobodys"),
        ({"kms_key_id": KEY}, "invalid_config", "encrypted: true"),
        ({"kms_key_id": "alias/mine", "encrypted": True}, "invalid_config", "not the ARN"),
        ({"stop_at": "volume"}, "invalid_config", "cannot stop at volume"),
        ({"firmware": "openboot"}, "invalid_config", "openboot is no firmware"),
        ({"name": "n" * 300}, "invalid_config", "300 characters"),
    ],
)
def test_what_cannot_be_is_told(
    aws: AwsServer, imports: AwsProvider, asked: dict[str, Any], kind: str, words: str
) -> None:
    found = errors(imports, a_vm(SMALL, SMALL), **asked)
    assert [one for one in found if one[0] == kind and words in one[1]], found


def test_type_that_the_zone_of_the_subnet_does_not_offer_is_told_before_anything_is_sent(
    aws: AwsServer, imports: AwsProvider
) -> None:
    """The rig knows what zones offer: this one, the oldest types alone."""
    named = {"Name": "availability-zone", "Values": ["us-east-1e"]}
    subnet = aws.ec2.describe_subnets(Filters=[named])["Subnets"][0]["SubnetId"]
    ((kind, message),) = errors(imports, subnet_id=subnet, instance_type="m5.large")
    assert (kind, "m5.large are not offered in us-east-1e" in message) == ("unsupported", True)
    (told,) = [one for one in findings(imports, subnet_id=subnet, instance_type="m5.large") if one.severity == "error"]
    assert "us-east-1a, us-east-1b" in told.hint
    ((kind, message),) = errors(imports, subnet_id=subnet)
    assert (kind, "No instance type of m7i, m6i, m5 in us-east-1e" in message) == ("unsupported", True)
    assert errors(imports, subnet_id=subnet, instance_type="t2.micro") == []


def test_type_is_chosen_among_those_that_the_zone_offers(
    aws: AwsServer, imports: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offered(_session: Any, names: Sequence[str]) -> dict[str, list[str]]:
        return {name: [] if name.startswith("m7i") else ["us-east-1a"] for name in names}

    monkeypatch.setattr(import_hardware, "zones_by_type", offered)
    named = {"Name": "availability-zone", "Values": ["us-east-1a"]}
    subnet = aws.ec2.describe_subnets(Filters=[named])["Subnets"][0]["SubnetId"]
    (chosen,) = [one.message for one in findings(imports, subnet_id=subnet) if "of the type" in one.message]
    assert "m6i.large" in chosen
    (chosen,) = [one.message for one in findings(imports) if "of the type" in one.message]
    assert "m7i.large" in chosen, "where AWS chooses the zone"


def test_vm_that_ec2_has_no_machine_for_is_refused(aws: AwsServer, imports: AwsProvider) -> None:
    assert ("unsupported", "web01 is a machine of s390x, which EC2 has not.") in errors(
        imports, a_vm(SMALL, architecture="s390x")
    )
    huge = a_vm(SMALL).disks[0].__class__(**{**vars(a_vm(SMALL).disks[0]), "size": (64 << 40) + 1})
    assert [kind for kind, message in errors(imports, a_vm().with_disks((huge,))) if "at most" in message] == [
        "unsupported"
    ]
    assert [message for _kind, message in errors(imports, a_vm(*[SMALL] * 40)) if "has 40 disks" in message]


def test_disk_that_is_too_large_for_its_type_is_refused(aws: AwsServer, imports: AwsProvider) -> None:
    (disk,) = a_vm(SMALL).disks
    large = a_vm().with_disks((replace(disk, size=2 << 40),))
    assert errors(imports, large) == []
    ((kind, message),) = errors(imports, large, volume_type="standard")
    assert (kind, "of the type standard have 1 to 1024" in message) == ("invalid_config", True)


def test_instance_without_the_driver_of_a_card_gets_no_type_that_has_no_other(
    aws: AwsServer, imports: AwsProvider
) -> None:
    vm = a_vm(SMALL, provider="aws", details={"ena": False}, nics=())
    ((kind, message),) = errors(imports, vm, instance_type="m5.large")
    assert (kind, "network card ENA alone" in message) == ("invalid_config", True)
    assert errors(imports, vm, instance_type="t2.micro") == []


def test_group_of_another_vpc_is_told_where_no_subnet_is_named(aws: AwsServer, imports: AwsProvider) -> None:
    network = aws.ec2.create_vpc(CidrBlock="10.6.0.0/16")["Vpc"]["VpcId"]
    group = aws.ec2.create_security_group(GroupName="far", Description="d", VpcId=network)["GroupId"]
    for name in ("far", group):
        assert [kind for kind, message in errors(imports, security_groups=[name]) if name in message] == ["not_found"]
    assert errors(imports, security_groups=["default"]) == []


def test_account_without_a_default_vpc_needs_a_subnet(
    aws: AwsServer, imports: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = imports._session.client("ec2")
    ask = client.describe_subnets

    def none_by_default(Filters: list[dict[str, Any]]) -> Any:  # as the SDK has it
        told = ask(Filters=Filters)
        return {"Subnets": [one for one in told["Subnets"] if not one["DefaultForAz"]]}

    monkeypatch.setattr(client, "describe_subnets", none_by_default)
    network = aws.ec2.create_vpc(CidrBlock="10.5.0.0/16")["Vpc"]["VpcId"]
    subnet = aws.ec2.create_subnet(VpcId=network, CidrBlock="10.5.1.0/24")["Subnet"]["SubnetId"]
    ((kind, message),) = errors(imports)
    assert (kind, "has no default VPC" in message) == ("invalid_config", True)
    assert errors(imports, subnet_id=subnet) == []
    assert errors(imports, stop_at="image") == []


def test_long_names_are_described_in_short() -> None:
    plan = SnapshotPlan("disk-0", 1 << 30, "token", description_of("disk-0", "n" * 256), dict)
    disks = new_disks(a_vm(SMALL), Placement("n" * 256))
    image = image_request(a_vm(SMALL), Placement("n" * 256), disks, ["snap-1"], {}, "image")
    assert [len(asked["Description"]) for asked in (plan.request(), image)] == [255, 255]


def test_names_of_devices_are_there_once(imports: AwsProvider) -> None:
    names = [disk.device for disk in new_disks(a_vm(*[SMALL] * 26), Placement("new"))]
    assert len(set(names)) == 26
    assert names[:3] == ["/dev/sda1", "/dev/sdf", "/dev/sdg"]


def test_name_that_is_taken_is_a_conflict(aws: AwsServer, imports: AwsProvider) -> None:
    there = aws.make_instance("taken", [SMALL])
    (found,) = errors(imports, name="taken")
    assert (found[0], there in found[1]) == ("conflict", True)


def test_name_with_signs_of_filters_stands_for_itself(aws: AwsServer, imports: AwsProvider) -> None:
    aws.make_instance("star-1", [SMALL])
    assert errors(imports, name="star-*") == []


def test_what_is_lost_is_told_as_a_warning(aws: AwsServer, imports: AwsProvider) -> None:
    vm = a_vm(
        SMALL,
        secure_boot=True,
        tpm=True,
        firmware="uefi",
        details={"cdroms": [{"name": "sda"}]},
        nics=(NicSpec("nic-0", "52:54:00:00:00:01", "lan"), NicSpec("nic-1", "52:54:00:00:00:02", "dmz")),
    )
    told = " ".join(one.message for one in findings(imports, vm) if one.severity == "warning")
    for words in (
        "without Secure Boot and its TPM",
        "drivers for NVMe",
        "without its cdrom",
        "where nic-1",
        "EC2 starts",
    ):
        assert words in told
    assert "EC2 starts" not in " ".join(one.message for one in findings(imports, vm, power_on=True))
    small = findings(imports, a_vm(SMALL, cpu=8), instance_type="m5.large")
    assert [one for one in small if one.severity == "warning" and "less than the 8" in one.message]


def test_firmware_that_the_vm_had_not_is_a_warning(aws: AwsServer, imports: AwsProvider) -> None:
    changed = findings(imports, firmware="uefi")
    assert [one for one in changed if one.severity == "warning" and "installed for bios" in one.message]
    unknown = findings(imports, a_vm(SMALL, firmware="unknown"))
    assert [one for one in unknown if "Nobody knows which firmware" in one.message]


@pytest.mark.parametrize(("name", "clean"), [("web01", "web01-0badcafe"), ("a*b:ü", "a-b---0badcafe")])
def test_names_of_images_have_the_signs_that_they_may(name: str, clean: str) -> None:
    assert image_name(name, "0badcafe") == clean
    assert len(image_name(name * 100, "0badcafe")) <= 128
