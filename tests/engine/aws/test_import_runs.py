# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs into AWS: of an image, of exports of another instance, and of an instance with no store between."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import import_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ImportRequest,
    MigrateRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.migrate_vm import migrate_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from rigs.aws import AwsServer

from .importing import BLOCK, KIB, MIB, in_no_time, noise

pytestmark = pytest.mark.slow
ROOT, DATA = noise(6, 2 * MIB) + bytes(3 * MIB) + noise(7, 5 * KIB), bytes(BLOCK) + noise(8, BLOCK)


class Runs:
    def __init__(self, aws: AwsServer, folder: Path) -> None:
        self.aws, self.folder = aws, folder
        self.provider = ProviderSpec("aws", aws.settings())
        self.transfer = TransferOptions(state_dir=str(folder / "state"))

    def bring(self, url: str, name: str, check_mode: bool = False, **asked: Any) -> dict[str, Any]:
        placement = Placement(**{"name": name, "power_on": True, **asked})
        networks = () if url.endswith(".raw") else None
        request = ImportRequest(self.provider, StoreSpec(url), placement, networks=networks, transfer=self.transfer)
        return import_vm(request, check_mode)

    def content(self, instance: str, *lengths: int) -> list[bytes]:
        volumes = self.aws.volumes(instance).values()
        return [self.aws.volume_bytes(one, length) for one, length in zip(volumes, lengths)]


@pytest.fixture
def runs(aws: AwsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    in_no_time(monkeypatch.setattr)
    return Runs(aws, tmp_path)


def test_image_becomes_an_instance_once(aws: AwsServer, runs: Runs) -> None:
    image = runs.folder / "disk.raw"
    image.write_bytes(ROOT)
    ahead = runs.bring(image.as_uri(), "of-image", check_mode=True)
    assert ahead["changed"]
    assert not [one for one in ahead["findings"] if one["severity"] == "error"]
    assert "ebs:StartSnapshot" not in aws.calls()
    made = runs.bring(image.as_uri(), "of-image")
    assert (made["changed"], made["vm"]["power_state"]) == (True, "powered_on")
    assert runs.content(made["vm"]["id"], len(ROOT)) == [ROOT]
    again = runs.bring(image.as_uri(), "of-image")
    assert (again["changed"], again["vm"]["id"]) == (False, made["vm"]["id"])
    image.write_bytes(DATA)
    with pytest.raises(VmferryError, match="exists already") as caught:
        runs.bring(image.as_uri(), "of-image")
    assert caught.value.kind == "conflict"
    with pytest.raises(VmferryError, match="means nothing to the provider aws"):
        runs.bring(image.as_uri(), "of-image", keep_mac=True)


def test_export_of_an_instance_becomes_another_one(aws: AwsServer, runs: Runs) -> None:
    source = aws.make_instance("source", [ROOT, DATA])
    store = StoreSpec((runs.folder / "store").as_uri())
    export_vm(ExportRequest(runs.provider, store, source, transfer=runs.transfer), False)
    made = runs.bring(store.url, "restored", power_on=False)
    assert made["vm"]["power_state"] == "powered_off"
    assert runs.content(made["vm"]["id"], len(ROOT), len(DATA)) == [ROOT, DATA]
    assert made["vm"]["details"]["instance_type"] == "t3.micro"  # as it was
    started = runs.bring(store.url, "restored")
    assert (started["changed"], started["vm"]["power_state"]) == (True, "powered_on")


def test_instance_is_migrated_and_read_back(aws: AwsServer, runs: Runs) -> None:
    source = aws.make_instance("moved", [ROOT])
    placement = Placement("moved-here", power_on=True)
    request = MigrateRequest(runs.provider, runs.provider, source, placement=placement, transfer=runs.transfer)
    moved = migrate_vm(request, False)
    assert moved["migration"]["verified"] == "content"
    assert runs.content(moved["vm"]["id"], len(ROOT)) == [ROOT]
    assert not migrate_vm(request, False)["changed"]


def test_the_permissions_that_imports_need_are_the_documented_ones(aws: AwsServer, runs: Runs) -> None:
    image = runs.folder / "disk.raw"
    image.write_bytes(DATA)
    network = aws.ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    subnet = aws.ec2.create_subnet(VpcId=network, CidrBlock="10.7.1.0/24")["Subnet"]["SubnetId"]
    aws.ec2.create_security_group(GroupName="allowed", Description="d", VpcId=network)
    aws.ec2.create_key_pair(KeyName="allowed")
    aws.forget_calls()
    asked = {"subnet_id": subnet, "security_groups": ["allowed"], "key_name": "allowed"}
    runs.bring(image.as_uri(), "allowed", power_on=False, **asked)
    aws.fault("StopInstances", "denied", times=-1)
    aws.fault("DeleteTags", "denied", times=-1)
    with pytest.raises(VmferryError):
        runs.bring(image.as_uri(), "refused", power_on=False)
    page = (Path(__file__).resolve().parents[3] / "docs/aws_imports.md").read_text()
    policy = page.partition("<!-- permissions of vm_import -->")[2].partition("<!-- end -->")[0]
    documented = {word for word in policy.replace('"', " ").split() if word.startswith(("ec2:", "ebs:", "sts:"))}
    assert documented == aws.permissions() - {"sts:GetCallerIdentity"}


def test_what_an_option_needs_besides_is_documented(aws: AwsServer, runs: Runs) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/aws_imports.md").read_text()
    policy, _end, rest = page.partition("<!-- permissions of vm_import -->")[2].partition("<!-- end -->")
    rows = dict(re.findall(r"^\| (.+?) \| ((?:`\w+:\w+`(?:, )?)+) \|$", rest, re.MULTILINE))
    (runs.folder / "disk.raw").write_bytes(DATA)
    image = (runs.folder / "disk.raw").as_uri()
    aws.client("iam").create_instance_profile(InstanceProfileName="besides")
    files = ProviderSpec("image", {"url": runs.folder.as_uri()})
    placement = Placement("direct", power_on=True)
    direct = MigrateRequest(files, runs.provider, "disk.raw", placement=placement, networks=(), transfer=runs.transfer)
    acts: dict[str, Callable[[], Any]] = {
        "`vm_migrate` with `verify: content`; an increment that stands on snapshots": lambda: migrate_vm(direct, False),
        "`placement.power_on`, of an instance that is there": lambda: runs.bring(image, "besides"),
        "`placement.iam_instance_profile`": lambda: runs.bring(image, "profiled", iam_instance_profile="besides"),
    }
    runs.bring(image, "besides", power_on=False)
    assert rows.keys() == acts.keys()
    for row, act in acts.items():
        aws.forget_calls()
        act()
        besides = {action for action in aws.permissions() if f'"{action}"' not in policy} - {"sts:GetCallerIdentity"}
        assert besides == set(re.findall(r"\w+:\w+", rows[row])), row
